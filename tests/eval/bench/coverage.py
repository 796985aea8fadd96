"""How often the intervals are right on this very machine; needs a quiet one and minutes, so it is run by hand.

    python -m tests.eval.bench.coverage slowdown   # a tenth more work, 20 repetitions: how often is it found?
    python -m tests.eval.bench.coverage control    # 48 cells against themselves: how often does the interval hold 1?
    python -m tests.eval.bench.coverage rows FILE  # the same of the controls in any rows

The last line on stdout is one JSON object.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eval.bench import Group, MeasureOptions
from eval.bench.runner import measure
from eval.rows import Cell, Row, RowStore, read_rows
from tests.eval.bench.outside import SLOW, lay_out
from zoo.attention.catalog import variant_mapping

REPETITIONS = 20


def slowdown_groups() -> list[Group]:
    """Repetitions differ by the seed of their inputs."""
    return [
        Group(
            cells=tuple(
                _cell(group=f"repetition {seed}", name=name, seed=seed, batch_size=10, length=128, mode="forward")
                for name in ("mha_manual", "slowed")
            )
        )
        for seed in range(REPETITIONS)
    ]


def control_groups() -> list[Group]:
    """Short and long, forward and backward, of several mechanisms."""
    return [
        Group(cells=(_cell(group=f"{name} {mode} {length}", name=name, batch_size=1, length=length, mode=mode),))
        for name in ("mha_manual", "mha", "mha_tiled", "swa", "blocksparse", "linear")
        for mode in ("forward", "forward_backward")
        for length in (64, 128, 256, 512)
    ]


def judged(rows: Sequence[Row]) -> dict[str, object]:
    """Of candidates, how many are slower beyond doubt; of controls, how many are the same as far as one can tell."""
    found: dict[str, list[bool]] = {"control": [], "candidate": []}
    outside = []
    for row in rows:
        compared = row.comparison
        if row.cell is None or compared is None or compared.ratio_low is None or compared.ratio_high is None:
            continue
        if row.cell.role == "control":
            found["control"].append(compared.ratio_low <= 1 <= compared.ratio_high)
            if not found["control"][-1]:
                interval = (round(compared.ratio_low, 4), round(compared.ratio_high, 4))
                outside.append((row.cell.suite, row.cell.group, *interval))
        elif row.cell.variant in SLOW:
            found["candidate"].append(compared.ratio_low > 1)
    return {
        "controls": len(found["control"]),
        "controls_containing_one": sum(found["control"]),
        "controls_outside": outside,
        "slowed": len(found["candidate"]),
        "slowed_found": sum(found["candidate"]),
        "ratios_of_slowed": [round(row.comparison.ratio, 3) for row in rows if _is_slowed(row) and row.comparison],
    }


def _is_slowed(row: Row) -> bool:
    return row.cell is not None and row.cell.variant in SLOW


def _cell(*, group: str, name: str, batch_size: int, length: int, mode: str, seed: int = 0) -> Cell:
    mapping = {"name": name, "mechanism": name} if name in SLOW else variant_mapping(name)
    return Cell.model_validate(
        {
            "suite": "coverage",
            "group": group,
            "builder": "op",
            "variant": name,
            "attention": json.dumps(mapping),
            "role": "candidate" if name in SLOW else "baseline",
            "level": "op",
            "mode": mode,
            "batch_size": batch_size,
            "length": length,
            "seed": seed,
        }
    )


def _measured(groups: Sequence[Group]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), SLOW)
        # Worker processes inherit it.
        sys.path.insert(0, folder)
        store = RowStore(Path(folder) / "rows.jsonl")
        measure(groups, store=store, options=MeasureOptions(), progress=_tell)
        return list(store.rows.values())


def _tell(done: int, total: int, name: str) -> None:
    print(f"{done}/{total} {name}", file=sys.stderr)


def main(arguments: Sequence[str]) -> None:
    """Measures, or reads, and prints what came of it."""
    what = arguments[0]
    if what == "rows":
        rows = read_rows(Path(arguments[1]))
    else:
        rows = _measured({"slowdown": slowdown_groups, "control": control_groups}[what]())
    print(json.dumps(judged(rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
