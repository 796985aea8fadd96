"""Measures speed and memory; for now the suite `foundation`: the project's own claims about its parts."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from eval.foundation import FIGURES, HEAD_DIM, measure
from eval.graph import fused_attention_paths
from zoo.config import UserError, from_mapping, require
from zoo.runtime.backend import default_dtype
from zoo.runtime.versions import describe


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRecipe:
    """`configs/benchmark.yaml`, composed.

    Attributes:
        suite: Which figures to measure.
        rounds: Timed rounds of each interleaved run.
        figures: Which of the suite's figures, or None for all.
        run_dir: Where `rows.jsonl` goes.
    """

    suite: Literal["foundation"]
    rounds: int
    run_dir: str
    figures: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", "be at least 1", self.rounds)
        unknown = set(self.figures or ()) - set(FIGURES)
        require(not unknown, "figures", "name figures of the suite", sorted(unknown), allowed=FIGURES)


def main(config: DictConfig) -> dict[str, Any]:
    """Measures, and prints a table on stderr.

    Returns:
        `rows_path`, and `summary`: one object per figure with its value, its target and whether it was met.

    Raises:
        UserError: If the output folder cannot be written.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    recipe = from_mapping(BenchmarkRecipe, {str(key): value for key, value in plain.items()}, path="benchmark")
    folder = Path(recipe.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows_path = folder / "rows.jsonl"
        rows_path.touch()
    except OSError as error:
        reason = error.strerror
        raise UserError(f"run_dir must be a folder that can be written; got {recipe.run_dir!r} ({reason})") from None
    figures = measure(rounds=recipe.rounds, names=recipe.figures)
    measured = [{**dataclasses.asdict(figure), "met": figure.met} for figure in figures]
    paths = fused_attention_paths(length=1024, head_dim=HEAD_DIM, dtype=default_dtype())
    machine = {**describe(), "fused_attention": paths}
    with rows_path.open("a", encoding="utf-8") as rows:
        for figure in measured:
            row = {**figure, "suite": recipe.suite, "rounds": recipe.rounds, "machine": machine}
            rows.write(json.dumps(row) + "\n")
    for figure in measured:
        sign, mark = (">=" if figure["at_least"] else "<="), ("met" if figure["met"] else "MISSED")
        print(f"{figure['name']:42} {figure['value']:8.3f}  {sign} {figure['target']:<6} {mark}", file=sys.stderr)
    return {"rows_path": str(rows_path), "summary": measured}
