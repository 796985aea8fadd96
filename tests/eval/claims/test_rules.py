"""Rules of a kind: which rows they take, what an interval leaves open, and what they say."""

import json
import math

import pytest

from tests.eval.claims.worlds import (
    NO,
    YES,
    as_published,
    attnbench_rows,
    decode_rows,
    findings_of,
    grid_rows,
    like_for_like,
    on_metal,
    published_findings,
    quality_rows,
    step_rows,
    wrapper_rows,
)
from tests.eval.rows_factory import altered, altered_where, attention, quality_row


def test_the_speed_of_a_model_says_nothing_of_a_larger_ones():
    names = ("throughput-absolute", "throughput-absolute-qwen", "throughput-absolute-7b")
    findings = findings_of(on_metal(step_rows(0.6)), *names)
    for name in names:
        assert findings[name].verdict == "not measured", name
        assert "llama_tiny" in findings[name].ours


def test_a_difference_between_equal_ones_shows_in_the_controls():
    rows = grid_rows(batch_sizes=(1,))
    for index, row in enumerate(rows):
        if row.cell.role == "control":
            slower = [1.05 * seconds for seconds in row.timing.samples_seconds]
            rows[index] = altered(row, "timing", samples_seconds=slower)
    assert like_for_like(findings_of(rows, "flash-demo-over-practical")["flash-demo-over-practical"]) == YES
    assert like_for_like(published_findings()["flash-demo-over-practical"]) == NO


def test_dense_variants_differ_marginally_only_if_gqa_does_too():
    def gqa_is_slow(cell):
        return 1e-3 * (1.5 if cell.attention_mapping.get("num_kv_heads") == 4 else 1.0)

    finding = findings_of(attnbench_rows(gqa_is_slow, lengths=(256, 512)), "dense-tie")["dense-tie"]
    assert like_for_like(finding) == NO
    assert like_for_like(published_findings()["dense-tie"]) == YES


BEST = ("best-128", "best-512", "best-1024")


def kind_of(cell):
    mapping = cell.attention_mapping
    return mapping["mechanism"], mapping["implementation"], mapping.get("num_kv_heads")


def test_a_tie_with_the_fastest_reproduces_nothing_and_is_named():
    findings = findings_of(attnbench_rows(lambda cell: 1e-3, lengths=(512,)), *BEST)
    finding = findings["best-512"]
    assert finding.verdict == NO
    tied = finding.reason.split("Undecided: ties with ")[1]
    assert "fused MHA" in tied
    assert "MQA" not in tied
    assert "Different functions are ranked, by design" in finding.reason


def test_a_lead_within_the_noise_is_no_win():
    def barely(cell):
        return 1e-3 * (0.998 if kind_of(cell) == ("softmax", "fused", 1) else 1.0)

    finding = findings_of(attnbench_rows(barely, lengths=(512,)), "best-512")["best-512"]
    assert finding.verdict == NO
    assert finding.ours.startswith("N=512: MQA (tied: ")


def test_the_claimed_one_that_alone_is_fastest_is_reproduced():
    def winners(cell):
        wins = {128: ("softmax", "fused", 4), 512: ("softmax", "fused", 1)}.get(cell.length)
        return as_published(cell) * (0.5 if kind_of(cell) == wins else 1)

    findings = findings_of(attnbench_rows(winners, lengths=(128, 512, 1024)), *BEST)
    assert [like_for_like(findings[name]) for name in BEST] == [YES, YES, YES]
    assert "Undecided" not in findings["best-512"].reason


def test_fused_attention_competes():
    def fused_wins(cell):
        return as_published(cell) / (10 if kind_of(cell) == ("softmax", "fused", None) else 1)

    findings = findings_of(attnbench_rows(fused_wins, lengths=(512,)), *BEST)
    assert findings["best-512"].verdict == NO
    assert findings["best-512"].ours == "N=512: fused MHA, of 12 mechanisms and settings"


@pytest.mark.parametrize(("factor", "winner"), [(1e-3, "causal linear (cumsum)"), (1.0, "block-sparse (32)")])
def test_causal_linear_competes_by_its_ratio_in_rounds_of_its_own(factor, winner):
    def causal(cell):
        # Whatever slows all of a group leaves the ratios in it alone.
        slow = 1e-2 if cell.group.startswith("causal") else 1.0
        return as_published(cell) * slow * (factor if kind_of(cell)[1] == "cumsum" else 1.0)

    finding = findings_of(attnbench_rows(causal, lengths=(1024,)), "best-1024")["best-1024"]
    assert finding.ours == f"N=1024: {winner}, of 12 mechanisms and settings"


def look(name, *, difference=1e-6, layers=(0, 1), text="import os", data="stdlib"):
    damage = {"largest_logit_difference": difference, "kl_nats_per_token": difference}
    surgery = {"layers": list(layers), "num_layers": 2, "damage": damage, "greedy": {"text": text}}
    fields = {"task": "surgery", "metric": "kl_nats_per_token", "model": "smollm", "data": data, "budget": "checkpoint"}
    return quality_row(name, 0, difference, **fields, surgery=json.dumps(surgery), attention=attention(name))


def exchanged(*rows):
    return findings_of(rows, "drop-in")["drop-in"]


def test_exact_exchanges_of_every_layer_reproduce_it_and_what_computes_something_else_does_not_count():
    rows = [look("mha_tiled"), look("mha_manual", difference=3e-5), look("swa", difference=2.0, text="other")]
    found = exchanged(*rows)
    assert (found.verdict, found.value) == ("reproduced", 3e-5)
    assert set(found.evidence) == {row.identity for row in rows[:2]}
    assert "greedy texts equal" in found.ours


@pytest.mark.parametrize("fault", [{"difference": 2e-4}, {"layers": (1,)}, {"text": "import sys"}])
def test_a_moved_logit_a_layer_left_out_or_another_text_refutes_it(fault):
    assert exchanged(look("mha_tiled"), look("mha_manual", **fault)).verdict == "not reproduced"


def test_texts_after_other_prompts_need_not_be_equal():
    rows = [look("mha_tiled"), look("mha_manual", text="What does it do?", data="examples")]
    assert exchanged(*rows).verdict == "reproduced"


def test_a_swap_is_never_said_to_be_reproduced_without_rows_of_one():
    assert exchanged().verdict == "not measured"
    assert "no row is of a model whose attention was exchanged" in exchanged().reason


def is_inlined(row):
    return row.cell.variant == "mha_hand_inlined"


def of_rounds(inlined, layer):
    return [altered(row, "timing", rounds_id=inlined if is_inlined(row) else layer) for row in wrapper_rows()]


@pytest.mark.parametrize("names", [("a", "b"), ("a", None), (None, "b")])
def test_rows_of_other_rounds_do_not_pair(names):
    assert findings_of(of_rounds(*names), "wrapper-fixed")["wrapper-fixed"].verdict == "not measured"


def test_rows_of_the_same_rounds_pair_whatever_the_code_they_were_stored_from():
    moved = altered_where(of_rounds("a", "a"), is_inlined, "machine", commit="fedcba")
    assert findings_of(moved, "wrapper-fixed")["wrapper-fixed"].verdict == "different functions compared"


FINETUNINGS = ("finetune-practical", "finetune-demo", "finetune-range", "throughput-tinyllama")


def finetuning(name, seed, tokens_per_second, **fields):
    asked = {"model": "smollm, examples, finetune", "steps": 100, "settings": '{"training": {"steps": 100}}', **fields}
    return quality_row(name, seed, 1.0, metric="val_bits_per_byte", tokens_per_second=tokens_per_second, **asked)


def finetunings(fused_over_unfused, *, seeds=3, **fields):
    """Speeds in which each seed's own texts make both slower alike."""
    speeds = [40.0, 50.0, 44.0][:seeds]
    rows = [finetuning("mha_manual", seed, speed) for seed, speed in enumerate(speeds)]
    factors = (0.999, 1.0, 1.001)
    return rows + [
        finetuning("mha", seed, speed * fused_over_unfused * factors[seed], implementation="native", **fields)
        for seed, speed in enumerate(speeds)
    ]


def test_they_are_paired_by_seed_and_count_before_training_steps():
    found = findings_of([*finetunings(1 / 0.8), *step_rows(0.99)], *FINETUNINGS)
    assert found["finetune-demo"].verdict == found["finetune-range"].verdict == "reproduced"
    assert found["finetune-practical"].verdict == found["throughput-tinyllama"].verdict == "not reproduced"
    assert found["finetune-demo"].value == pytest.approx(0.8)
    assert found["throughput-tinyllama"].value == pytest.approx(1.25)
    # Of seeds that differ by a quarter: apart, nothing could be told.
    assert found["finetune-demo"].high - found["finetune-demo"].low < 0.01
    assert (
        "smollm, examples, finetune (100 steps, 3 seeds, mha by native and mha_manual)" in found["finetune-demo"].ours
    )
    assert len(found["finetune-demo"].evidence) == 6


@pytest.mark.parametrize(
    "rows",
    [
        finetunings(1 / 0.8, seeds=1),
        finetunings(1 / 0.8, settings='{"training": {"steps": 99}}'),
        finetunings(1 / 0.8, model="smollm, examples, heal"),
        finetunings(1 / 0.8)[:3],
    ],
    ids=["one seed", "other settings", "another arm", "one implementation"],
)
def test_what_does_not_pair_leaves_it_to_training_steps(rows):
    found = findings_of([*rows, *step_rows(0.9)], "finetune-practical")["finetune-practical"]
    assert "llama_tiny" in found.ours
    assert found.verdict == "reproduced"


CACHES = ("mqa-cache", "gqa-memory")


def caches(**changes):
    rows = decode_rows({8: 8000, 4: 4000, 2: 2000, 1: 1000})
    return findings_of([altered(row, "cell", **changes) for row in rows], *CACHES)


def test_caches_as_small_as_published_are_reproduced_from_measured_bytes():
    findings = caches()
    assert [findings[name].verdict for name in CACHES] == [YES, YES]
    assert [findings[name].value for name in CACHES] == [0.875, 0.5]
    assert "(1,000 against 8,000 bytes)" in findings["mqa-cache"].ours


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, None), (4, 8), (8, 2)])
def test_a_model_of_other_heads_settles_nothing(num_heads, num_kv_heads):
    findings = caches(num_heads=num_heads, num_kv_heads=num_kv_heads)
    assert {finding.verdict for finding in findings.values()} == {"not measured"}


def test_caches_of_two_groups_are_not_compared():
    rows = decode_rows({8: 8000, 4: 4000, 2: 2000, 1: 1000})
    apart = [altered(row, "cell", group=row.cell.variant) for row in rows]
    assert {finding.verdict for finding in findings_of(apart, *CACHES).values()} == {"not measured"}


def test_an_interval_that_holds_1_is_said_to_decide_nothing():
    findings = findings_of(attnbench_rows(lambda cell: 1e-3, lengths=(128,)), "mqa-slower-128")
    assert findings["mqa-slower-128"].verdict == NO
    assert findings["mqa-slower-128"].reason.count("Undecided: an interval holds what is claimed, and what is not.") == 1
    assert "Undecided" not in published_findings()["mqa-slower-128"].reason


def test_what_is_far_from_the_published_figure_is_decided_even_if_it_is_about_1():
    findings = findings_of(attnbench_rows(lambda cell: 1e-3), "causal-linear-avoid", "mqa-1024", "blocksparse-tie")
    assert findings["causal-linear-avoid"].verdict == NO
    assert "Undecided" not in findings["causal-linear-avoid"].reason
    assert "Undecided" in findings["mqa-1024"].reason


def test_seeds_that_pair_tell_a_small_cost_and_recall_counts_as_quality():
    losses = quality_rows({"mha": (2.87816, 2.89976, 2.88214), "linear": (2.87968, 2.90087, 2.88345)})
    finding = findings_of(losses, "linear-approximates")["linear-approximates"]
    assert finding.verdict == YES
    assert finding.low > 0
    alike = quality_rows({"mha": (2.1, 2.2, 2.3), "linear": (2.11, 2.19, 2.3)})
    assert findings_of(alike, "linear-approximates")["linear-approximates"].verdict == NO
    recalled = {"mha": (0.99, 0.98, 0.99), "linear": (0.2, 0.21, 0.2)}
    forgetful = [
        quality_row(name, seed, value, task="mqar", metric="accuracy")
        for name, values in recalled.items()
        for seed, value in enumerate(values)
    ]
    assert findings_of([*alike, *forgetful], "linear-approximates")["linear-approximates"].verdict == YES


def test_outputs_that_differ_in_a_bit_are_not_bit_identical():
    """One cell of them, as its row is then: incorrect, and without times."""
    rows = wrapper_rows()
    index = next(index for index, row in enumerate(rows) if is_inlined(row))
    failed = altered(rows[index], "correctness", max_error=1e-9, passed=False)
    rows[index] = failed.model_copy(update={"status": "incorrect", "timing": None, "comparison": None})
    finding = findings_of(rows, "wrapper-bits")["wrapper-bits"]
    assert like_for_like(finding) == NO
    assert finding.value == 1e-9


def test_an_interval_that_reaches_beyond_a_tie_leaves_it_open_and_the_cell_is_named():
    """Ten percent is far from a tie; a wide interval around 1 is not."""
    for seconds, noise, is_open in ((1.3, 0.001, False), (1.0, 0.4, True)):
        rows = wrapper_rows()
        (layer,) = (
            row for row in rows if row.cell.variant == "mha" and row.cell.group.startswith("L=64 D=768 N=12 B=4 c")
        )
        inlined = next(row for row in rows if row.cell.group == layer.cell.group and row.cell.role == "baseline")
        samples = [
            seconds * base * math.exp(noise * (-1) ** index)
            for index, base in enumerate(inlined.timing.samples_seconds)
        ]
        rows[rows.index(layer)] = altered(layer, "timing", samples_seconds=samples)
        reason = findings_of(rows, "wrapper-fixed")["wrapper-fixed"].reason
        assert f"Like for like: {NO}" in reason
        assert ("Undecided" in reason) is is_open
        assert layer.cell.group in reason


def test_a_layers_own_rounding_is_no_difference_from_the_inlined_code():
    rows = altered_where(wrapper_rows(), lambda row: row.cell.variant == "mha", "correctness", max_error=1e-6)
    assert like_for_like(findings_of(rows, "wrapper-bits")["wrapper-bits"]) == YES


def test_a_layers_target_is_stated_and_counted_in_cells():
    finding = findings_of(wrapper_rows(), "wrapper-fixed")["wrapper-fixed"]
    assert "a ratio of at most 1.02, is met in 24 and missed in 0 of 24 cells" in finding.ours
