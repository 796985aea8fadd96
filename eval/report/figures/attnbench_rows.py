"""The rows of the AttnBench grid, in the parts that its figures draw."""

from collections.abc import Sequence

from eval.query import Measured, measured
from eval.rows import Row

SUITE = "attnbench"
MODES = ("forward", "forward_backward")
MODE_TITLES = {"forward": "forward", "forward_backward": "forward + backward"}
UNFUSED, FUSED = "mha_manual", "mha"
_CAUSAL = "causal"


def main_rows(rows: Sequence[Row], mode: str) -> list[Measured]:
    """Every series of the grid, without a mask, of one mode."""
    return [each for each in measured(rows, suites=(SUITE,), mode=mode) if not each.cell.group.startswith(_CAUSAL)]


def causal_rows(rows: Sequence[Row], mode: str) -> list[Measured]:
    """Linear attention with and without a causal mask, of one mode, timed in the same rounds."""
    return [each for each in measured(rows, suites=(SUITE,), mode=mode) if each.cell.group.startswith(_CAUSAL)]


def missing(what: str) -> str:
    """Why a figure of this suite is not drawn."""
    return f"no rows of {what} in suite {SUITE}"
