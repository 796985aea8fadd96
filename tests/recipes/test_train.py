import json
import os
import shutil

import mlx.core as mx
import numpy as np
import pytest
import yaml

import recipes.training_run
from recipes.preview import first_words
from zoo import load_model
from zoo.checkpoints import load_checkpoint
from zoo.data import Batch
from zoo.data.tokenizers import BytesTokenizer
from zoo.training.figures import draw_loss_curve

CONTRACT = {
    "run_dir": str,
    "attention": str,
    "model": str,
    "num_parameters": int,
    "steps": int,
    "tokens": int,
    "train_loss": float,
    "val_loss": float,
    "val_bits_per_byte": float,
    "tokens_per_second": float,
    "peak_memory_bytes": int,
    "seconds": float,
}


def test_the_result_keeps_the_command_contract_and_the_folder_holds_the_run(train, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes.training_run, "draw_loss_curve", draw_loss_curve)
    result = train(f"run_dir={tmp_path / 'run'}")
    assert {key: type(result[key]) for key in CONTRACT} == CONTRACT
    assert (result["attention"], result["model"], result["steps"]) == ("mha", "gpt_tiny", 6)
    assert result["tokens"] == 6 * 3 * 37
    assert (result["interrupted"], result["stopped_by"]) == (False, "steps")
    # One byte a token, so that bits per byte are nats per token in other units; documents' ends cost a little more.
    assert result["val_bits_per_byte"] == pytest.approx(result["val_loss"] / 0.6931, rel=2e-2)
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        "checkpoints",
        "command.json",
        "config.yaml",
        "environment.json",
        "loss.png",
        "metrics.jsonl",
        "result.json",
        "samples.txt",
    }
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((folder / "config.yaml").read_text())["training"]["steps"] == 6
    environment = json.loads((folder / "environment.json").read_text())
    assert {"commit", "versions", "device", "blas"} <= environment.keys()
    assert json.loads((folder / "result.json").read_text()) == result
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], "val_loss" in row) for row in rows] == [
        (2, False),
        (3, True),
        (4, False),
        (6, False),
        (6, True),
    ]
    assert f"run_dir={folder}" in result["overrides"]
    loaded = load_checkpoint(folder)
    assert str(loaded.folder) == result["checkpoint"]
    assert loaded.model.num_parameters() == result["num_parameters"]
    assert loaded.config["optimizer"]["name"] == "adamw"


def test_a_trained_model_is_ready_to_use(train, tmp_path):
    train(f"run_dir={tmp_path / 'run'}", "training.steps=2")
    model, tokenizer = load_model(tmp_path / "run", attention="mha_manual")
    logits = model(mx.array([tokenizer.encode("def main")]))
    assert logits.shape == (1, 8, model.config.vocab_size)


def test_equal_seeds_give_equal_runs_and_others_do_not(train, tmp_path):
    losses = [
        train(f"run_dir={tmp_path / name}", f"seed={seed}", "model.dropout=0.2")["train_loss"]
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_an_encoder_learns_masked_tokens_and_shows_its_guesses(train, tmp_path):
    result = train(f"run_dir={tmp_path / 'run'}", "model=bert_tiny", "training.sample_tokens=30")
    assert result["model"] == "bert_tiny"
    assert "[" in (tmp_path / "run" / "samples.txt").read_text()


@pytest.mark.parametrize("more", [("data.mask_documents=true",), ("data.packing=documents",)])
def test_packed_and_padded_documents_train(more, train, tmp_path):
    result = train(f"run_dir={tmp_path / 'run'}", *more)
    assert result["train_loss"] < 6
    assert result["tokens"] <= 6 * 3 * 37


def test_without_run_dir_each_run_has_its_own_folder(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (train("training.steps=1") for _ in range(2))
    assert first["run_dir"] != second["run_dir"]
    assert (tmp_path / first["run_dir"]).parent == tmp_path / "runs"
    assert (tmp_path / second["run_dir"] / "result.json").is_file()


def test_a_sample_begins_with_words_of_the_validation_text_or_as_told(train, tmp_path):
    held_out = tmp_path / "held out.txt"
    held_out.write_text("\n  Zwölf Boxkämpfer jagen Viktor", encoding="utf-8")
    more = (f"data.validation_path={held_out}", "training.steps=1", "training.eval_batches=1")
    for name, typed, begins in (
        ("words", (), "\n  Zwölf Boxkämpfer jagen"),
        ("given", ("training.sample_prompt=Ein  ${a}\t",), "Ein  ${a}\t"),
        ("empty", ("training.sample_prompt=",), ""),
    ):
        train(f"run_dir={tmp_path / name}", *more, *typed)
        assert (tmp_path / name / "samples.txt").read_text(encoding="utf-8").startswith(begins)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["the end of one", "another|  |one two\nthree four"], "one two\nthree"),
        (["the end of one", "more of it"], "the end of"),
        (["|word"], "word"),
        (["|" + "字" * 50], "字" * 40),
        (["|", "||"], ""),
    ],
)
def test_first_words_are_those_of_the_first_document_that_begins(rows, words):
    tokenizer = BytesTokenizer()
    batches = []
    for row in rows:
        first, *others = (tokenizer.encode(text) for text in row.split("|"))
        ids = [*first, *(token for ids in others for token in (tokenizer.eos_id, *ids)), tokenizer.pad_id]
        row_1L = np.array([ids], dtype=np.int32)
        batches.append(
            Batch(identity="", inputs_BL=row_1L, targets_BL=row_1L, weights_BL=row_1L, segments_BL=None, lengths_B=None)
        )
    assert first_words(tokenizer, batches) == words


def test_a_finished_run_is_reported_not_repeated(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    result = train(run_dir)
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    assert train(run_dir, "resume=auto") == result
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("content", ["{", "{}", "[]", "", "\udcff"])
def test_a_damaged_result_counts_as_none(content, train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    before = train(run_dir)
    (tmp_path / "run" / "result.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    after = train(run_dir, "resume=auto")
    assert after.keys() == before.keys()
    assert (after["steps"], after["train_loss"], after["val_loss"]) == (6, before["train_loss"], before["val_loss"])
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == after


def test_a_run_killed_while_it_saved_its_last_step_keeps_no_more_than_another(train, tmp_path):
    train(f"run_dir={tmp_path}", "training.keep_checkpoints=1")
    (tmp_path / "result.json").unlink()
    (last,) = (tmp_path / "checkpoints").iterdir()
    for name in ("step_000004", ".partial-step_000002-dropped"):
        shutil.copytree(last, last.with_name(name))
    assert train(f"run_dir={tmp_path}", "training.keep_checkpoints=1", "resume=auto")["steps"] == 6
    assert list((tmp_path / "checkpoints").iterdir()) == [last]


def test_a_copied_run_tells_where_it_is_now(train, tmp_path):
    train(f"run_dir={tmp_path / 'run'}")
    shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=True)
    result = train(f"run_dir={tmp_path / 'copy'}", "resume=auto")
    assert result["run_dir"] == str(tmp_path / "copy")
    assert result["checkpoint"] == str(tmp_path / "copy" / "checkpoints" / "step_000006")


def test_paths_are_taken_as_typed_and_the_home_folder_is_filled_in(train, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(train.corpus, tmp_path / "texts (é)=1")
    result = train("run_dir=~/a=b (ö)", "data.path=~/texts (é)=1", "training.steps=1")
    assert result["run_dir"] == str(tmp_path / "a=b (ö)")
    assert (tmp_path / "a=b (ö)" / "result.json").is_file()


def test_a_folder_below_one_whose_name_is_not_utf_8_holds_a_run(train, tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode(b"caf\xe9 \xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes names of UTF-8 alone")
    monkeypatch.chdir(folder)
    train("run_dir=run", "training.steps=2")
    assert train("run_dir=run", "resume=auto")["resumed_from_step"] == 2
    _, tokenizer = load_model(folder / "run")
    assert tokenizer.decode(tokenizer.encode("a")) == "a"


def test_more_steps_go_on_from_the_last_one(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=4")
    result = train(run_dir, "resume=auto")
    assert (result["steps"], result["resumed_from_step"], result["tokens"]) == (6, 4, 6 * 3 * 37)


def test_a_run_without_checkpoint_starts_again(train, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    train(f"run_dir={tmp_path / 'other'}")
    shutil.copy(tmp_path / "other" / "config.yaml", folder)
    (folder / "metrics.jsonl").write_text('{"step": 1, "train_loss": 9.0}\n')
    result = train(f"run_dir={folder}", "resume=auto")
    assert result["resumed_from_step"] is None
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["step"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("optimizer.weight_decay=0.3", "optimizer.weight_decay must stay 0.1 as in the run; got 0.3"),
        ("model.num_heads=4", "model.num_heads must stay 2"),
        ("seed=9", "seed must stay 0"),
        ("attention=mha_manual", "resume: attention.name must stay 'mha' as in the run; got 'mha_manual'"),
        ("optimizer=lion", "resume: optimizer.name must stay 'adamw' as in the run; got 'lion'"),
        ("data.validation_fraction=0.4", "data.validation_fraction must stay"),
    ],
)
def test_another_configuration_does_not_go_on(change, words, train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=2")
    code, result, errors = train.attempt(run_dir, "resume=auto", change)
    assert (code, result) == (2, None)
    assert words in errors
    assert errors.count("\n") == 1


def test_a_run_goes_on_with_the_same_text_elsewhere_and_not_with_another_one_in_its_place(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    here, moved = tmp_path / "here.txt", tmp_path / "moved.txt"
    text = "".join(f"paragraph {number} of the text\n\n" for number in range(99))
    for path in (here, moved):
        path.write_text(text, encoding="utf-8")
    train(run_dir, f"data.path={here}")
    assert train(run_dir, "resume=auto", f"data.path={moved}", "training.steps=7")["resumed_from_step"] == 6
    for path, message in ((here, "data.path must stay"), (moved, "the training text of data has changed since")):
        path.write_text(f"{text}one more\n", encoding="utf-8")
        code, result, errors = train.attempt(run_dir, "resume=auto", f"data.path={path}", "training.steps=9")
        assert (code, result) == (2, None)
        assert f"error: resume: {message}" in errors


def test_a_batch_that_predicts_nothing_is_one_line(train, tmp_path):
    (tmp_path / "texts").mkdir()
    for number in range(9):
        (tmp_path / "texts" / f"{number}.txt").write_text(str(number))
    more = ["model=bert_tiny", "training.batch_size=1", "training.sequence_length=1", "training.sample_tokens=0"]
    more += [f"data.path={tmp_path / 'texts'}", "data.validation_fraction=0.4", f"run_dir={tmp_path / 'run'}"]
    code, _, error = train.attempt(*more, "training.steps=30", "training.eval_every=null")
    assert code == 2
    assert "for a token to predict in every batch" in error.splitlines()[-1]
