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
    named = {"suite": "coverage", "group": f"{names[0]} {mode} {length} {seed}", "mode": mode, "seed": seed}
    cells = []
    for name in names:
        mapping = {"name": name, "mechanism": name} if name in SLOW else variant_mapping(name)
        what = {"variant": name, "attention": json.dumps(mapping), "role": "candidate" if name in SLOW else "baseline"}
        cells.append(plain_cell(length, batch_size=batch_size, **named, **what))
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
    found = [(row.cell, row.comparison) for row in rows if row.comparison and row.comparison.ratio_low]
    slowed = [ratio for cell, ratio in found if cell.variant in SLOW]
    controls = [(cell, ratio) for cell, ratio in found if cell.role == "control"]
    outside = [(cell, ratio) for cell, ratio in controls if not ratio.ratio_low <= 1 <= ratio.ratio_high]
    return {
        "controls": len(controls),
        "controls_containing_one": len(controls) - len(outside),
        "controls_outside": [(cell.suite, cell.group, ratio.ratio_low, ratio.ratio_high) for cell, ratio in outside],
        "slowed": len(slowed),
        "slowed_found": sum(ratio.ratio_low > 1 for ratio in slowed),
        "ratios_of_slowed": [round(ratio.ratio, 3) for ratio in slowed],
    }


def _measured(groups: Sequence[Group]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), SLOW)
        # Worker processes inherit it.
        sys.path.insert(0, folder)
        store = RowStore(Path(folder) / "rows.jsonl")
        measure(groups, store=store, options=MeasureOptions(), progress=lambda *at: print(*at, file=sys.stderr))
        return list(store.rows.values())


if __name__ == "__main__":
    what, *files = sys.argv[1:]
    plans = {"slowdown": slowdown_groups, "control": control_groups}
    print(json.dumps(judged(read_rows(Path(files[0])) if what == "rows" else _measured(plans[what]()))))
