"""A table of texts, for a page and for Markdown alike."""

import dataclasses

from eval.report.plain import Markdown, markdown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        columns: Their names.
        rows: Texts, one for each column.
        note: What a reader must know of it; empty for nothing.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), "every row has a text for every column"

    def markdown(self) -> Markdown:
        """The table as Markdown."""
        lines = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        return Markdown("\n".join("| " + " | ".join(markdown(cell) for cell in line) + " |" for line in lines))
