"""Cells that would not fit, or cannot be, are refused with the reason before anything is built at their own size."""

import re
from typing import Any

import mlx.core as mx
import pytest

from eval.rows import Cell
from eval.workloads import registry
from eval.workloads.registry import fit, inability, predicted, refusal
from tests.eval.checks import faults
from tests.eval.workloads import settings
from zoo.attention.catalog import attention_names, variant

ROOMY = 10**15
# Bytes of a float32 score.
SCORE = 4


def _cell(level: str, name: str, **changes: Any) -> Cell:
    small = {"length": 4096, "batch_size": 1, "num_heads": 1, "hidden_size": None}
    return settings.cell(level, name, **{**small, **changes})


def predicted_bytes(name: str, **changes: Any) -> int:
    return predicted(_cell("op", name, **changes))[0]


def peak_bytes(cell: Cell, *, calls: int) -> int:
    """Of a cell built and called here."""
    before = mx.get_active_memory()
    workload = registry.BUILDERS[cell.level](cell)
    mx.reset_peak_memory()
    for _ in range(calls):
        mx.eval(workload.call())
    return mx.get_peak_memory() - before


def test_dense_memory_is_predicted_from_short_lengths_and_linear_memory_far_below() -> None:
    for name in ("mha_manual", "swa_masked"):
        # One score matrix and, at a head_dim of 10, little beside it; a compiler may need a second one.
        assert 0.9 < predicted_bytes(name) / (4096**2 * SCORE) < 2.6
    # Not as a line: on a busy machine the peaks that are continued differ a little from call to call.
    assert predicted_bytes("linear", length=16384) < predicted_bytes("mha_manual", length=16384) / 5
    assert predicted_bytes("swa") < predicted_bytes("swa_masked") / 5


def test_the_prediction_holds_at_a_length_that_was_not_measured() -> None:
    asked = _cell("op", "mha_manual", length=1024, mode="forward_backward", num_heads=2)
    assert 0.8 < predicted(asked)[0] / peak_bytes(asked, calls=5) < 1.5


def test_rows_of_a_batch_count_alike_and_what_is_paid_once_is_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    held = lambda cell: (1000 + 10 * cell.length + cell.length**2, 5 + 2 * cell.length)  # noqa: E731
    monkeypatch.setattr(registry, "_probe", held)
    assert predicted(_cell("op", "mha", batch_size=3, length=20)) == (1000 + 3 * (10 * 20 + 20**2), 45)


def test_the_fit_finds_the_polynomial_and_continues_what_bends_downwards_as_a_line() -> None:
    lengths = (128, 256, 512)
    for powers in ((700, 30, 2), (700, 30, 0), (0, 0, 3), (50, 0, 0)):
        found = fit(lengths, [powers[0] + powers[1] * length + powers[2] * length**2 for length in lengths])
        assert found == pytest.approx(powers, abs=1e-2)
    slope = 500 / 256
    assert fit(lengths, [1000, 2000, 2500]) == pytest.approx((2500 - 512 * slope, slope, 0))


def test_what_does_not_fit_is_refused_with_the_figures() -> None:
    asked = _cell("op", "mha_manual")
    needed = predicted(asked)[0]
    # 80 % of what is available may be used.
    assert refusal(asked, int(needed / 0.79)) is None
    reason = refusal(asked, int(needed / 0.81))
    assert reason is not None
    figures = r"does not fit: \d\.\d GB predicted from lengths up to 512, more than 80% of the \d\.\d GB available"
    assert re.fullmatch(figures, reason)
    assert refusal(_cell("op", "linear"), int(needed / 0.81)) is None


def test_what_fits_whatever_it_does_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "predicted", lambda cell: pytest.fail(f"{cell}"))
    for length, available in ((512, ROOMY), (16, 10**9)):
        assert refusal(_cell("op", "mha_manual", length=length), available) is None


def test_the_bound_that_saves_the_measurement_is_above_every_variant() -> None:
    for name in ("mha_manual", "swa_gather_index", "swa_gather_slices", "linear_cumsum", "gated_delta_reference"):
        asked = settings.cell("op", name, mode="forward_backward", length=64, batch_size=1)
        assert peak_bytes(asked, calls=1) < registry._most_bytes(asked), name
        mx.clear_cache()


def test_a_graph_grows_with_the_length_and_is_refused_at_an_absurd_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _cell("op", "swa_gather_slices", length=640)
    assert predicted(asked)[1] == registry.BUILDERS["op"](asked).work.graph_nodes
    absurd = "takes absurdly long: a graph of 409,600 operations predicted, more than 300,000"
    for nodes, reason in ((409_600, absurd), (40_960, None)):
        monkeypatch.setattr(registry, "predicted", lambda cell, nodes=nodes: (0, nodes))
        assert refusal(_cell("op", "swa_gather_slices"), 10**9) == reason


def test_cells_that_differ_in_name_only_are_measured_once() -> None:
    registry._probe.cache_clear()
    for changes in ({}, {"group": "other"}, {"role": "baseline"}, {"variant": "alias"}, {"length": 2048}, {"seed": 3}):
        predicted(_cell("op", "linear").model_copy(update=changes))
    assert registry._probe.cache_info().misses == len(registry.PROBE_LENGTHS)
    predicted_bytes("linear", mode="forward_backward")
    assert registry._probe.cache_info().misses == 2 * len(registry.PROBE_LENGTHS)


@pytest.mark.parametrize("name", attention_names())
@pytest.mark.parametrize("level", ["op", "layer", "model"])
def test_every_variant_is_built_or_refused_by_what_it_declares(level: str, name: str) -> None:
    for causal in (True, False):
        model = ("gpt_tiny" if causal else "bert_tiny") if level == "model" else None
        each = variant(name).variants()
        able = all(one.capabilities.causal if causal else one.capabilities.bidirectional for one in each)
        single = level == "model" or not settings.is_hybrid(name)
        reason = inability(settings.cell(level, name, causal=causal, model=model))
        assert (reason is None) == (able and single), reason
        assert single or "hybrid" in str(reason)


def test_a_cell_that_contradicts_its_model_is_refused_and_the_device_never() -> None:
    reason = refusal(settings.cell("model", "mha", model="bert_tiny"), ROOMY)
    assert reason == "causal must be False in a bert model; got True"
    assert refusal(settings.cell("layer", "gated_delta", num_kv_heads=2, causal=False), ROOMY) is not None
    assert refusal(settings.cell("device", "mha", mode="copy"), 1) is None


def test_a_fault_that_is_no_refusal_is_left_for_its_own_process_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.register(monkeypatch)
    registry._probe.cache_clear()
    # Keys of shared heads do not broadcast at short lengths.
    asked = _cell("op", "padded_keys", attention=faults.mapping("padded_keys"), num_heads=4, num_kv_heads=2)
    with pytest.raises(ValueError, match="broadcast"):
        predicted(asked)
    assert refusal(asked, 1) is None
    registry._probe.cache_clear()

    def breaks(_: Cell) -> None:
        raise ValueError("a mechanism of another package")

    monkeypatch.setitem(registry._SETTINGS, "op", breaks)
    assert refusal(_cell("op", "mha"), 1) is None
