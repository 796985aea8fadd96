"""A finished run's row is what the run told of itself."""

import hashlib
import json
import os

import pytest
import yaml

from eval.quality.run_rows import facts_of_checkpoint, quality_identity, row_of_training
from eval.rows import Row
from tests.eval.quality.models import random_model
from zoo.attention.catalog import attention_json, variant_mapping
from zoo.checkpoints import load_checkpoint, save_checkpoint
from zoo.config import UserError
from zoo.runtime.versions import describe

RESULT = {
    "model": "gpt_tiny",
    "implementation": "native",
    "num_parameters": 1234,
    "steps": 6,
    "tokens": 600,
    "val_loss": 2.0,
    "val_bits_per_byte": 2.5,
    "tokens_per_second": 50.0,
    "peak_memory_bytes": 4321,
    "seconds": 77.0,
}
# 20 seconds for the first two steps, then 5, then 4.
METRICS = [
    {"step": 2, "train_loss": 3.0, "tokens": 200, "tokens_per_second": 10.0},
    {"step": 3, "val_loss": 2.6, "val_bits_per_byte": 3.0},
    {"step": 4, "train_loss": 2.5, "tokens": 400, "tokens_per_second": 40.0},
    {"step": 6, "train_loss": 2.2, "tokens": 600, "tokens_per_second": 50.0},
    {"step": 6, "val_loss": 2.0, "val_bits_per_byte": 2.5},
]
CURVE = [{"tokens": 300, "seconds": 22.5, "value": 3.0}, {"tokens": 600, "seconds": 29.0, "value": 2.5}]
CONFIG = {
    "attention": {**variant_mapping("swa"), "window_size": 9},
    "model": {"family": "gpt"},
    "data": {"corpus": "stdlib", "cache_dir": None},
    "seed": 3,
}


def write(folder, name, **changes):
    """A file of a run, which is otherwise in some keys."""
    environment = {**describe(), "device": "a machine of last year"}
    told = {"config.yaml": CONFIG, "environment.json": environment, "result.json": RESULT}[name]
    (folder / name).write_text((yaml.safe_dump if name == "config.yaml" else json.dumps)({**told, **changes}))


@pytest.fixture
def run_dir(tmp_path):
    """A run's folder, written by hand."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    for name in ("config.yaml", "environment.json", "result.json"):
        write(folder, name)
    return folder


def test_the_row_says_what_was_trained_how_where_and_when_however_often_it_is_read(run_dir):
    os.utime(run_dir / "result.json", (1_000_000_000, 1_000_000_000))
    row = row_of_training(run_dir, budget="equal_tokens")
    assert (row.kind, row.status, row.recorded_at) == ("quality", "ok", "2001-09-09T01:46:40+00:00")
    assert row.machine.device == "a machine of last year"
    quality = row.quality
    assert (quality.task, quality.metric, quality.value) == ("language", "val_bits_per_byte", 2.5)
    assert (quality.variant, quality.data, quality.seed) == ("swa(window_size=9)", "stdlib", 3)
    assert quality.budget == "equal_tokens"
    # As the checkpoint names it: the row of a training and those of its evaluation stand in one series.
    assert quality.attention == attention_json(random_model(attention=CONFIG["attention"]).config.attention)
    told = ("model", "implementation", "steps", "tokens", "num_parameters", "tokens_per_second")
    assert quality.model_dump(include=set(told)) == {name: RESULT[name] for name in told}
    # Evaluations and saving, which took the rest of the run's 77 seconds, are no training.
    assert (quality.peak_bytes, quality.train_seconds) == (4321, 29.0)
    assert [point.model_dump() for point in quality.curve] == CURVE
    assert row_of_training(run_dir, budget="equal_tokens") == row


@pytest.mark.parametrize(
    ("config", "result", "told"),
    [
        ({"data": {"corpus": "mqar"}}, {"val_bits_per_byte": None, "val_accuracy": 0.5}, ("mqar", "val_accuracy", 0.5)),
        ({"model": {"family": "bert"}}, {"val_accuracy": 0.5}, ("masked", "val_bits_per_byte", 2.5)),
    ],
    ids=["synthetic", "encoder"],
)
def test_the_row_is_of_the_task_that_was_trained(run_dir, config, result, told):
    write(run_dir, "config.yaml", **config)
    write(run_dir, "result.json", **result)
    quality = row_of_training(run_dir, budget="equal_seconds").quality
    assert (quality.task, quality.metric, quality.value) == told


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.yaml", {"attention": 3}),
        ("config.yaml", {"data": {}}),
        ("config.yaml", {"data": {"corpus": 3}}),
        ("config.yaml", {"model": "gpt"}),
        ("config.yaml", {"model": {"family": "none"}}),
        ("config.yaml", {"model": {"family": []}}),
        ("config.yaml", {"seed": None}),
        ("environment.json", {"versions": None}),
        ("environment.json", {"blas": {}}),
        ("environment.json", {"cores": "two"}),
        ("result.json", {"model": None}),
        ("result.json", None),
        ("config.yaml", None),
    ],
)
def test_what_a_run_tells_otherwise_than_it_was_written_or_not_at_all_is_named(run_dir, name, change):
    if change is None:
        (run_dir / name).unlink()
    else:
        write(run_dir, name, **change)
    told = "run_dir must be the folder of a finished training run" if change is None else f"run: .*{name}"
    with pytest.raises(UserError, match=told):
        row_of_training(run_dir, budget="equal_tokens")


def test_what_was_asked_names_a_row_even_where_a_record_calls_the_budget_a_regime(run_dir):
    row = row_of_training(run_dir, budget="equal_tokens")
    written = json.loads(row.model_dump_json())
    written["quality"]["regime"] = written["quality"].pop("budget")
    assert Row.model_validate_json(json.dumps(written), strict=True) == row
    found = ["value", "standard_error", "count", "surgery", "implementation", "train_seconds", "tokens_per_second"]
    found += ["peak_bytes", "num_parameters", "curve"]
    asked = {key: value for key, value in written["quality"].items() if key not in found}
    assert row.identity == hashlib.sha256(json.dumps([asked, ""], sort_keys=True).encode()).hexdigest()[:16]
    assert quality_identity(row.quality, evaluated="other weights") != row.identity
    assert "budget" in Row.model_json_schema()["$defs"]["Quality"]["required"]


def test_a_checkpoint_has_all_that_its_run_had_by_then_and_one_by_itself_what_was_saved_with_it(run_dir, tmp_path):
    state = {"step": 4, "tokens": 400, "timed_seconds": 5.0, "timed_tokens": 200, "random_state": [0, 1]}
    earlier = save_checkpoint(run_dir / "checkpoints" / "step_000004", model=random_model(), training_state=state)
    facts = facts_of_checkpoint(earlier, load_checkpoint(earlier).training_state)
    assert [facts[name] for name in ("steps", "tokens", "tokens_per_second", "train_seconds")] == [4, 400, 40.0, 25.0]
    assert (facts["curve"], facts["peak_bytes"], facts["model"]) == (CURVE[:1], None, "gpt_tiny")
    state |= {"step": 6}
    facts = facts_of_checkpoint(run_dir / "checkpoints" / "step_000006", state)
    assert (facts["peak_bytes"], facts["tokens_per_second"], facts["curve"]) == (4321, 40.0, CURVE)
    facts = facts_of_checkpoint(tmp_path / "alone", state)
    assert (facts.get("model"), facts["steps"], facts["curve"], facts["train_seconds"]) == (None, 6, [], None)
    assert facts_of_checkpoint(tmp_path / "alone", None) == {}
