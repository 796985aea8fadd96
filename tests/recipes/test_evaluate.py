"""`scripts/evaluate.py`: one JSON object per task, a row for each figure; mistakes as one line that names them."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from omegaconf import OmegaConf

import eval.quality.harness
import recipes.evaluate
from eval.quality import Score
from eval.quality.run_rows import row_of_training
from eval.rows import read_rows
from recipes.app import execute
from recipes.evaluate import main
from recipes.train import main as train_main
from tests.recipes.tiny_train import arguments
from zoo.attention.catalog import variant_mapping
from zoo.checkpoints import load_model, save_checkpoint
from zoo.data.synthetic import MultiQueryRecall, Needle
from zoo.models import build_model, model_config_from_mapping

METRICS = {"bits_per_byte": "val_bits_per_byte", "loss": "val_loss", "accuracy": "val_accuracy"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.getbasetemp() / "token-cache"


@pytest.fixture(scope="module")
def run_of(text_corpus, cache, tmp_path_factory):
    """Trains a model of a family once; gives its run's folder."""
    runs: dict[str, Path] = {}

    def run(family: str) -> Path:
        if family not in runs:
            runs[family] = tmp_path_factory.mktemp("trained") / family
            more = (f"model={family}_tiny", "training.eval_batches=5", f"run_dir={runs[family]}", "seed=4")
            assert execute("train", train_main, arguments(text_corpus, cache, *more)) == 0
        return runs[family]

    return run


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Checkpoints of untrained models of synthetic tasks, by the task's name."""
    folder = tmp_path_factory.mktemp("synthetic")
    tasks = {"mqar": MultiQueryRecall(length=21, num_pairs=(2, 3)), "needle": Needle(length=23, shorter_lengths=(17,))}
    sizes = {"num_layers": 1, "hidden_size": 20, "num_heads": 4, "head_dim": 6, "intermediate_size": 28}
    for name, task in tasks.items():
        mx.random.seed(3)
        mapping = {"family": "gpt", "vocab_size": task.vocab_size, "max_seq_len": 21, **sizes}
        model = build_model(model_config_from_mapping({**mapping, "attention": variant_mapping("mha")}))
        save_checkpoint(folder / name, model=model, config={"data": task.as_mapping(), "seed": 2})
    return folder


@pytest.fixture
def evaluate(capsys, tmp_path):
    """Runs the recipe; gives (code, JSON object or None, text on stderr)."""

    def call(*more, run_dir="rows"):
        # What training the fixtures said is not this command's.
        capsys.readouterr()
        code = execute("evaluate", main, ["compile=false", f"run_dir={tmp_path / run_dir}", *map(str, more)])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]) if code == 0 else None, captured.err

    return call


def test_all_that_fits_a_language_model_is_asked_and_agrees_with_its_training(evaluate, run_of):
    run = run_of("gpt")
    code, result, error = evaluate(f"checkpoint={run}", "max_batches=5")
    assert code == 0, error
    trained = json.loads((run / "result.json").read_text())
    assert list(result["tasks"]) == ["language", "positions", "extrapolation"]
    for task in result["tasks"].values():
        assert task.keys() >= {"metric", "value", "standard_error", "count", "details"}
    assert result["tasks"]["language"]["value"] == pytest.approx(trained["val_bits_per_byte"], rel=1e-6)
    assert result["tasks"]["language"]["details"][1]["value"] == pytest.approx(trained["val_loss"], rel=1e-6)
    rows = read_rows(Path(result["rows_path"]))
    assert len(rows) == sum(len(task["details"]) for task in result["tasks"].values())
    training = row_of_training(run, budget="checkpoint")
    for row in rows:
        quality = row.quality
        assert (row.kind, row.status, quality.budget, quality.seed) == ("quality", "ok", "checkpoint", 4)
        assert (quality.model, quality.data, quality.variant) == ("gpt_tiny", "text", "mha")
        same = {"attention", "steps", "tokens", "train_seconds", "tokens_per_second", "peak_bytes", "curve"}
        assert quality.model_dump(include=same) == training.quality.model_dump(include=same)
        assert quality.num_parameters == trained["num_parameters"]
        of_training = {"trained_on", "measured_on", "settings"}
        assert quality.model_dump(include=of_training) == training.quality.model_dump(include=of_training)
        assert None not in quality.model_dump(include=of_training).values()


def test_settings_are_equal_where_only_the_seed_and_what_is_watched_differ(train, tmp_path):
    asked = (["seed=1"], ["seed=2", "training.log_every=1"], ["optimizer.learning_rate=0.02"], ["model.num_layers=2"])
    found = []
    for number, more in enumerate(asked):
        train("training.steps=1", f"run_dir={tmp_path / str(number)}", *more)
        found.append(row_of_training(tmp_path / str(number), budget="checkpoint").quality)
    assert found[0].training == found[1].training
    assert len({quality.settings for quality in found}) == 3
    assert len({quality.trained_on for quality in found}) == 1
    # What one machine alone knows is no setting.
    assert not any(str(tmp_path.parent) in quality.settings for quality in found)


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Texts of all lengths around a row's 11 tokens; some rows hold nothing but a document's end."""
    folder = tmp_path_factory.mktemp("documents")
    for number in range(90):
        (folder / f"{number:02}.txt").write_text("the quick brown fox jumps over"[: 1 + number % 30])
    return folder


@pytest.mark.parametrize(
    "packing", [["packing=stream"], ["packing=stream", "mask_documents=true"], ["packing=documents"]], ids=" ".join
)
@pytest.mark.parametrize("family", ["gpt", "llama", "bert"])
def test_an_evaluation_is_the_trainings_own_whatever_the_batch(family, packing, documents, cache, tmp_path):
    run = tmp_path / "run"
    options = [f"model={family}_tiny", *(f"data.{each}" for each in packing), "data.validation_fraction=0.4"]
    options += ["training.steps=2", "training.sequence_length=11", "training.sample_tokens=0", f"run_dir={run}"]
    options += ["training.eval_batches=9", "optimizer.learning_rate=0.01"]
    assert execute("train", train_main, arguments(documents, cache, *options)) == 0
    trained = json.loads((run / "result.json").read_text())
    tasks = ["masked"] if family == "bert" else ["language", "positions", "extrapolation"]
    for batch_size in (None, 2, 7):
        asked = {"checkpoint": str(run), "run_dir": str(tmp_path / "rows"), "tasks": tasks, "compile": False}
        found = main(OmegaConf.create({**asked, "batch_size": batch_size}))["tasks"]
        details = [each for task in found.values() for each in task["details"]]
        whole = [each for each in details if each.get("position") is None and each.get("length", 11) == 11]
        values = {metric: [each["value"] for each in whole if each["metric"] == metric] for metric in METRICS}
        for metric, own in METRICS.items():
            if trained[own] is not None and values[metric]:
                assert values[metric] == pytest.approx([trained[own]] * len(values[metric]), rel=1e-6), metric
        bins = [each for each in details if each.get("position") is not None and each["metric"] == "loss"]
        if bins:
            mean = np.average([each["value"] for each in bins], weights=[each["count"] for each in bins])
            assert mean == pytest.approx(trained["val_loss"], rel=1e-6)


def test_what_is_asked_otherwise_than_in_training_has_a_label_of_its_own(documents, cache, tmp_path):
    run = tmp_path / "run"
    options = ["training.steps=1", "training.sequence_length=11", "training.sample_tokens=0", "dtype=bfloat16"]
    options += ["data.validation_fraction=0.4", f"run_dir={run}"]
    assert execute("train", train_main, arguments(documents, cache, *options)) == 0
    asked = {"checkpoint": str(run), "run_dir": str(tmp_path / "rows"), "tasks": ["language"], "compile": False}
    others: dict[str, tuple[dict[str, object], ...]] = {
        "": ({}, {"max_batches": 2}, {"max_batches": 3, "batch_size": 2}, {"max_batches": 1, "batch_size": 6}),
        " (dtype=float32)": ({"dtype": "float32"},),
        " (rows=3)": ({"max_batches": 1},),
        " (sequence_length=7)": ({"sequence_length": 7},),
    }
    found = {label: [main(OmegaConf.create({**asked, **other})) for other in each] for label, each in others.items()}
    assert {result["data"] for results in found.values() for result in results} == {f"text{label}" for label in found}
    trained = json.loads((run / "result.json").read_text())
    values = {label: [each["tasks"]["language"]["value"] for each in results] for label, results in found.items()}
    # The forward pass is that of the training, dtype included.
    assert values.pop("") == pytest.approx([trained["val_bits_per_byte"]] * 4, rel=1e-6)
    assert not any(each == pytest.approx(trained["val_bits_per_byte"], rel=1e-6) for (each,) in values.values())


def test_text_of_less_than_a_row_is_evaluated_at_the_length_of_its_training(cache, tmp_path):
    (tmp_path / "texts").mkdir()
    for number in range(9):
        (tmp_path / "texts" / f"{number}").write_text("abcdefghi"[: number + 1])
    options = ["training.steps=1", "training.sequence_length=11", "training.sample_tokens=0"]
    assert (
        execute("train", train_main, arguments(tmp_path / "texts", cache, *options, f"run_dir={tmp_path / 'run'}")) == 0
    )
    trained = json.loads((tmp_path / "run" / "result.json").read_text())
    asked = {"checkpoint": str(tmp_path / "run"), "run_dir": str(tmp_path / "rows"), "compile": False}
    found = main(OmegaConf.create(asked))["tasks"]
    assert [found[task]["value"] for task in ("language", "positions", "extrapolation")] == pytest.approx(
        [trained["val_bits_per_byte"]] * 3, rel=1e-6
    )


def test_an_encoder_is_asked_for_hidden_tokens(evaluate, run_of):
    run = run_of("bert")
    code, result, error = evaluate(f"checkpoint={run}", "max_batches=5")
    assert code == 0, error
    trained = json.loads((run / "result.json").read_text())
    assert list(result["tasks"]) == ["masked"]
    figures = {each["metric"]: each["value"] for each in result["tasks"]["masked"]["details"]}
    assert figures["bits_per_byte"] == pytest.approx(trained["val_bits_per_byte"], rel=1e-6)
    assert figures["accuracy"] == pytest.approx(trained["val_accuracy"], rel=1e-6)


def test_recall_is_asked_by_the_axes_of_the_task_that_was_trained(evaluate, synthetic):
    code, result, error = evaluate(f"checkpoint={synthetic / 'mqar'}", "max_batches=2")
    assert code == 0, error
    assert list(result["tasks"]) == ["mqar"]
    over_all, *settings = result["tasks"]["mqar"]["details"]
    assert [(each["num_pairs"], each["length"]) for each in settings] == [(2, 21), (3, 21)]
    assert over_all["count"] == result["tasks"]["mqar"]["count"] == 2 * 8 * (2 + 3)


def test_a_setting_that_the_positions_do_not_reach_is_a_row_with_the_reason(evaluate, synthetic):
    code, result, error = evaluate(f"checkpoint={synthetic / 'needle'}", "max_batches=1")
    assert code == 0, error
    rows = read_rows(Path(result["rows_path"]))
    skipped = [row for row in rows if row.status == "skipped"]
    assert {row.quality.length for row in skipped} == {23}
    assert all("max_seq_len 21" in row.reason and row.quality.value is None for row in skipped)
    assert {row.quality.length for row in rows if row.status == "ok"} == {None, 17}


def test_asking_otherwise_adds_rows_and_asking_again_does_not(evaluate, run_of):
    own = (f"checkpoint={run_of('gpt')}", "tasks=[language]", "max_batches=1")
    counts = []
    for more in (["sequence_length=17"], ["sequence_length=33"], ["sequence_length=17"]):
        _, result, _ = evaluate(*own, *more)
        counts.append(len(read_rows(Path(result["rows_path"]))))
    assert counts[1] == counts[2] == 2 * counts[0]


def test_other_settings_of_the_task_can_be_asked(evaluate, synthetic):
    _, result, _ = evaluate(f"checkpoint={synthetic / 'mqar'}", "max_batches=1", "data.num_pairs=[1,4]")
    assert [each.get("num_pairs") for each in result["tasks"]["mqar"]["details"]] == [None, 1, 4]


def test_other_text_can_be_asked_about(evaluate, run_of, cache, tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
    own = ("tasks=[language]", "max_batches=2", f"checkpoint={run_of('gpt')}")
    other = ("data=text", f"data.path={tmp_path}", f"data.cache_dir={cache}", "data.validation_fraction=0.5")
    values = [evaluate(*own, *more)[1]["tasks"]["language"]["value"] for more in ((), other)]
    assert values[0] != values[1]


def test_another_attention_has_its_own_rows_without_the_trainings_speed(evaluate, run_of):
    more = ("attention=swa_masked", "attention.window_size=2", "tasks=[language]", "max_batches=5")
    _, result, _ = evaluate(f"checkpoint={run_of('gpt')}", *more)
    assert result["attention"] == "swa_masked(window_size=2)"
    quality = read_rows(Path(result["rows_path"]))[0].quality
    assert (quality.tokens_per_second, quality.peak_bytes, quality.curve) == (None, None, [])
    assert quality.steps == 6
    trained = row_of_training(run_of("gpt"), budget="checkpoint")
    assert quality.settings != trained.quality.settings
    # The very attention that was trained is no exchange.
    _, same, _ = evaluate(f"checkpoint={run_of('gpt')}", "attention=mha", *more[2:], run_dir="same")
    assert read_rows(Path(same["rows_path"]))[0].quality.settings == trained.quality.settings


def test_asking_again_replaces_rows_and_another_checkpoint_adds_some(evaluate, run_of):
    checkpoints = sorted((run_of("gpt") / "checkpoints").glob("step_*"))
    counts = []
    for checkpoint in (checkpoints[-1], run_of("gpt"), checkpoints[0]):
        _, result, _ = evaluate(f"checkpoint={checkpoint}", "tasks=[language]", "max_batches=1")
        counts.append(len(read_rows(Path(result["rows_path"]))))
    assert counts == [3, 3, 6]


def test_the_size_of_a_batch_changes_nothing_but_speed(evaluate, run_of):
    own = (f"checkpoint={run_of('gpt')}", "tasks=[language]")
    values = [
        evaluate(*own, *more)[1]["tasks"]["language"]
        for more in (("max_batches=4",), ("max_batches=2", "batch_size=6"))
    ]
    assert values[0]["count"] == values[1]["count"]
    assert values[0]["value"] == pytest.approx(values[1]["value"], rel=1e-6)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["checkpoint=null"], ["checkpoint must be"]),
        (["checkpoint=/no/such folder"], ["/no/such folder", "no such folder"]),
        (["checkpoint={gpt}", "tasks=[langage]"], ["'langage'", "language, positions, extrapolation, masked", "mqar"]),
        (["checkpoint={gpt}", "tasks=[]"], ["tasks must name at least one"]),
        (["checkpoint={gpt}", "tasks=[needle]"], ["needle", "trained on text", "data=needle"]),
        (["checkpoint={gpt}", "tasks=[masked]"], ["masked", "hidden tokens", "gpt"]),
        (["checkpoint={bert}", "tasks=[positions]"], ["positions", "encoder"]),
        (["checkpoint={mqar}", "tasks=[language]"], ["language", "trained on mqar"]),
        (["checkpoint={mqar}", "tasks=[copying]"], ["copying", "trained on mqar"]),
        (["checkpoint={mqar}", "data=needle"], ["data", "trained on, mqar", "needle"]),
        (["checkpoint={mqar}", "data=stdlib"], ["data", "no tokenizer"]),
        (["checkpoint={mqar}", "data.vocab_size=999"], ["data.vocab_size", "64", "999"]),
        (["checkpoint={gpt}", "data=mqar"], ["data", "trained on, text", "mqar"]),
        (["checkpoint={gpt}", "max_batches=0"], ["max_batches must be at least 1", "0"]),
        (["checkpoint={gpt}", f"max_batches={2**63}"], ["max_batches must be at least 1 and at most ", str(2**63)]),
        (["checkpoint={gpt}", "sequence_length=513"], ["sequence_length", "512", "513"]),
        (["checkpoint={gpt}", "stepz=3"], ["unknown key 'stepz'"]),
        (["checkpoint={gpt}", "training.steps=3"], ["unknown key 'training'"]),
        (["checkpoint={gpt}", "harness.limit=0"], ["harness: limit must be at least 1"]),
        (["checkpoint={bare}"], ["data must be chosen", "does not say what it was trained on"]),
    ],
    ids=lambda value: " ".join(value) if "=" in value[0] else None,
)
def test_a_mistake_is_one_line_that_names_it(evaluate, run_of, synthetic, tmp_path, more, words):
    model, tokenizer = load_model(run_of("gpt"))
    bare = save_checkpoint(tmp_path / "bare", model=model, tokenizer=tokenizer)
    places = {"gpt": run_of("gpt"), "bert": run_of("bert"), "mqar": synthetic / "mqar", "bare": bare}
    code, _, error = evaluate(*(argument.format(**places) for argument in more))
    assert code == 2, error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not (tmp_path / "rows").exists()


def test_the_harness_is_given_the_model_whose_attention_was_exchanged(evaluate, run_of, monkeypatch):
    asked = []

    def harness(evaluated, config):
        asked.append((evaluated.model.config.attention, config.tasks))
        return {"arc_easy": [Score(metric="acc", value=0.5)]}

    monkeypatch.setattr(recipes.evaluate, "harness", harness)
    monkeypatch.setattr(eval.quality.harness.importlib.util, "find_spec", lambda _: object())
    own = ("attention=linear", "layers=[0]", "tasks=[]", "harness.tasks=[arc_easy]")
    code, result, errors = evaluate(f"checkpoint={run_of('gpt')}", *own)
    assert code == 0, errors
    ((attention, tasks),) = asked
    assert (attention.name, tasks) == ("linear", ("arc_easy",))
    assert result["attention"] == "linear"
    assert result["tasks"]["arc_easy"]["value"] == 0.5
