"""What each claim's verdict becomes in a world where it holds, and in one where it does not."""

import pytest

from tests.eval.claims import worlds
from tests.eval.claims.worlds import NO, OTHER, YES, finding_of, findings_of, like_for_like, on_metal
from tests.eval.rows_factory import altered

ELSEWHERE = "not measurable on this device"


# What compared two functions, or other software; like for like it holds.
COMPARED_TWO_FUNCTIONS = """
gather-slower gather-128 gather-256 gather-worse gather-heat-map blocksparse-1.9 blocksparse-p blocksparse-below
blocksparse-tie blocksparse-crossover blocksparse-no-cliff block-32-beats-64 linear-later gqa-20-percent
best-128 best-256 best-1024 causal-blocks-instead dense-tie flash-max-demo flash-mean-demo flash-consistent
flash-head-dim flash-length flash-memory wrapper-cpu wrapper-bits wrapper-fixed
"""
HOLD = """
linear-1.59 linear-below linear-approximates causal-linear-128 causal-linear-256 causal-linear-512
causal-linear-grows causal-linear-avoid mha-baseline gqa-memory mqa-slower-128 mqa-256 mqa-512 mqa-1024
window-128-over-64 feature-map flash-immediate mqa-cache none-dominates elbow-2.55 elbow finetune-practical
finetune-demo
"""
# The published table does not bear the first five out itself; the others contradict what holds in this world.
DO_NOT_HOLD = """
slope-mha slope-linear linear-crossover intervals elbow-l2 adaptive best-512 finetune-range throughput-tinyllama
throughput-qwen-practical
"""
ONLY_ON_APPLE = """
m4-times amx flash-poc flash-peak-demo flash-mean-baseline flash-time-baseline throughput-absolute wrapper-b1
wrapper-b4 wrapper-batch layouts layouts-reshape masked-optimal spread elbow-cache gather-cache mqa-broadcasting
throughput-absolute-qwen throughput-absolute-7b-baseline
"""
FALL_IN_ANOTHER_WORLD = """
gather-slower gather-128 gather-256 gather-worse gather-heat-map blocksparse-1.9 blocksparse-crossover
blocksparse-tie block-32-beats-64 linear-1.59 linear-crossover linear-later linear-approximates
causal-linear-128 causal-linear-256 causal-linear-512 causal-linear-grows causal-linear-avoid gqa-20-percent
gqa-memory mqa-slower-128 mqa-broadcasting mqa-1024 mqa-cache best-512 elbow-2.55 elbow slope-mha flash-max-demo
flash-mean-demo flash-consistent flash-head-dim flash-length flash-memory flash-efficiency-demo
flash-demo-over-practical flash-immediate causal-blocks-instead window-128-over-64 finetune-practical
finetune-demo wrapper-cpu wrapper-fixed
"""


@pytest.mark.parametrize(
    ("names", "verdict", "ours"),
    [
        (COMPARED_TWO_FUNCTIONS, OTHER, YES),
        (HOLD, YES, YES),
        (DO_NOT_HOLD, NO, NO),
        (ONLY_ON_APPLE, ELSEWHERE, ELSEWHERE),
    ],
)
def test_rows_as_published_give_each_claim_its_verdict_and_our_figure_beside(names, verdict, ours):
    found = {name: worlds.published_findings()[name] for name in names.split()}
    wrong = [each for each in found.values() if (each.verdict, like_for_like(each)) != (verdict, ours) or not each.ours]
    assert not wrong


def test_the_figures_are_those_of_the_rows():
    published = worlds.published_findings()
    assert published["gather-128"].value == pytest.approx(7.08 / 1.24, rel=0.01)
    assert published["slope-mha"].value == pytest.approx(0.65, abs=0.01)
    assert published["elbow-2.55"].value == pytest.approx(4.38 / 1.72, rel=0.01)
    assert published["linear-crossover"].value == pytest.approx(608, rel=0.02)
    assert published["mqa-cache"].value == 0.875
    assert published["flash-max-demo"].value == pytest.approx(2.77, rel=0.01)
    assert "the published table's own lines cross at 609" in published["linear-crossover"].reason


def flat(cell):
    """Masking, gathering and blocks cost nothing: all as linear, which wins, and causality is free."""
    kind = cell.attention_mapping["mechanism"]
    return 1e-6 * cell.length ** (2.0 if kind == "softmax" else 1.0) / (100 if kind == "softmax" else 1)


def test_in_another_world_the_same_claims_fall():
    names = FALL_IN_ANOTHER_WORLD.split()
    rows = [
        *worlds.attnbench_rows(flat),
        *worlds.grid_rows(lambda cell: 1e-3, utilisation=0.3, batch_sizes=(1, 2)),
        *worlds.wrapper_rows(lambda cell: 1.5e-3 if cell.variant == "mha" else 1e-3),
        *worlds.step_rows(1.0, blocks=2.0),
        *worlds.decode_rows({8: 8000, 4: 8000, 2: 8000, 1: 8000}),
        *worlds.memory_rows({"mha_manual": 2000, "mha": 1000}),
        *worlds.quality_rows({"mha": (2.0, 2.1), "linear": (2.02, 2.08)}),
    ]
    assert {name: like_for_like(each) for name, each in findings_of(rows, *names).items()} == dict.fromkeys(names, NO)


def test_a_slope_that_is_the_published_one_is_reproduced():
    finding = finding_of(worlds.attnbench_rows(lambda cell: 1e-6 * cell.length**1.73), "slope-mha")
    assert finding.verdict == YES
    assert finding.low <= 1.73 <= finding.high


def test_a_faster_true_window_ends_the_masked_ones_reign():
    def chunked_is_fast(cell):
        fast = cell.attention_mapping["implementation"] == "chunked" and cell.attention_mapping["mechanism"] != "linear"
        return worlds.as_published(cell) / (4 if fast and cell.length >= 512 else 1)

    rows = worlds.attnbench_rows(chunked_is_fast)
    finding = finding_of(on_metal(rows), "masked-optimal")
    assert finding.verdict == NO
    assert f"On this device: {NO}." in finding_of(rows, "masked-optimal").reason
    assert "chunked window (64) over masked window (64), N=512" in finding.reason
    assert finding.high < 1


def test_dense_variants_differ_marginally_only_if_gqa_does_too():
    def gqa_is_slow(cell):
        return 1e-3 * (1.5 if cell.attention_mapping.get("num_kv_heads") == 4 else 1.0)

    finding = finding_of(worlds.attnbench_rows(gqa_is_slow, lengths=(256, 512)), "dense-tie")
    assert like_for_like(finding) == NO


def test_another_winner_at_each_length_makes_choosing_pay():
    def turning(cell):
        fused = cell.attention_mapping["implementation"] == "fused"
        return worlds.as_published(cell) * (1.3 if fused == (cell.length < 500) else 1.0)

    assert finding_of(worlds.attnbench_rows(turning), "adaptive").verdict == YES


def test_one_cell_that_scatters_breaks_the_claim_about_spread():
    row, *rows = worlds.published_attnbench()
    finding = finding_of(on_metal([altered(row, "timing", coefficient_of_variation=0.3), *rows]), "spread")
    assert (finding.verdict, finding.value) == (NO, 0.3)


def test_on_apples_gpu_its_claims_are_judged():
    def overhead(cell):
        return 1e-3 * ({1: 8.6, 4: 1.3}[cell.batch_size] if cell.variant == "mha" else 1)

    other = ("wrapper-b1", "wrapper-b4", "wrapper-batch", "layouts", "layouts-reshape")
    expected = {
        **dict.fromkeys(other, (OTHER, YES)),
        **dict.fromkeys(("m4-times", "masked-optimal", "spread"), (YES, YES)),
        "flash-peak-demo": (OTHER, NO),
        "wrapper-cpu": (ELSEWHERE, ELSEWHERE),
    }
    rows = [
        *worlds.wrapper_rows(overhead),
        *worlds.layout_rows(worlds.LAYOUTS),
        *worlds.published_attnbench(),
        *worlds.grid_rows(batch_sizes=(1,)),
    ]
    found = findings_of(on_metal(rows), *expected)
    assert {name: (each.verdict, like_for_like(each)) for name, each in found.items()} == expected


def test_a_kernel_that_runs_is_judged_and_one_that_fails_is_a_gap():
    runs = finding_of(worlds.grid_rows(lambda cell: 1e-3, kernel=True, batch_sizes=(1,)), "flash-poc")
    missing = worlds.grid_rows(batch_sizes=(1,))
    crashed = [row.model_copy(update={"status": "crashed"}) if row.status == "unavailable" else row for row in missing]
    fails = finding_of(crashed, "flash-poc")
    assert (runs.verdict, like_for_like(runs)) == (OTHER, YES)
    assert fails.verdict == "not measured"
    assert fails.reason == "no times of metal_kernel_poc (suite=grid48, mode=forward): crashed, there is no Metal here"
