"""The device's own limits: small in the tests, and right."""

import mlx.core as mx
import pytest

from eval.bench import Workload
from eval.workloads.registry import BUILDERS, device
from tests.eval.workloads.settings import cell


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "MATMUL_SIDE", 72)
    monkeypatch.setattr(device, "COPY_BYTES", 4096)


def _built(mode: str, *, compiled: bool = True) -> Workload:
    return BUILDERS["device"](cell("device", "mha", mode=mode, compiled=compiled))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("mode", "flops", "moved"), [("null", None, None), ("matmul", 2 * 72**3, 3 * 72 * 72 * 4), ("copy", None, 8192)]
)
def test_every_mode_passes_its_check_and_says_its_work(
    mode: str, flops: int | None, moved: int | None, compiled: bool
) -> None:
    workload = _built(mode, compiled=compiled)
    assert workload.check().passed
    work = workload.work
    assert (work.graph_nodes, work.tokens) == (1, None)
    assert (work.useful_flops, workload.analytic_bytes) == (flops, moved)


@pytest.mark.parametrize("mode", device.MODES)
def test_a_wrong_result_is_seen(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    compile_ = mx.compile
    monkeypatch.setattr(mx, "compile", lambda function: compile_(lambda *arrays: mx.minimum(function(*arrays), 1.5)))
    assert not _built(mode).check().passed
