"""What a checkpoint is evaluated on is the very text that its training held out, and a stranger's is asked about."""

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import recipes.held_out
from eval.rows import read_rows
from recipes.app import execute
from recipes.evaluate import main
from recipes.train import main as train_main
from tests.recipes.tiny_train import TINY
from zoo.checkpoints.manifest import MANIFEST, write_manifest
from zoo.checkpoints.save import CONFIG
from zoo.config import UserError

NOT_TRAINED_WITH = "data must be the text that {run} was trained with; what is there now is another one"
SMALL = ["training.steps=1", "training.sequence_length=9", "training.sample_tokens=0"]


def texts(folder: Path, ending: str = "") -> Path:
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"the text number {number} of twenty{ending}")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was started in the folder of its texts, which it names by a relative path."""
    base = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(base / "cache"))
        texts(base / "here" / "texts")
        patch.chdir(base / "here")
        more = [*TINY, *SMALL, "data=text", "data.path=texts", f"run_dir={base / 'run'}"]
        assert execute("train", train_main, more) == 0
    return base


@pytest.fixture
def own(trained, tmp_path, monkeypatch):
    """The same in a folder and a cache that a test may spoil; the working folder is another one."""
    base = tmp_path / "own"
    shutil.copytree(trained, base)
    monkeypatch.setenv("ZOO_CACHE", str(base / "cache"))
    for receipt in (base / "cache" / "trained").iterdir():
        receipt.write_text(receipt.read_text().replace(str(trained), str(base)))
    (base / "there").mkdir()
    monkeypatch.chdir(base / "there")
    return base


@pytest.fixture
def evaluate(own, capsys):
    def call(*more, checkpoint="run"):
        capsys.readouterr()
        asked = ["compile=false", "tasks=[language]", f"checkpoint={own / checkpoint}", f"run_dir={own / 'rows'}"]
        code = execute("evaluate", main, [*asked, *map(str, more)])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]) if code == 0 else None, captured.err

    return call


def value_of(result):
    return result["tasks"]["language"]["value"]


def val(base):
    return json.loads((base / "run" / "result.json").read_text())["val_bits_per_byte"]


def rewritten(base: Path, change, name: str = "run") -> Path:
    """The run's checkpoint with another configuration, sealed as anybody can."""
    (checkpoint,) = (base / name / "checkpoints").glob("step_*")
    config = json.loads((checkpoint / CONFIG).read_text())
    change(config["run"])
    (checkpoint / CONFIG).write_text(json.dumps(config))
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint)
    return checkpoint


def test_ones_own_run_is_evaluated_from_any_folder_on_the_text_of_its_training(own, evaluate):
    code, result, error = evaluate()
    assert code == 0, error
    assert value_of(result) == pytest.approx(val(own), rel=1e-6)
    assert result["data"] == "text"
    # Another text of that name in the working folder is not it.
    texts(own / "there" / "texts", "!")
    assert value_of(evaluate()[1]) == value_of(result)
    assert Path.cwd() == own / "there"


@pytest.mark.parametrize("held_out", [True, False])
def test_after_an_edit_it_is_refused_and_says_how_to_insist(own, evaluate, held_out):
    same = value_of(evaluate()[1])
    for file in (own / "here" / "texts").iterdir():
        file.write_text(file.read_text() + (" and more" if held_out else ""))
    code, result, error = evaluate()
    if not held_out:
        # Written anew with the same content.
        assert value_of(result) == same
        return
    assert (code, error.count("\n")) == (2, 1)
    (checkpoint,) = (own / "run" / "checkpoints").glob("step_*")
    assert NOT_TRAINED_WITH.format(run=checkpoint) in error
    assert "data=text data.path=FILE" in error
    assert not (own / "rows").exists() or len(read_rows(own / "rows" / "rows.jsonl")) == 3


def test_other_data_has_another_label_and_the_same_data_has_not(own, evaluate):
    other = texts(own / "other", "?")
    labels = []
    for path in (other, own / "here" / "texts"):
        for asked in (["data=text"], []):
            code, result, error = evaluate(*asked, f"data.path={path}")
            assert code == 0, error
            labels.append(result["data"])
    (measured_on,) = {
        str(row.quality.measured_on)
        for row in read_rows(own / "rows" / "rows.jsonl")
        if row.quality is not None and row.quality.data != "text"
    }
    other_label = f"text (other, {measured_on[:8]})"
    assert labels == [other_label, other_label, "text", "text"]
    assert evaluate("data.packing=documents")[1]["data"] == "text (packing=documents)"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"path": "/etc/passwd"}, "data.path = '/etc/passwd' of corpus 'text'"),
        ({"path": "texts", "validation_path": "/etc/passwd"}, "data.validation_path = '/etc/passwd'"),
        ({"corpus": "hub", "path": "somebody/secrets"}, "'somebody/secrets' of corpus 'hub'"),
        ({"corpus": "stdlib", "path": "/etc"}, "data.path = '/etc' of corpus 'stdlib'"),
    ],
)
def test_a_strangers_checkpoint_opens_nothing_unasked(own, evaluate, monkeypatch, data, words):
    opened = []
    monkeypatch.setattr(recipes.held_out, "open_data", lambda *args, **_: opened.append(args))
    fields = {"corpus": "text", **data}
    checkpoint = rewritten(own, lambda run: run.update(data={"identity": run["data"]["identity"], **fields}))
    code, _, error = evaluate(checkpoint=checkpoint)
    assert (code, error.count("\n"), opened) == (2, 1, [])
    assert "trust_data must be true to open what a checkpoint names that was not trained here" in error
    assert words in error


def test_a_copied_run_needs_its_owners_cache_or_consent(own, evaluate, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(own / "another users cache"))
    assert evaluate()[0] == 2
    monkeypatch.chdir(own / "here")
    code, result, error = evaluate("trust_data=true")
    assert code == 0, error
    assert value_of(result) == pytest.approx(val(own), rel=1e-6)
    # Consent to open is none to another text.
    monkeypatch.chdir(own / "there")
    texts(own / "there" / "texts", "!")
    code, _, error = evaluate("trust_data=true")
    assert code == 2
    assert "what is there now is another one" in error


@pytest.mark.parametrize("content", ["", '{"folder": "/tm', "[]", '{"folder": 3}'])
def test_a_damaged_receipt_is_as_none(own, evaluate, caplog, content):
    for receipt in (own / "cache" / "trained").iterdir():
        receipt.write_text(content)
    code, _, error = evaluate()
    assert (code, error.splitlines()[-1].startswith("error: trust_data must be true")) == (2, True)
    assert "it is as if this data had not been trained on here" in caplog.text
    texts = own / "here" / "texts"
    code, result, error = evaluate("trust_data=true", f"data.path={texts}")
    assert (code, result and result["data"]) == (0, "text"), error


def test_a_strangers_run_chooses_no_cache(own, evaluate, tmp_path):
    theirs = tmp_path / "chosen by a stranger"
    config = own / "run" / "config.yaml"
    config.write_text(config.read_text().replace("cache_dir: null", f"cache_dir: {theirs}"))
    assert evaluate()[0] == 0
    assert not theirs.exists()


def test_checkpoints_without_an_identity_are_known_by_their_fingerprint(own, evaluate, monkeypatch):
    def older(run):
        del run["data"]["identity"], run["data"]["tokenizer"]

    checkpoint = rewritten(own, older)
    code, result, error = evaluate("trust_data=true", f"data.path={own / 'here' / 'texts'}", checkpoint=checkpoint)
    assert code == 0, error
    assert result["data"] == "text"
    rewritten(own, lambda run: run["data"].update(fingerprint="0" * 32))
    monkeypatch.chdir(own / "here")
    code, _, error = evaluate("trust_data=true", checkpoint=checkpoint)
    assert code == 2
    assert "what is there now is another one" in error


def test_training_goes_on_without_a_cache_that_takes_a_receipt(own, monkeypatch, tmp_path, caplog):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "trained").write_text("no folder")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    more = [*TINY, *SMALL, "data=text", f"data.path={own / 'here' / 'texts'}", f"run_dir={tmp_path / 'run'}"]
    assert execute("train", train_main, more) == 0
    assert "evaluate.py will ask" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: run.clear(), "does not say what it was trained on"),
        (lambda run: run.update(data=3), "run.data must be a mapping; got 3"),
        (lambda run: run.update(data=["text"]), "run.data must be a mapping"),
        (lambda run: run["data"].pop("corpus"), "run.data.corpus must be a text; got None"),
        (lambda run: run["data"].update(corpus=["text"]), "run.data.corpus must be a text"),
        (lambda run: run["data"].update(corpus="texts"), "data: corpus must be a known one"),
        (lambda run: run["data"].update(path={"a": 1}), "data.path"),
        (lambda run: run["data"].update(packing="rows"), "data.packing must be one of stream, documents"),
        (lambda run: run["data"].update(surprise=1), "unknown key 'surprise'"),
        (lambda run: run["data"].update(identity="x"), "run.data.identity must be a mapping"),
        (lambda run: run["data"].update(identity=3), "run.data.identity must be a mapping"),
        (lambda run: run["data"].update(identity={"train": "x"}), "run.data.identity"),
        (lambda run: run["data"].pop("identity") and run["data"].pop("fingerprint"), "does not say which content"),
        (lambda run: run.update(training=[]), "run.training must be a mapping"),
        (lambda run: run["training"].update(sequence_length="9"), "run.training.sequence_length must be at least 1"),
        (lambda run: run["training"].update(batch_size=True), "run.training.batch_size must be at least 1"),
        (lambda run: run["training"].update(batch_size=-3), "run.training.batch_size must be at least 1"),
        (lambda run: run["training"].update(eval_batches=1.5), "run.training.eval_batches must be at least 1"),
        (lambda run: run.update(seed="x"), "run.seed must be a whole number"),
        (lambda run: run.update(dtype="float8"), "run.dtype must be a floating-point type"),
        (lambda run: run.update(dtype=["float32"]), "run.dtype must be a floating-point type"),
        (lambda run: run.update(optimizer=7), "run.optimizer must be a mapping"),
    ],
)
def test_a_malformed_description_of_the_training_is_one_line(own, monkeypatch, change, words):
    rewritten(own, change)
    monkeypatch.chdir(own / "here")
    asked = {"checkpoint": str(own / "run"), "run_dir": str(own / "rows"), "compile": False, "trust_data": True}
    with pytest.raises(UserError) as raised:
        main(OmegaConf.create(asked))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", 3), ("steps", "x"), ("tokens", -1), ("peak_memory_bytes", []), ("val_bits_per_byte", {})],
)
def test_a_malformed_result_of_the_run_is_one_line_or_no_matter(own, evaluate, field, value):
    path = own / "run" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    code, _, error = evaluate()
    assert code in (0, 2)
    assert (error.count("error: "), "Traceback" in error) == (code // 2, False)
