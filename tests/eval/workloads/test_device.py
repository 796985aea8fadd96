"""The device's own limits: small in the tests, right, and refused in other modes."""

import mlx.core as mx
import pytest

from eval.rows import Cell
from eval.workloads.registry import BUILDERS, device
from zoo.config import UserError


def _cell(mode: str, *, compiled: bool = False) -> Cell:
    fields = {"suite": "device", "group": "device", "builder": "device", "variant": mode, "level": "device"}
    return Cell.model_validate({**fields, "mode": mode, "length": 1, "compiled": compiled})


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "MATMUL_SIDE", 72)
    monkeypatch.setattr(device, "COPY_BYTES", 4096)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mode", device.MODES)
def test_every_mode_passes_its_check(mode: str, compiled: bool) -> None:
    workload = BUILDERS["device"](_cell(mode, compiled=compiled))
    assert workload.check().passed
    assert workload.work.graph_nodes == 1


def test_a_matrix_product_says_its_operations_and_a_copy_its_traffic() -> None:
    assert BUILDERS["device"](_cell("matmul")).work.useful_flops == 2 * 72**3
    copy = BUILDERS["device"](_cell("copy"))
    assert copy.analytic_bytes == 2 * 4096
    assert copy.call().nbytes == 4096


def test_a_wrong_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = BUILDERS["device"](_cell("matmul"))
    right = workload.call()
    monkeypatch.setattr(device, "_chosen", lambda function, arguments, cell: lambda: mx.where(right > 20, 0, right))
    assert not BUILDERS["device"](_cell("matmul")).check().passed


def test_a_device_has_no_forward_pass() -> None:
    with pytest.raises(UserError, match="modes must suit a device"):
        BUILDERS["device"](_cell("forward"))
