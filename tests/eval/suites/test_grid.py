import itertools

import pytest

from eval.suites import SuiteRequest
from eval.suites.grid import MODES, SUITE
from tests.eval.rows_factory import group_rows, planned
from zoo.attention.catalog import attention_names
from zoo.config import UserError

NAMES = ("mha", "hybrid_swa", "blocksparse_legacy")


def test_every_point_asked_for_has_a_cell_of_every_variant() -> None:
    request = SuiteRequest(
        variants=NAMES,
        lengths=(33, 65),
        batch_sizes=(1, 3),
        dtypes=("float32", "bfloat16"),
        compiled=(True, False),
        executions=("latency", "throughput"),
        models=("gpt_tiny", "llama_tiny"),
        modes=("forward", "step", "decode"),
    )
    cells = [cell for group in SUITE.groups(request) for cell in group.cells]
    points = {
        (c.variant, c.level, c.mode, c.model, c.length, c.batch_size, c.dtype, c.compiled, c.execution) for c in cells
    }
    subjects = [("op", "forward", None), ("layer", "forward", None)]
    subjects += [("model", mode, name) for mode in request.modes or () for name in request.models or ()]
    axes = ((33, 65), (1, 3), ("float32", "bfloat16"), (True, False), ("latency", "throughput"))
    wanted = {(name, *subject, *axis) for name in NAMES for subject in subjects for axis in itertools.product(*axes)}
    assert points == wanted
    assert len(cells) == len(points)
    heads = {(c.model, c.num_heads, c.num_kv_heads, c.head_dim, c.hidden_size) for c in cells if c.model}
    assert heads == {("gpt_tiny", 4, 4, 32, 128), ("llama_tiny", 4, 2, 32, 128)}


def test_by_default_all_variants_are_compared_at_all_levels() -> None:
    groups = planned("grid")
    places = {level: {group.baseline.mode for group in groups if group.baseline.level == level} for level in MODES}
    both = {"forward", "forward_backward"}
    assert places == {"op": both, "layer": both, "model": {"step", "prefill", "decode"}}
    assert {cell.variant for cell in groups[0].cells} == set(attention_names())


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"levels": ("op",), "modes": ("decode",)}, "modes must suit a level"),
        ({"levels": ("model",), "models": ("lama",)}, "llama_tiny"),
    ],
)
def test_what_suits_no_level_or_does_not_exist_is_refused(choices: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SUITE.groups(SuiteRequest(**choices))


def test_the_summary_compares_with_the_first_variant() -> None:
    (group,) = SUITE.groups(SuiteRequest(variants=("mha", "swa"), levels=("op",), lengths=(9,), modes=("forward",)))
    rows = group_rows(group, lambda cell: 2.0 if cell.variant == "swa" else 1.0)
    figure = SUITE.summary(rows)[-1]
    assert figure["figure"] == "swa over mha"
    assert figure["ratio"] == pytest.approx(2, rel=0.02)
    assert figure["low"] <= figure["ratio"] <= figure["high"]
