"""Writes one report of the rows of any runs: of several suites, machines or commits."""

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eval.rows import read_rows, rows_file
from eval.rows.store import merge
from zoo.config import UserError, from_mapping, require
from zoo.config.files import typed_path
from zoo.data.corpora.finding import glob_matches


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportRecipe:
    """`configs/report.yaml`, composed.

    Attributes:
        rows: Files of rows, or folders that hold `rows.jsonl` or `rows.jsonl.gz`; may contain `*` and `**`.
        out: Folder of the report.
        title: Of the page.
        pages: Documents whose parts marked `<!-- results:NAME -->` are written anew.
    """

    rows: tuple[str, ...]
    out: str
    title: str
    pages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.rows) > 0, "rows", "name at least one file of rows", list(self.rows))
        require("" not in self.rows, "rows", "name files or folders", list(self.rows))
        require(self.out != "", "out", "name a folder", self.out)
        require(self.title.strip() != "", "title", "not be empty", self.title)

    def files(self) -> list[Path]:
        """The files of rows that are meant, each once.

        Raises:
            UserError: If a name or a pattern fits no file.
        """
        found: dict[Path, None] = {}
        for written in self.rows:
            must = f"rows must name files of rows, or folders that hold rows.jsonl; got {written!r}"
            pattern = typed_path(written, what="rows")
            try:
                # A file whose name has brackets is itself before it is a pattern.
                paths = [pattern] if pattern.exists() else glob_matches(pattern)
                files = [file for file in map(rows_file, paths) if file.is_file()]
            except (OSError, ValueError) as error:
                # A name too long, a folder that may not be read, a pattern such as a**.
                reason = error.strerror if isinstance(error, OSError) else error
                raise UserError(f"{must} ({reason})") from None
            if not files:
                raise UserError(must)
            found.update(dict.fromkeys(files))
        return list(found)


def main(config: DictConfig) -> dict[str, Any]:
    """Reads, merges, and writes the report.

    Returns:
        `report_path`; `summary`: how many rows of which status, of which devices and suites, and which figures.

    Raises:
        UserError: On a mistake in the configuration, a file that holds no rows, or a folder that cannot be written.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    recipe = from_mapping(ReportRecipe, {str(key): value for key, value in plain.items()}, path="report")
    files = recipe.files()
    rows = merge(*(read_rows(path) for path in files))
    # They import matplotlib and SciPy.
    from eval.query import num_statuses
    from eval.report import write_report
    from eval.report.readme import regenerate

    folder = typed_path(recipe.out, what="out")
    report = write_report(rows, folder, title=recipe.title)
    changed = [page for page in recipe.pages if regenerate(typed_path(page, what="pages"), rows, folder)]
    return {
        "report_path": str(report.html),
        "summary": {
            "files": len(files),
            "rows": len(rows),
            "statuses": num_statuses(rows),
            "devices": list(dict.fromkeys(row.machine.device for row in rows)),
            "suites": list(dict.fromkeys(row.cell.suite for row in rows if row.cell is not None)),
            "figures": [path.stem for path in report.figures],
            "changed_pages": changed,
        },
    }
