"""The report: one self-contained HTML page, and the same as Markdown, CSV and JSON."""
