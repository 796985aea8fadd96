import concurrent.futures
import functools
import json
import re
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import yaml

from recipes.job import file_name
from recipes.samples import first_words
from zoo import load_model
from zoo.checkpoints import load_checkpoint
from zoo.config import UserError
from zoo.data import Batch
from zoo.data.tokenizers import BytesTokenizer
from zoo.training import RunFolder

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


def test_the_result_keeps_the_command_contract_and_the_folder_holds_the_run(train, tmp_path):
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
    ("texts", "words"),
    [
        (["", "  ", "one two\nthree four"], "one two\nthree"),
        (["word"], "word"),
        (["字" * 50], "字" * 40),
        (["", ""], ""),
    ],
)
def test_first_words_are_those_of_the_first_document_that_has_any(texts, words):
    tokenizer = BytesTokenizer()
    ids = [token for text in texts for token in (tokenizer.eos_id, *tokenizer.encode(text))]
    row_1L = np.array([[*ids, tokenizer.pad_id]], dtype=np.int32)
    batch = Batch(identity="", inputs_BL=row_1L, targets_BL=row_1L, weights_BL=row_1L, segments_BL=None, lengths_B=None)
    assert first_words(tokenizer, batch) == words


def test_default_folders_of_one_second_are_all_different(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        claim = functools.partial(RunFolder.claimed, tmp_path / "deep" / "runs")
        folders = list(pool.map(claim, ["20251127-144425-mha-gpt_tiny"] * 60))
    assert len({folder.path for folder in folders}) == 60
    assert all(folder.path.is_dir() for folder in folders)


def test_a_claimed_folder_goes_away_with_a_run_that_could_not_begin(tmp_path):
    with pytest.raises(UserError, match="no data"), RunFolder.claimed(tmp_path / "runs", "name"):
        raise UserError("no data")
    assert list(tmp_path.iterdir()) == []


def test_the_jobs_of_a_sweep_are_named_by_what_differs(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, results = train.sweep("training.steps=1,2", "seed=3", "model.dropout=0.0", "training.sample_tokens=0")
    assert code == 0
    names = [Path(result["run_dir"]).name for result in results]
    assert [name.split("-", 2)[2] for name in names] == [
        "mha-gpt_tiny-training.steps=1",
        "mha-gpt_tiny-training.steps=2",
    ]
    for result, steps in zip(results, (1, 2), strict=True):
        assert {"seed=3", f"training.steps={steps}", "model.dropout=0.0"} <= set(result["overrides"])
        assert json.loads((Path(result["run_dir"]) / "result.json").read_text()) == result


def test_a_folder_for_a_whole_sweep_has_one_inside_for_each_job(train, tmp_path):
    jobs = ("run_dir=" + str(tmp_path / "a=b, (ö)"), "seed=0,1", "training.steps=1")
    # Texts with commas are quoted in a sweep.
    quoted = (f'run_dir="{tmp_path}/sweep"', *jobs[1:])
    code, results = train.sweep(*quoted)
    assert code == 0
    assert [result["run_dir"] for result in results] == [str(tmp_path / "sweep" / f"seed={seed}") for seed in (0, 1)]
    # Each goes on where it was.
    code, again = train.sweep(*quoted, "resume=auto")
    assert (code, again) == (0, results)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=1", "attention=swa"], "seed=1,attention=swa"),
        (["data.path=a b/ü"], r"data\.path=a_b__-[0-9a-f]{8}"),
        (["x=" + "1" * 300], r"x=1{98}-[0-9a-f]{8}"),
        (["x=../.."], r"x=\.\._\.\.-[0-9a-f]{8}"),
    ],
)
def test_overrides_make_safe_short_and_different_names(overrides, name):
    assert re.fullmatch(name, file_name(overrides))
    assert file_name(overrides) != file_name([*overrides, "seed=2"])
    assert file_name(["a=b/c"]) != file_name(["a=b_c"])


def test_a_run_goes_on_by_its_own_settings(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    first = train(run_dir, "attention=swa", "attention.window_size=9", "model=llama_tiny", "seed=4", "training.steps=3")
    result = train.bare(run_dir, "resume=auto", "training.steps=5")
    assert (result["attention"], result["model"], result["steps"]) == ("swa", "llama_tiny", 5)
    assert (result["resumed_from_step"], result["num_parameters"]) == (3, first["num_parameters"])
    assert {"seed=4", "attention=swa", "training.steps=5"} <= set(result["overrides"])
    assert "training.steps=3" not in result["overrides"]
    assert result["tokens"] == 5 * 3 * 37
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["steps"] == 5
    # The settings stay for the next time.
    assert train.bare(run_dir, "resume=auto") == result


def test_what_is_typed_to_a_run_that_goes_on_is_held_to_its_settings(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=2", "seed=4")
    for typed, words in {
        "seed=9": "resume: seed must stay 4",
        "attention=mha_manual": "resume: attention.name must stay 'mha'",
        "model.num_heads=4": "resume: model.num_heads must stay 2",
        "training.batch_size=5": "resume: training.batch_size must stay 3",
        "trainning.steps=9": "unknown key 'trainning'",
        "training.stepps=9": "unknown key 'stepps'",
    }.items():
        code, result, errors = train.attempt_bare(run_dir, "resume=auto", typed)
        assert (code, result) == (2, None)
        assert words in errors
        assert errors.count("\n") == 1


def test_damaged_settings_of_a_run_are_one_line(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=1")
    damages = {
        "config.yaml": (
            *("[", "", "- 1", "seed: 4", "\0", "a: &a [*a]"),
            "{attention: 1, model: 2, data: 3, optimizer: 4, training: 5}",
            "{attention: {}, model: {}, data: {}, optimizer: {}, training: {}}",
        ),
        "command.json": ("{", "{}", '{"overrides": 3, "choices": {}}'),
    }
    for name, contents in damages.items():
        path = tmp_path / "run" / name
        whole = path.read_bytes()
        for content in contents:
            path.write_text(content)
            code, result, errors = train.attempt_bare(run_dir, "resume=auto", "training.steps=2")
            assert (code, result) == (2, None), content
            assert errors.startswith("error: ")
            assert errors.count("\n") == 1
            assert str(tmp_path / "run") in errors
        path.write_bytes(whole)


def test_a_run_from_before_its_command_was_kept_goes_on(train, tmp_path):
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=1")
    (tmp_path / "run" / "command.json").unlink()
    result = train.bare(run_dir, "resume=auto", "training.steps=2")
    assert (result["attention"], result["model"], result["steps"]) == ("mha", "gpt", 2)


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
