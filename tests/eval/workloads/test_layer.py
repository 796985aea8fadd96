"""Layers of every variant: built, right, and with the work that they are worth."""

import mlx.core as mx
import pytest

from eval.workloads import arrays_of
from eval.workloads.layer import layer_setting
from eval.workloads.registry import BUILDERS
from tests.eval.workloads.settings import BATCH_SIZE, DIRECTED, LENGTH, called, cell, directed_id
from zoo.config import UserError


@pytest.mark.parametrize(("name", "causal"), DIRECTED, ids=directed_id)
def test_every_variant_passes_the_gate(name: str, causal: bool) -> None:
    workload = BUILDERS["layer"](cell("layer", name, mode="forward_backward", causal=causal))
    y_BLD, gradients = called(workload)
    assert y_BLD.shape == gradients[0].shape == (BATCH_SIZE, LENGTH, 34)
    verdict = workload.check()
    assert verdict.passed, verdict.checks
    assert workload.work.useful_flops > 0


@pytest.mark.parametrize("compiled", [False, True])
def test_a_forward_call_is_the_layers_own(compiled: bool) -> None:
    asked = cell("layer", "swa", compiled=compiled, detail="positions=rotary")
    workload, setting = BUILDERS["layer"](asked), layer_setting(asked)
    expected = setting.layer()(setting.hidden_states(), mask=setting.mask)
    assert mx.allclose(called(workload), expected, atol=1e-5).item()
    assert workload.check().passed


def test_gradients_reach_x_and_every_parameter() -> None:
    asked = cell("layer", "gqa", mode="forward_backward")
    _, gradients = called(BUILDERS["layer"](asked))
    setting = layer_setting(asked)
    shapes = [array.shape for array in (setting.hidden_states(), *arrays_of(setting.layer().parameters()))]
    assert [gradient.shape for gradient in gradients] == shapes
    assert len(shapes) == 5


def test_positions_come_from_the_detail_and_change_the_outputs() -> None:
    plain, rotary = (BUILDERS["layer"](cell("layer", "mha", detail=detail)) for detail in ("", "positions=rotary"))
    assert not mx.allclose(called(plain), called(rotary), atol=1e-3).item()
    with pytest.raises(UserError, match="detail must be empty or positions=KIND"):
        BUILDERS["layer"](cell("layer", "mha", detail="layout=strided"))
