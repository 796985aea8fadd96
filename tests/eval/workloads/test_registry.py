"""Cells that would not fit, or cannot be, are refused with the reason before anything is built at their own size."""

import dataclasses
import re
from typing import Any

import mlx.core as mx
import pytest

from eval.rows import Cell
from eval.workloads import registry
from eval.workloads.registry import Footprint, fit, footprint, inability, refusal
from tests.eval.checks import faults
from tests.eval.workloads import settings
from zoo.attention.catalog import attention_names, variant

ROOMY = 10**15
# Bytes of a float32 score.
SCORE = 4


def _cell(level: str, name: str, **changes: Any) -> Cell:
    return settings.cell(
        level, name, **{"length": 4096, "batch_size": 1, "num_heads": 1, "hidden_size": None, **changes}
    )


def predicted_bytes(cell: Cell) -> int:
    return footprint(cell).peak_bytes(cell.batch_size, cell.length)


@pytest.mark.parametrize("name", ["mha_manual", "swa_masked"])
def test_dense_memory_is_predicted_from_short_lengths(name: str) -> None:
    predicted = predicted_bytes(_cell("op", name))
    # One score matrix and, at a head_dim of 10, little beside it; a compiler may need a second one.
    assert 0.9 < predicted / (4096**2 * SCORE) < 2.6


def test_memory_that_is_linear_is_predicted_far_below_dense_memory() -> None:
    # Not as a line: on a busy machine the peaks that are continued differ a little from call to call.
    linear, dense = (predicted_bytes(_cell("op", name, length=16384)) for name in ("linear", "mha_manual"))
    assert linear < dense / 5
    assert predicted_bytes(_cell("op", "swa")) < predicted_bytes(_cell("op", "swa_masked")) / 5


def test_the_prediction_holds_at_a_length_that_was_not_measured() -> None:
    asked = _cell("op", "mha_manual", length=1024, mode="forward_backward", num_heads=2)
    predicted = predicted_bytes(asked)
    before = mx.get_active_memory()
    workload = registry.BUILDERS["op"](asked)
    mx.reset_peak_memory()
    for _ in range(5):
        mx.eval(workload.call())
    assert 0.8 < predicted / (mx.get_peak_memory() - before) < 1.5


def test_rows_of_a_batch_count_alike_and_weights_once() -> None:
    one, three = (predicted_bytes(_cell("op", "mha_manual", batch_size=count)) for count in (1, 3))
    # The peak of a busy machine differs a little from call to call.
    assert three == pytest.approx(3 * one, rel=0.15)
    held = Footprint(bytes_by_power=(1000.0, 10.0, 1.0), nodes_by_power=(5.0, 2.0))
    assert held.peak_bytes(3, 20) == 1000 + 3 * (10 * 20 + 20**2)
    assert held.graph_nodes(20) == 45


@pytest.mark.parametrize(
    ("powers", "expected"),
    [((700, 30, 2), (700, 30, 2)), ((700, 30, 0), (700, 30, 0)), ((0, 0, 3), (0, 0, 3)), ((50, 0, 0), (50, 0, 0))],
)
def test_the_fit_finds_the_polynomial(powers: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    lengths = (128, 256, 512)
    found = fit(lengths, [powers[0] + powers[1] * length + powers[2] * length**2 for length in lengths])
    assert found == pytest.approx(expected, abs=1e-2)


def test_what_bends_downwards_is_continued_as_a_line() -> None:
    constant, linear, quadratic = fit((128, 256, 512), [1000, 2000, 2500])
    assert quadratic == 0
    assert constant + linear * 512 == pytest.approx(2500)
    assert linear == pytest.approx(500 / 256)


def test_what_does_not_fit_is_refused_with_the_figures() -> None:
    asked = _cell("op", "mha_manual")
    needed = predicted_bytes(asked)
    # 80 % of what is available may be used.
    assert refusal(asked, int(needed / 0.79)) is None
    reason = refusal(asked, int(needed / 0.81))
    assert reason is not None
    figures = r"does not fit: \d\.\d GB predicted from lengths up to 512, more than 80% of the \d\.\d GB available"
    assert re.fullmatch(figures, reason)
    assert refusal(asked.model_copy(update={"attention": _cell("op", "linear").attention}), int(needed / 0.81)) is None


def test_what_fits_whatever_it_does_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(cell: Cell) -> Footprint:
        raise AssertionError(cell)

    monkeypatch.setattr(registry, "footprint", fails)
    assert refusal(_cell("op", "mha_manual", length=512), ROOMY) is None
    assert refusal(_cell("op", "mha_manual", length=16, causal=True), 10**9) is None


def test_the_bound_that_saves_the_measurement_is_above_every_variant() -> None:
    for name in ("mha_manual", "swa_gather_index", "swa_gather_slices", "linear_cumsum", "gated_delta_reference"):
        asked = settings.cell("op", name, mode="forward_backward", length=64, batch_size=1)
        before = mx.get_active_memory()
        workload = registry.BUILDERS["op"](asked)
        mx.reset_peak_memory()
        mx.eval(workload.call())
        assert mx.get_peak_memory() - before < registry._most_bytes(asked), name
        del workload
        mx.clear_cache()


def test_a_graph_of_absurd_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Footprint(bytes_by_power=(0.0, 0.0, 0.0), nodes_by_power=(0.0, 100.0))
    monkeypatch.setattr(registry, "footprint", lambda cell: held)
    reason = refusal(_cell("op", "swa_gather_slices"), 10**9)
    assert reason == "takes absurdly long: a graph of 409,600 operations predicted, more than 300,000"
    shorter = dataclasses.replace(held, nodes_by_power=(0.0, 10.0))
    monkeypatch.setattr(registry, "footprint", lambda cell: shorter)
    assert refusal(_cell("op", "swa_gather_slices"), 10**9) is None


def test_the_graph_of_slices_grows_with_the_length() -> None:
    asked = _cell("op", "swa_gather_slices", length=640)
    found = footprint(asked)
    exact = registry.BUILDERS["op"](asked).work.graph_nodes
    assert found.graph_nodes(640) == exact


def test_a_footprint_is_measured_once_for_cells_that_differ_in_name_only() -> None:
    registry._measured.cache_clear()
    for changes in ({}, {"group": "other"}, {"role": "baseline"}, {"variant": "alias"}, {"length": 2048}, {"seed": 3}):
        predicted_bytes(_cell("op", "linear").model_copy(update=changes))
    assert registry._measured.cache_info().misses == 1
    predicted_bytes(_cell("op", "linear", mode="forward_backward"))
    assert registry._measured.cache_info().misses == 2


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
        if not single:
            assert reason is not None
            assert "hybrid" in reason


def test_a_cell_that_contradicts_its_model_is_refused() -> None:
    reason = refusal(settings.cell("model", "mha", model="bert_tiny"), ROOMY)
    assert reason == "causal must be False in a bert model; got True"
    shared = refusal(settings.cell("layer", "gated_delta", num_kv_heads=2, causal=False), ROOMY)
    assert shared is not None


def test_a_fault_that_is_no_refusal_is_left_for_its_own_process_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.register(monkeypatch)
    registry._measured.cache_clear()
    # Keys of shared heads do not broadcast at short lengths.
    asked = _cell("op", "padded_keys", attention=faults.mapping("padded_keys"), num_heads=4, num_kv_heads=2)
    with pytest.raises(ValueError, match="broadcast"):
        predicted_bytes(asked)
    assert refusal(asked, 1) is None
    registry._measured.cache_clear()

    def breaks(_: Cell) -> None:
        raise ValueError("a mechanism of another package")

    monkeypatch.setitem(registry._SETTINGS, "op", breaks)
    assert refusal(_cell("op", "mha"), 1) is None


def test_the_device_itself_is_never_refused() -> None:
    fields = {"suite": "device", "group": "device", "builder": "device", "variant": "copy", "level": "device"}
    assert refusal(Cell.model_validate({**fields, "mode": "copy", "length": 1}), 1) is None
