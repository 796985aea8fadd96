"""How often the intervals are right on this very machine; needs a quiet one and minutes, so it is run by hand.

    python -m tests.eval.bench.coverage slowdown   # a tenth more work, 20 repetitions: how often is it found?
    python -m tests.eval.bench.coverage control    # 48 cells against themselves: how often does the interval hold 1?
    python -m tests.eval.bench.coverage rows FILE  # the same of the controls in any rows

The last line on stdout is one JSON object.
"""

import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eval.bench import Group, MeasureOptions
from eval.bench.runner import measure
from eval.rows import Row, RowStore, read_rows
from tests.eval.bench.outside import SLOW, lay_out
from tests.eval.rows_factory import plain_cell
from zoo.attention.catalog import variant_mapping


def _group(*names: str, mode: str, length: int, batch_size: int = 1, seed: int = 0) -> Group:
    """The first is the baseline; repetitions differ by the seed of their inputs."""
    cells = [
        plain_cell(
            length,
            suite="coverage",
            group=f"{names[0]} {mode} {length} {seed}",
            variant=name,
            attention=json.dumps({"name": name, "mechanism": name} if name in SLOW else variant_mapping(name)),
            role="candidate" if name in SLOW else "baseline",
            mode=mode,
            batch_size=batch_size,
            seed=seed,
        )
        for name in names
    ]
    return Group(cells=tuple(cells))


def slowdown_groups() -> list[Group]:
    """A tenth more work against the same without it."""
    return [_group("mha_manual", "slowed", mode="forward", length=128, batch_size=10, seed=seed) for seed in range(20)]


def control_groups() -> list[Group]:
    """Short and long, forward and backward, of several mechanisms."""
    names = ("mha_manual", "mha", "mha_tiled", "swa", "blocksparse", "linear")
    settings = itertools.product(names, ("forward", "forward_backward"), (64, 128, 256, 512))
    return [_group(name, mode=mode, length=length) for name, mode, length in settings]


def judged(rows: Sequence[Row]) -> dict[str, object]:
    """Of candidates, how many are slower beyond doubt; of controls, how many are the same as far as one can tell."""
    found = [(row.cell, row.comparison) for row in rows if row.cell and row.comparison and row.comparison.ratio_low]
    controls = [(cell, each) for cell, each in found if cell.role == "control"]
    outside = [
        (cell.suite, cell.group, round(each.ratio_low or 0, 4), round(each.ratio_high or 0, 4))
        for cell, each in controls
        if not (each.ratio_low or 0) <= 1 <= (each.ratio_high or 0)
    ]
    slowed = [each for cell, each in found if cell.variant in SLOW]
    return {
        "controls": len(controls),
        "controls_containing_one": len(controls) - len(outside),
        "controls_outside": outside,
        "slowed": len(slowed),
        "slowed_found": sum((each.ratio_low or 0) > 1 for each in slowed),
        "ratios_of_slowed": [round(each.ratio, 3) for each in slowed],
    }


def _measured(groups: Sequence[Group]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), SLOW)
        # Worker processes inherit it.
        sys.path.insert(0, folder)
        store = RowStore(Path(folder) / "rows.jsonl")
        tell = lambda done, total, name: print(f"{done}/{total} {name}", file=sys.stderr)  # noqa: E731
        measure(groups, store=store, options=MeasureOptions(), progress=tell)
        return list(store.rows.values())


if __name__ == "__main__":
    what, *files = sys.argv[1:]
    plans = {"slowdown": slowdown_groups, "control": control_groups}
    print(json.dumps(judged(read_rows(Path(files[0])) if what == "rows" else _measured(plans[what]()))))
