"""What repeated experiments build beside the instrument's own ops, layers and models."""

import mlx.core as mx
import pytest

from eval.replications import grid48, pytorch
from eval.rows import Cell
from eval.suites.series import series_named
from eval.workloads.attention import attention_setting
from tests.eval.workloads import settings
from zoo.config import UserError

FUSED = series_named("mha(implementation=fused)").mapping
SIZES = {"batch_size": 3, "length": 17, "num_heads": 5, "head_dim": 6, "hidden_size": 28}
LAYER = settings.cell("layer", "mha", attention=FUSED, causal=False, **SIZES)
KERNEL = LAYER.model_copy(update={"attention": None, "level": "op", "head_dim": 32, "hidden_size": None})


def cell(kind: str, layout: str, batch_size: int) -> Cell:
    return LAYER.model_copy(update={"detail": f"{kind}: {layout}", "batch_size": batch_size})


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", pytorch.LAYERS)
def test_every_layout_gives_the_same_output(kind: str, batch_size: int) -> None:
    native, *others = (pytorch.build_layout(cell(kind, layout, batch_size)) for layout in pytorch.LAYOUTS)
    assert native.call().shape == (batch_size, 17, 28)
    for each in (native, *others):
        assert each.check().passed
        assert each.function == native.function
        assert each.work.useful_flops == native.work.useful_flops


def test_batch_and_sequence_mistaken_for_each_other_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # Reshaped without having been transposed: the right shape, the tokens of other rows.
    wrong = lambda x_BLD: x_BLD.reshape(x_BLD.shape[1], x_BLD.shape[0], x_BLD.shape[2])  # noqa: E731
    monkeypatch.setitem(pytorch.LAYOUTS, "transposed, reshaped", wrong)
    for kind in pytorch.LAYERS:
        assert not pytorch.build_layout(cell(kind, "transposed, reshaped", 3)).check().passed


@pytest.mark.parametrize("compiled", [True, False])
def test_the_inlined_code_equals_the_layer_to_the_last_bit(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = LAYER.model_copy(update={"compiled": compiled})
    setting = attention_setting(asked)
    expected_BLD = setting.layer()(setting.hidden_states(), mask=setting.mask)
    assert mx.array_equal(pytorch.build_inlined(asked).call(), expected_BLD)
    found = pytorch.build_inlined(asked).check()
    assert (found.passed, found.max_error, found.tolerance) == (True, 0.0, 0.0)
    right = pytorch.inlined_layer
    wrong = lambda *sizes: lambda *arrays: right(*sizes)(*arrays) * (1 + 2.0**-20)  # noqa: E731
    monkeypatch.setattr(pytorch, "inlined_layer", wrong)
    assert not pytorch.build_inlined(asked).check().passed, "the smallest difference is found"


LAYOUT = {"detail": "linear: transposed view"}


@pytest.mark.parametrize(
    ("builder", "change", "message"),
    [
        ("hand_inlined", {"attention": series_named("mha_manual").attention}, "written out by hand"),
        ("hand_inlined", {"mode": "forward_backward"}, "modes"),
        ("hand_inlined", {"causal": True}, "causal"),
        ("hand_inlined", {"detail": "positions=rotary"}, "detail"),
        ("layouts", {**LAYOUT, "mode": "forward_backward"}, "modes"),
        ("layouts", {**LAYOUT, "causal": True}, "causal"),
        *(("layouts", {"detail": each}, "detail") for each in ("", "linear", "linear: no", "no: transposed view")),
    ],
)
def test_what_a_builder_does_not_build_is_refused(builder: str, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pytorch.BUILDERS[builder](LAYER.model_copy(update=change))


def test_the_kernel_matches_the_reference_or_says_that_there_is_no_metal() -> None:
    if mx.metal.is_available():
        workload = grid48.build(KERNEL)
        assert workload.check().passed
        assert workload.work.attention_path is None
    else:
        with pytest.raises(UserError, match="needs a device with Metal"):
            grid48.build(KERNEL)
        # Nothing stands in for a kernel that cannot run.
        with pytest.raises(RuntimeError, match="Metal"):
            mx.eval(grid48.attention_kernel(32)(*mx.zeros((3, 1, 1, 4, 32))))
