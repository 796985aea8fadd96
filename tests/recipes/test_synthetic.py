"""`train.py` on synthetic tasks: no tokenizer, accuracy reported, and everything that text runs do."""

import json

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from recipes.app import execute
from recipes.generate import main as generate
from recipes.train import main
from zoo.checkpoints import load_checkpoint
from zoo.data import DERIVED_KEYS, data_source_from_mapping
from zoo.data.synthetic import SYNTHETIC_TASKS

TINY = (
    "model=gpt_recall",
    "attention=mha",
    "model.hidden_size=24",
    "data.validation_rows=10",
    "training.steps=6",
    "training.batch_size=4",
    "training.eval_every=3",
    "training.log_every=2",
    "training.target_accuracy=null",
    # Compiling costs a C++ compiler's time.
    "training.compile=false",
)
# Solved within seconds, by looking two tokens back.
EASY = (
    "data=copying",
    "data.length=3",
    "data.shorter_lengths=[]",
    "data.vocab_size=9",
    "model=gpt_recall",
    "attention=mha",
    "data.validation_rows=64",
    "training.steps=400",
    "training.batch_size=32",
    "training.eval_every=20",
    "training.target_accuracy=0.995",
)


@pytest.fixture
def attempt(capsys, tmp_path):
    def run(*arguments):
        code = execute("train", main, [f"run_dir={tmp_path / 'run'}", *arguments])
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        return code, json.loads(lines[-1]) if lines else None, captured.err

    return run


@pytest.fixture
def trained(attempt):
    def run(*arguments):
        code, result, errors = attempt(*arguments)
        assert code == 0, errors
        return result

    return run


@pytest.mark.parametrize("task", SYNTHETIC_TASKS)
def test_every_task_trains_and_its_checkpoint_knows_the_task(task, trained, tmp_path):
    result = trained(f"data={task}", *TINY)
    assert result["val_bits_per_byte"] is None
    assert 0 <= result["val_accuracy"] <= 1
    assert (result["steps"], result["stopped_by"]) == (6, "steps")
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.tokenizer is None
    assert loaded.config["tokenizer"] is None
    data = {key: value for key, value in loaded.config["data"].items() if key not in DERIVED_KEYS}
    again = data_source_from_mapping(data)
    assert again.fingerprint == loaded.config["data"]["fingerprint"]
    assert again.identity.as_mapping() == loaded.config["data"]["identity"]
    assert again.validation_rows == 10
    assert loaded.model.config.vocab_size == again.vocab_size
    assert not (tmp_path / "run" / "samples.txt").exists()
    assert (tmp_path / "run" / "loss.png").is_file()


def test_a_run_ends_when_it_has_solved_the_task_and_stays_ended(trained, tmp_path):
    result = trained(*EASY)
    assert result["stopped_by"] == "target_accuracy"
    assert result["val_accuracy"] >= 0.995
    assert result["steps"] < 400
    again = trained(*EASY, "resume=auto")
    # How it was asked for the second time is another thing.
    same = result.keys() - {"peak_memory_bytes", "seconds", "resumed_from_step", "overrides"}
    assert {key: again[key] for key in same} == {key: result[key] for key in same}


def test_a_resumed_run_equals_an_uninterrupted_one(capsys, tmp_path):
    # A schedule follows the number of steps, so that a run to be prolonged needs a constant rate.
    constant = ("optimizer=adamw", "optimizer.schedule=constant", "optimizer.warmup_fraction=0")

    def go(name, steps):
        arguments = ["data=mqar", *TINY, *constant, f"run_dir={tmp_path / name}", "resume=auto"]
        assert execute("train", main, [*arguments, f"training.steps={steps}"]) == 0
        capsys.readouterr()

    for name, stops in (("whole", [6]), ("parted", [2, 5, 6])):
        for steps in stops:
            go(name, steps)
    whole, parted = (
        dict(tree_flatten(load_checkpoint(tmp_path / name).model.parameters())) for name in ("whole", "parted")
    )
    assert all(mx.array_equal(whole[name], parted[name]) for name in whole)


def test_an_encoder_reports_how_many_masked_tokens_it_guesses(train):
    result = train("model=bert_tiny")
    assert 0 <= result["val_accuracy"] <= 1
    assert train("run_dir=null", "model=gpt_tiny")["val_accuracy"] is None


def test_generating_from_a_model_without_text_is_one_clear_line(trained, capsys, tmp_path):
    trained("data=needle", *TINY, "training.steps=1")
    code = execute("generate", generate, [f"checkpoint={tmp_path / 'run'}", "prompt=x"])
    errors = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith("error: checkpoint: ")
    assert errors[0].endswith("must hold a tokenizer; it was saved without one")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["tokenizer=bytes"], "tokenizer must be null: the tokens of data=mqar are no text; got bytes"),
        (["training.sequence_length=64"], "training.sequence_length must be data.length 128, the rows of data=mqar"),
        (["data.num_pairs=[40]"], "data: num_pairs must lie in [1, 31] for rows of 128 tokens"),
        (["data.num_pairs=8"], "data.num_pairs must be a list; got 8"),
        (["data.pairs=[8]"], "data: unknown key 'pairs'"),
        (["model=bert_tiny"], "model must read left to right for data=mqar"),
        (["model.vocab_size=50"], "vocab_size must be at least"),
        (["training.target_accuracy=2"], "training: target_accuracy must be above 0 and at most 1, or null; got 2.0"),
        (
            ["training.target_accuracy=0.9", "training.eval_every=null"],
            "training: eval_every must be given where a target_accuracy is; got None",
        ),
        (["data.corpus=mqr"], "data: corpus must be a known one; got 'mqr'"),
        (["resume=auto", "data.corpus=null"], "data: corpus must be a known one; got None"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_mistake_is_one_clear_line(more, words, attempt, tmp_path):
    code, result, errors = attempt("data=mqar", *TINY, *more)
    assert (code, result) == (2, None), errors
    assert errors.startswith("error: ")
    assert words in errors
    assert errors.count("\n") == 1, errors
    assert not (tmp_path / "run").exists()


def test_text_needs_a_tokenizer_and_has_no_accuracy_to_aim_at(train):
    code, _, errors = train.attempt("training.target_accuracy=0.5")
    assert code == 2
    assert "training.target_accuracy must be null for a language model on text" in errors
    code, _, errors = train.attempt("tokenizer=null")
    assert code == 2
    assert errors.count("\n") == 1


def test_another_task_does_not_go_on(trained, attempt):
    trained("data=mqar", *TINY, "training.steps=1")
    code, _, errors = attempt("data=needle", *TINY, "resume=auto")
    assert code == 2
    assert "resume: data.corpus must stay 'mqar' as in the run; got 'needle'" in errors
    code, _, errors = attempt("data=mqar", *TINY, "resume=auto", "data.num_pairs=[4]")
    assert code == 2
    assert "resume: data.num_pairs must stay [2, 4, 8, 16, 24] as in the run; got [4]" in errors
