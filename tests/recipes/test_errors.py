"""What a user can get wrong is one line that names the mistake and the choices, before any training work."""

import re

import pytest

from zoo.checkpoints import History
from zoo.runtime import native


def refused(train, *more):
    """The one line of stderr."""
    code, result, errors = train.attempt(*more)
    assert (code, result) == (2, None), errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1, errors
    return errors


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["attention=blockspare"], ["'blockspare'", "did you mean 'blocksparse'?", "mha_tiled", "swa_masked"]),
        (["training.stepz=3"], ["training: unknown key 'stepz'", "did you mean 'steps'?", "batch_size", "log_every"]),
        (["model.num_heads=5"], ["model: num_heads must divide hidden_size 24; got 5", "1, 2, 3, 4, 6, 8, 12, 24"]),
        (["data.path=missing"], ["data.path", "missing"]),
        (["attention=blocksparse_legacy"], ["a language model must not see the future"]),
        (["trainings.steps=3"], ["train: unknown key 'trainings'", "did you mean 'training'?"]),
        (["training.steps=many"], ["training.steps must be a whole number; got 'many'"]),
        (["training.accumulation=2"], ["training: accumulation must divide batch_size 3; got 2"]),
        (["training.sequence_length=513"], ["training.sequence_length must be at most model.max_seq_len 512"]),
        (["optimizer=adam"], ["'adam'", "did you mean 'adamw'?", "lion, muon"]),
        (["optimizer.learning_rate=-1"], ["optimizer: learning_rate must be at least 1e-30; got -1"]),
        (["tokenizer.kind=letters"], ["tokenizer: kind", "'letters'", "sentencepiece, bytes, pretrained"]),
        (["model.attention=mha"], ["model: unknown key 'attention'", "attention=mha"]),
        (["model.attention.foo=3"], ["model: unknown key 'attention'"]),
        (["resume=perhaps"], ["train.resume must be one of auto, never; got 'perhaps'"]),
        (["dtype=float8"], ["dtype", "float8", "bfloat16"]),
        (["device=tpu"], ["device", "tpu", "cpu"]),
        (["seed=-1"], ["seed must be at least 0"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_mistake_is_named_with_the_choices_before_anything_is_written(more, words, train, tmp_path):
    errors = refused(train, f"run_dir={tmp_path / 'run'}", *more)
    for word in words:
        assert word in errors
    assert not (tmp_path / "run").exists()


def test_kernels_that_are_not_there_are_missed_before_anything_is_written(train, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_NATIVE", "none")
    native._found.cache_clear()
    try:
        errors = refused(
            train,
            f"run_dir={tmp_path / 'run'}",
            "attention=swa",
            "attention.implementation=native",
            "data.path=missing",
        )
    finally:
        native._found.cache_clear()
    assert "attention.implementation must be another one here" in errors
    assert "chunked, gather_slices" in errors
    assert not (tmp_path / "run").exists()


def test_a_run_dir_that_names_no_folder_is_refused(train):
    assert refused(train, "run_dir=") == "error: run_dir must name a folder, or be null for a new one; got ''\n"


def test_a_mistake_in_the_data_leaves_what_was_there(train, tmp_path):
    (tmp_path / "run").mkdir()
    refused(train, f"run_dir={tmp_path / 'run'}", "data.path=missing")
    assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "samples.txt", "loss.png", "result.json"])
def test_a_file_that_cannot_be_written_is_named(name, train, tmp_path):
    (tmp_path / "run" / name / "in the way").mkdir(parents=True)
    code, result, errors = train.attempt(f"run_dir={tmp_path / 'run'}", "training.steps=1")
    assert (code, result) == (2, None), errors
    assert errors.splitlines()[-1].startswith(f"error: {tmp_path / 'run' / name} must be writable; got ")
    assert "Traceback" not in errors


def test_a_run_without_its_config_is_not_overwritten(train, tmp_path):
    train(f"run_dir={tmp_path / 'run'}", "training.steps=1")
    (tmp_path / "run" / "config.yaml").unlink()
    assert "which holds a run" in refused(train, f"run_dir={tmp_path / 'run'}", "training.steps=1")


def test_an_unwritable_run_dir_is_found_before_the_corpus_is_read(train, tmp_path):
    (tmp_path / "file").write_text("in the way")
    errors = refused(train, f"run_dir={tmp_path / 'file' / 'run'}", "data.path=missing")
    assert "run_dir must be a writable folder" in errors


def test_a_run_is_not_overwritten(train, tmp_path):
    train(f"run_dir={tmp_path / 'run'}", "training.steps=1")
    assert "which holds a run" in refused(train, f"run_dir={tmp_path / 'run'}", "training.steps=1")


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_refused_and_its_file_named(damage, train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=2")
    file = History(tmp_path / "run" / "checkpoints").newest() / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        del content[-7:]
    else:
        content[len(content) // 2] ^= 4
    file.write_bytes(content)
    errors = refused(train, run_dir, "resume=auto", "training.steps=3")
    assert re.search(re.escape(str(file)), errors)


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(train, tmp_path):
    more = ["optimizer.learning_rate=1e30", "optimizer.warmup_fraction=0", "training.checkpoint_every=1"]
    code, result, errors = train.attempt(f"run_dir={tmp_path / 'run'}", *more)
    assert (code, result) == (2, None)
    last = errors.splitlines()[-1]
    assert last.startswith("error: training stopped at step")
    assert "checkpoint" in last
    assert "Traceback" not in errors
