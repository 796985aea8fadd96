"""Rules of a kind: which rows they take, what an interval leaves open, and what they say."""

import json
import math

import pytest

from tests.eval.claims import worlds
from tests.eval.claims.worlds import NO, YES, finding_of, findings_of, like_for_like, on_metal
from tests.eval.rows_factory import altered, altered_where, attention, quality_row

OTHERS = "different functions compared"
OTHER_HEADS = ((4, None), (4, 8), (8, 2))


def test_the_speed_of_a_model_says_nothing_of_a_larger_ones():
    for name in ("throughput-absolute", "throughput-absolute-qwen", "throughput-absolute-7b"):
        finding = finding_of(on_metal(worlds.step_rows(0.6)), name)
        assert finding.verdict == "not measured", name
        assert "llama_tiny" in finding.ours


def test_a_difference_between_equal_ones_shows_in_the_controls():
    rows = worlds.grid_rows(batch_sizes=(1,))
    for index, row in enumerate(rows):
        if row.cell.role == "control":
            slower = [1.05 * seconds for seconds in row.timing.samples_seconds]
            rows[index] = altered(row, "timing", samples_seconds=slower)
    assert like_for_like(finding_of(rows, "flash-demo-over-practical")) == YES
    assert like_for_like(worlds.published_findings()["flash-demo-over-practical"]) == NO


def kind_of(cell):
    mapping = cell.attention_mapping
    return mapping["mechanism"], mapping["implementation"], mapping.get("num_kv_heads")


def faster(cell, *kind, factor=0.1):
    return worlds.as_published(cell) * (factor if kind_of(cell) == kind else 1)


def barely(cell):
    return 1e-3 * (0.998 if kind_of(cell) == ("softmax", "fused", 1) else 1.0)


def causal_in_slow_rounds(cell, factor):
    # Whatever slows all of a group leaves the ratios in it alone.
    slow = 1e-2 if cell.group.startswith("causal") else 1.0
    return worlds.as_published(cell) * slow * (factor if kind_of(cell)[1] == "cumsum" else 1.0)


@pytest.mark.parametrize(
    ("name", "times", "verdict", "words"),
    [
        ("best-512", lambda cell: 1e-3, NO, "Undecided: ties with GQA (4 KV heads), block-sparse"),
        ("best-512", barely, NO, "N=512: MQA (tied: "),
        ("best-512", lambda cell: faster(cell, "softmax", "fused", None), NO, "N=512: fused MHA, of 12 mechanisms and"),
        ("best-512", lambda cell: faster(cell, "softmax", "fused", 1), YES, "N=512: MQA, of 12"),
        ("best-128", lambda cell: faster(cell, "softmax", "fused", 4), YES, "N=128: GQA (4 KV heads), of 12"),
        ("best-1024", worlds.as_published, YES, "N=1024: block-sparse (32), of 12"),
        ("best-1024", lambda cell: causal_in_slow_rounds(cell, 1e-3), NO, "N=1024: causal linear (cumsum), of"),
        ("best-1024", lambda cell: causal_in_slow_rounds(cell, 1.0), YES, "N=1024: block-sparse (32), of 12"),
    ],
    ids=["a tie", "within the noise", "fused competes", "mqa", "gqa", "blocks", "in rounds of its own", "ratio alone"],
)
def test_only_what_is_apart_from_all_others_in_shared_rounds_is_the_fastest(name, times, verdict, words):
    finding = finding_of(worlds.attnbench_rows(times, lengths=(int(name.split("-")[1]),)), name)
    assert like_for_like(finding) == verdict
    assert words in f"{finding.ours} {finding.reason}"
    assert ("Undecided" in finding.reason) == ("tie" in words)


def look(name, *, difference=1e-6, layers=(0, 1), text="import os", data="stdlib"):
    damage = {"largest_logit_difference": difference, "kl_nats_per_token": difference}
    surgery = {"layers": list(layers), "num_layers": 2, "damage": damage, "greedy": {"text": text}}
    fields = {"task": "surgery", "metric": "kl_nats_per_token", "model": "smollm", "data": data, "budget": "checkpoint"}
    return quality_row(name, 0, difference, **fields, surgery=json.dumps(surgery), attention=attention(name))


def test_exact_exchanges_of_every_layer_reproduce_it_and_what_computes_something_else_does_not_count():
    rows = [look("mha_tiled"), look("mha_manual", difference=3e-5), look("swa", difference=2.0, text="other")]
    found = finding_of(rows, "drop-in")
    assert (found.verdict, found.value) == (YES, 3e-5)
    assert set(found.identities) == {row.identity for row in rows[:2]}
    assert "greedy texts equal" in found.ours


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ({"difference": 2e-4}, NO),
        ({"layers": (1,)}, NO),
        ({"text": "import sys"}, NO),
        # Of another prompt.
        ({"text": "What does it do?", "data": "examples"}, YES),
    ],
)
def test_a_moved_logit_a_layer_left_out_or_another_text_after_one_prompt_refutes_it(fault, verdict):
    assert finding_of([look("mha_tiled"), look("mha_manual", **fault)], "drop-in").verdict == verdict


def is_inlined(row):
    return row.cell.variant == "mha_hand_inlined"


@pytest.mark.parametrize(
    ("inlined", "layer", "verdict"),
    [("a", "b", "not measured"), ("a", None, "not measured"), (None, "b", "not measured"), ("a", "a", OTHERS)],
)
def test_rows_pair_that_share_their_rounds_whatever_the_code_they_were_stored_from(inlined, layer, verdict):
    rows = [altered(row, "timing", rounds_id=inlined if is_inlined(row) else layer) for row in worlds.wrapper_rows()]
    moved = altered_where(rows, is_inlined, "machine", commit="fedcba")
    assert finding_of(rows, "wrapper-fixed").verdict == finding_of(moved, "wrapper-fixed").verdict == verdict


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


def test_fine_tunings_are_paired_by_seed_and_count_before_training_steps():
    names = {"finetune-practical": NO, "finetune-demo": YES, "finetune-range": YES, "throughput-tinyllama": NO}
    found = findings_of([*finetunings(1 / 0.8), *worlds.step_rows(0.99)], *names)
    assert {name: finding.verdict for name, finding in found.items()} == names
    demo = found["finetune-demo"]
    assert demo.value == pytest.approx(0.8)
    assert found["throughput-tinyllama"].value == pytest.approx(1.25)
    # Of seeds that differ by a quarter: apart, nothing could be told.
    assert demo.high - demo.low < 0.01
    assert "smollm, examples, finetune (100 steps, 3 seeds, mha by native and mha_manual)" in demo.ours
    assert len(demo.identities) == 6


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
    found = finding_of([*rows, *worlds.step_rows(0.9)], "finetune-practical")
    assert "llama_tiny" in found.ours
    assert found.verdict == YES


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({}, YES)]
    + [({"num_heads": heads, "num_kv_heads": own}, "not measured") for heads, own in ((4, None), (4, 8), (8, 2))],
)
def test_caches_are_measured_in_one_model_of_the_published_heads(changes, verdict):
    rows = [altered(row, "cell", **changes) for row in worlds.decode_rows({8: 8000, 4: 4000, 2: 2000, 1: 1000})]
    for name, saving in {"mqa-cache": 0.875, "gqa-memory": 0.5}.items():
        finding = finding_of(rows, name)
        assert (finding.verdict, finding.value) == (verdict, None if changes else saving)
        assert ("against 8,000 bytes)" in finding.ours) == (verdict == YES)
        apart = [altered(row, "cell", group=row.cell.variant) for row in rows]
        assert finding_of(apart, name).verdict == "not measured"


@pytest.mark.parametrize(
    ("name", "is_open"), [("mqa-slower-128", True), ("mqa-1024", True), ("causal-linear-avoid", False)]
)
def test_an_interval_that_holds_1_decides_nothing_unless_it_is_far_from_the_published_figure(name, is_open):
    finding = finding_of(worlds.attnbench_rows(lambda cell: 1e-3), name)
    assert finding.verdict == NO
    assert ("Undecided: an interval holds what is claimed" in finding.reason) == is_open
    assert "Undecided" not in worlds.published_findings()[name].reason


def test_seeds_that_pair_tell_a_small_cost_and_recall_counts_as_quality():
    alike = worlds.quality_rows({"mha": (2.1, 2.2, 2.3), "linear": (2.11, 2.19, 2.3)})
    costly = worlds.quality_rows({"mha": (2.87816, 2.89976, 2.88214), "linear": (2.87968, 2.90087, 2.88345)})
    recalled = {"mha": (0.99, 0.98, 0.99), "linear": (0.2, 0.21, 0.2)}
    forgetful = worlds.quality_rows(recalled, task="mqar", metric="accuracy")
    for rows, verdict in ((alike, NO), (costly, YES), ([*alike, *forgetful], YES)):
        finding = finding_of(rows, "linear-approximates")
        assert (finding.verdict, finding.low > 0) == (verdict, rows is costly)


def test_outputs_that_differ_in_a_bit_are_not_bit_identical_and_a_layers_own_rounding_is_no_difference():
    """One cell of them, as its row is then: incorrect, and without times."""
    rows = altered_where(worlds.wrapper_rows(), lambda row: row.cell.variant == "mha", "correctness", max_error=1e-6)
    assert like_for_like(finding_of(rows, "wrapper-bits")) == YES
    index = next(index for index, row in enumerate(rows) if is_inlined(row))
    failed = altered(rows[index], "correctness", max_error=1e-9, passed=False)
    rows[index] = failed.model_copy(update={"status": "incorrect", "timing": None, "comparison": None})
    finding = finding_of(rows, "wrapper-bits")
    assert (like_for_like(finding), finding.value) == (NO, 1e-9)


@pytest.mark.parametrize(("seconds", "noise", "is_open"), [(1.3, 0.001, False), (1.0, 0.4, True)])
def test_an_interval_that_reaches_beyond_a_tie_leaves_it_open_and_the_cell_is_named(seconds, noise, is_open):
    """Thirty percent is far from a tie; a wide interval around 1 is not."""
    rows = worlds.wrapper_rows()
    target = "a ratio of at most 1.02, is met in 24 and missed in 0 of 24 cells"
    assert target in finding_of(rows, "wrapper-fixed").ours
    layer = next(row for row in rows if row.cell.variant == "mha" and row.cell.group == "L=64 D=768 N=12 B=4 compiled")
    inlined = next(row for row in rows if row.cell.group == layer.cell.group and row.cell.role == "baseline")
    base = inlined.timing.samples_seconds
    samples = [seconds * each * math.exp(noise * (-1) ** index) for index, each in enumerate(base)]
    rows[rows.index(layer)] = altered(layer, "timing", samples_seconds=samples)
    reason = finding_of(rows, "wrapper-fixed").reason
    assert f"Like for like: {NO}" in reason
    assert ("Undecided" in reason) is is_open
    assert layer.cell.group in reason
