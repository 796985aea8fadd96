"""The report: one self-contained HTML page, and the same as Markdown, CSV and JSON."""

from eval.report.report import ReportFiles, write_report

__all__ = ["ReportFiles", "write_report"]
