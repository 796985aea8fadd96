import itertools

import pytest

from eval.suites import SuiteRequest
from eval.suites.grid import MODES, SUITE
from tests.eval.rows_factory import group_rows, planned
from zoo.attention.catalog import attention_names
from zoo.config import UserError


def test_every_point_asked_for_has_a_cell_of_every_variant() -> None:
    asked = {
        "variants": ("mha", "hybrid_swa", "blocksparse_legacy"),
        "lengths": (33, 65),
        "batch_sizes": (1, 3),
        "dtypes": ("float32", "bfloat16"),
        "compiled": (True, False),
        "executions": ("latency", "throughput"),
    }
    models = ("gpt_tiny", "llama_tiny")
    request = SuiteRequest(**asked, models=models, modes=("forward", "step", "decode"))
    cells = [cell for group in SUITE.groups(request) for cell in group.cells]
    subjects = [("op", "forward", None), ("layer", "forward", None)]
    subjects += [("model", mode, name) for mode in ("forward", "step", "decode") for name in models]
    wanted = {(*subject, *axes) for subject in subjects for axes in itertools.product(*asked.values())}
    named = ("level", "mode", "model", "variant", "length", "batch_size", "dtype", "compiled", "execution")
    assert {tuple(getattr(cell, name) for name in named) for cell in cells} == wanted
    assert len(cells) == len(wanted)
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
    asked = SuiteRequest(variants=("mha", "swa"), levels=("op",), lengths=(9,), modes=("forward",))
    (group,) = SUITE.groups(asked)
    figure = SUITE.summary(group_rows(group, lambda cell: 2.0 if cell.variant == "swa" else 1.0))[-1]
    assert figure["figure"] == "swa over mha"
    assert figure["low"] <= figure["ratio"] <= figure["high"]
    assert figure["ratio"] == pytest.approx(2, rel=0.02)
