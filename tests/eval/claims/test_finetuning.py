"""The claims about fine-tuning, by records of real fine-tunings before those of training steps."""

import pytest

from tests.eval.claims.worlds import findings_of, step_rows
from tests.eval.report.planted import quality_row

CLAIMS = ("finetune-practical", "finetune-demo", "finetune-range", "throughput-tinyllama")


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
    found = findings_of([*finetunings(1 / 0.8), *step_rows(0.99)], *CLAIMS)
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
