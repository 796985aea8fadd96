"""The suites about whole models and long texts, transfer, decode and long, and what the project claims of its parts."""

from collections.abc import Callable

import pytest

from eval.bench import Group
from eval.rows import Cell, Memory, Row
from eval.suites import SuiteRequest, decode, long, targets, transfer
from tests.eval.rows_factory import group_rows, planned
from zoo.attention.catalog import attention_names, variant

NUM_LAYERS = 4
MET = {"swa_masked": 0.06, "swa": 0.01, "linear": 0.012, targets.BIDIRECTIONAL: 0.010}
PEAKS = {("swa", 1024): 100, ("swa", 2048): 210, ("mha_tiled", 4096): 14, ("mha_manual", 4096): 100}


def weighed_rows(suite: str, seconds: Callable[[Cell], float], memory: Callable[[Cell], Memory | None]) -> list[Row]:
    rows = [row for group in planned(suite) for row in group_rows(group, seconds, noise=1e-4)]
    return [row.model_copy(update={"memory": memory(row.cell)}) for row in rows]


def left_out(groups: list[Group]) -> set[tuple[str, str]]:
    return {(cell.group, cell.variant) for group in groups for cell in group.cells if cell.identity in group.skipped}


def test_transfer_measures_an_op_at_the_shape_of_its_model() -> None:
    groups = {group.cells[0].group: group for group in planned("transfer")}
    op, layer = groups["op forward llama_tiny L=512"].cells[0], groups["layer forward llama_tiny L=512"].cells[0]
    model = groups["model step gpt_tiny L=256"].cells[0]
    assert (op.num_heads, op.num_kv_heads, op.head_dim, op.causal) == (4, 2, 32, True)
    assert layer.detail == "positions=rotary"
    assert (model.builder, model.model, model.num_kv_heads) == ("model", "gpt_tiny", 4)
    assert {name.split(" ")[0] for name in groups} == {"op", "layer", "model"}
    assert all(group.baseline.variant == "mha_manual" for group in groups.values())


def test_amdahl_s_prediction_is_exact_where_only_the_op_differs_and_none_where_it_is_slower_than_its_model() -> None:
    def predicted(rest: float) -> list[dict]:
        def seconds(cell: Cell) -> float:
            op = {"mha_manual": 0.010, "swa": 0.002, "linear": 0.004}.get(cell.variant, 0.008)
            return op if cell.level == "op" else op + 0.001 if cell.level == "layer" else NUM_LAYERS * op + rest

        figures = transfer.SUITE.summary(weighed_rows("transfer", seconds, lambda cell: None))
        return [figure for figure in figures if "predicted" in figure]

    figures = predicted(rest=0.060)
    assert len(figures) == 2 * 3 * (len(transfer.VARIANTS) - 1)
    for figure in figures:
        assert figure["share"] == pytest.approx(0.4, rel=1e-3)
        assert figure["predicted"] == pytest.approx(figure["ratio"], rel=1e-3)
    swa = next(figure for figure in figures if figure["variant"] == "swa")
    assert swa["predicted"] == pytest.approx(0.6 + 0.4 * 0.2, rel=1e-3)
    assert predicted(rest=-0.001) == []


def test_every_variant_that_can_decode_is_decoded_and_caches_are_weighed_where_they_are_largest() -> None:
    groups = {group.cells[0].group: group for group in planned("decode")}
    caches = groups.pop("decode gpt_eight_heads B=1 L=512")
    layers = {name: [layer.capabilities for layer in variant(name).variants()] for name in attention_names()}
    able = [name for name, each in layers.items() if all(layer.decode and layer.causal for layer in each)]
    for group in groups.values():
        assert sorted(cell.variant for cell in group.cells) == sorted(able)
        assert group.baseline.variant == "mha"
    prefilled = {f"prefill gpt_tiny B=1 L={length}" for length in (128, 512)}
    decoded = {f"decode gpt_tiny B=1 L={length}" for length in (128, 512, 1024)}
    assert set(groups) == prefilled | decoded | {"decode gpt_tiny B=4 L=128"}
    assert [cell.variant for cell in caches.cells] == ["mha", "gqa(num_kv_heads=4)", "gqa(num_kv_heads=2)", "mqa"]
    assert {(cell.num_heads, cell.num_kv_heads) for cell in caches.cells} == {(8, 8)}
    assert [name for name, group in groups.items() if group.memory] == ["decode gpt_tiny B=1 L=1024"]
    assert caches.memory


def test_only_slow_forms_of_what_others_compute_are_left_out_of_the_longest_prefill() -> None:
    found = left_out(decode.SUITE.groups(SuiteRequest(lengths=(512, 1024))))
    assert {group for group, _ in found} == {"prefill gpt_tiny B=1 L=1024"}
    names = {name for _, name in found}

    def mechanisms(chosen: set[str]) -> set[str]:
        return {layer.mechanism for name in chosen for layer in variant(name).variants()}

    assert mechanisms(names) <= mechanisms(set(attention_names()) - names)


def test_decoding_reports_tokens_and_cache_bytes_at_the_longest_cache() -> None:
    def seconds(cell: Cell) -> float:
        return 1e-3 if cell.variant == "swa" else 2e-3

    rows = weighed_rows("decode", seconds, lambda cell: Memory(peak_bytes=9, cache_bytes=cell.length))
    figures = decode.SUITE.summary(rows)
    # The last group has caches of shared heads only.
    *fastest, _ = [figure["variant"] for figure in figures if figure["figure"] == "fastest"]
    assert fastest == ["swa"] * (len(planned("decode")) - 1)
    decoding = {figure["variant"]: figure for figure in figures if figure["figure"] == "decoding"}
    assert decoding["mha"]["cache_bytes"] == 1024
    assert decoding["swa"]["tokens_per_second"] == pytest.approx(1000, rel=0.02)


def test_long_texts_leave_a_cell_for_every_variant_length_and_mode_and_measure_all_that_a_user_names() -> None:
    groups = planned("long")
    points = {(cell.variant, cell.length, cell.mode) for group in groups for cell in group.cells}
    assert points == {(name, length, mode) for name in long.VARIANTS for length in long.LENGTHS for mode in long.MODES}
    dense = {("forward L=8192", name) for name in ("mha_manual", "swa_masked")}
    assert left_out(groups) == dense | {("forward_backward L=8192", name) for name in long.VARIANTS}
    asked = SuiteRequest(variants=("mha_manual",), lengths=(16384,))
    assert [group.skipped for group in long.SUITE.groups(asked)] == [{}, {}]


def test_exponents_of_time_and_memory_are_told_apart() -> None:
    rows = weighed_rows("long", lambda cell: 1e-9 * cell.length**2, lambda cell: Memory(peak_bytes=64 * cell.length))
    figures = [figure for figure in long.SUITE.summary(rows) if figure.get("mode") == "forward_backward"]
    found = {(figure["figure"], figure["variant"]): figure["value"] for figure in figures}
    assert found["exponent of time", "swa"] == pytest.approx(2, abs=0.01)
    assert found["exponent of peak memory", "swa"] == pytest.approx(1, abs=0.01)


def met(seconds: dict[str, float], peaks: dict[tuple[str, int], int], *, without: str = "") -> dict[str, bool]:
    """Whether each target is met."""

    def time(cell: Cell) -> float:
        return seconds.get(cell.variant.removesuffix(" (A/A)"), 0.01)

    def memory(cell: Cell) -> Memory | None:
        known = (cell.variant, cell.length) in peaks
        return Memory(peak_bytes=peaks[cell.variant, cell.length]) if known else None

    rows = [row for row in weighed_rows("targets", time, memory) if row.cell.group != without]
    return {figure["figure"]: figure["met"] for figure in targets.SUITE.summary(rows) if "met" in figure}


@pytest.mark.parametrize(
    ("seconds", "peaks", "missed"),
    [
        ({}, {}, []),
        ({"swa_masked": 0.039}, {}, ["time of a window by a mask over blocks"]),
        ({"linear": 0.0131}, {}, ["time of causal linear attention over bidirectional"]),
        ({}, {("swa", 2048): 231}, ["peak of a window at 2048 tokens over 1024"]),
        ({}, {("mha_tiled", 4096): 16}, ["peak of tiles over the written-out scores"]),
    ],
)
def test_a_ratio_on_the_wrong_side_misses_its_target_alone(seconds, peaks, missed: list[str]) -> None:
    assert met(MET | seconds, PEAKS | peaks) == {name: name not in missed for name in targets.TARGETS}


def test_what_was_not_measured_is_not_judged() -> None:
    assert met(MET, {}, without="window") == {"time of causal linear attention over bidirectional": True}
    *others, linear = planned("targets")
    assert [(cell.causal, cell.variant) for cell in linear.cells] == [(True, "linear"), (False, targets.BIDIRECTIONAL)]
    assert [group.memory for group in others] == [False, True, True, True]
