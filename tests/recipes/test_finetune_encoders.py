"""Encoders are fine-tuned: to guess masked tokens, or to classify; a classifier keeps its labels and says them."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from recipes.app import execute
from recipes.convert import main as convert_main
from recipes.evaluate import main as evaluate_main
from recipes.finetune import main as finetune_main
from recipes.generate import main as generate_main
from tests.zoo.checkpoints.huggingface.references import model_folder
from zoo.checkpoints import load_checkpoint, load_whole, save_checkpoint
from zoo.models.classification import as_classifier

BASE = model_folder("bert")
TINY = [
    "optimizer.learning_rate=1e-2",
    "optimizer.schedule=constant",
    "optimizer.warmup_fraction=0",
    "training.steps=16",
    "training.batch_size=5",
    "training.sequence_length=21",
    "training.log_every=4",
    "training.eval_every=8",
    "training.checkpoint_every=8",
    "training.compile=false",
    "lora.rank=3",
]


@pytest.fixture
def command(tmp_path, capsys):
    def run(name, main, *typed):
        code = execute(name, main, list(typed))
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]) if captured.out else None, captured

    return run


@pytest.fixture
def finetune(command, tmp_path):
    def run(records, *typed, folder="run", checkpoint=BASE):
        path = tmp_path / f"{folder}.jsonl"
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        places = [f"checkpoint={checkpoint}", f"data.path={path}", f"run_dir={tmp_path / folder}"]
        options = [f"data.cache_dir={tmp_path / 'cache'}", "data.validation_fraction=0.3"]
        return command("finetune", finetune_main, *TINY, *places, *options, *typed)

    return run


def told_by_a_word(labels=("good", "bad")):
    """Texts of differing lengths; the second word says what they are."""
    words = ("the", "a", "of", "and")
    pairs = [(label, word) for label in (0, 1) for word in words for _ in range(3)]
    texts = [
        f"{word} {('yes', 'no')[label]} {word * (number % 4)} {number}" for number, (label, word) in enumerate(pairs)
    ]
    return [{"text": text, "label": labels[label]} for text, (label, _) in zip(texts, pairs, strict=True)]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_labels_are_learnt_kept_and_said_of_a_text(finetune, command, tmp_path, method):
    code, result, captured = finetune(told_by_a_word(), f"method={method}")
    assert code == 0, captured.err
    assert result["train_loss"] < result["first_train_loss"]
    assert result["val_accuracy"] == 1
    assert result["val_bits_per_byte"] is None
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.model.config.labels == ("bad", "good")
    assert (loaded.folder / "adapters.safetensors").exists() == (method == "lora")
    whole = load_whole(tmp_path / "run")
    tokens_BL = mx.array([loaded.tokenizer.encode_pair("the yes")[0]])
    assert mx.allclose(whole.model.classify(tokens_BL), loaded.model.classify(tokens_BL), atol=1e-5)
    for text, label in (("the yes", "good"), ("the no", "bad")):
        code, said, captured = command("generate", generate_main, f"checkpoint={tmp_path / 'run'}", f"prompt={text}")
        assert (code, said["text"], said["finish_reason"]) == (0, label, "classified"), captured.err
        assert next(iter(said["probabilities"])) == label
        assert sum(said["probabilities"].values()) == pytest.approx(1)
        assert captured.out.startswith(f"{label} ({label} 0.")
    code, found, captured = command("evaluate", evaluate_main, f"checkpoint={tmp_path / 'run'}", f"run_dir={tmp_path}")
    assert code == 0, captured.err
    assert found["tasks"].keys() == {"classification"}
    figures = {each["metric"]: each["value"] for each in found["tasks"]["classification"]["details"]}
    assert (figures["accuracy"], figures["loss"]) == (
        result["val_accuracy"],
        pytest.approx(result["val_loss"], rel=1e-5),
    )
    if method == "full":
        return
    for steps in (8, 16):
        parts = finetune(told_by_a_word(), f"method={method}", "resume=auto", f"training.steps={steps}", folder="parts")
    assert parts[1]["resumed_from_step"] == 8, parts[2].err
    one, other = (dict(tree_flatten(load_checkpoint(tmp_path / each).model.parameters())) for each in ("run", "parts"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("labels", "typed", "message"),
    [
        (["good"], [], "data: labels must be two different ones at least; got ['good']"),
        ([0, True], [], "'label' must be a name or a whole number; got True"),
        (
            [0, 1],
            ["data.format=text"],
            "data must be texts with labels, or a corpus of text, as data=text, for an encoder",
        ),
        ([0, 1], ["data.pack=true"], "data.pack must be false for texts to classify"),
        ([0, 1], [f"checkpoint={model_folder('llama')}"], "checkpoint must be an encoder to classify texts"),
    ],
)
def test_what_cannot_be_learnt_as_labels_is_one_line(finetune, tmp_path, labels, typed, message):
    records = [{"text": f"a {number}", "label": labels[number % len(labels)]} for number in range(9)]
    code, result, captured = finetune(records, *typed)
    assert (code, result) == (2, None)
    assert message in captured.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_masked_tokens_are_learnt_with_adapters(command, tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for number in range(4):
        (text / f"{number}.txt").write_text("the cat sat on the mat " * 20, encoding="utf-8")
    places = [f"checkpoint={BASE}", f"run_dir={tmp_path / 'run'}", f"data.cache_dir={tmp_path / 'cache'}"]
    corpus = ["data=text", f"data.path={text}", "data.validation_fraction=0.3"]
    code, result, captured = command("finetune", finetune_main, *TINY, *places, *corpus)
    assert code == 0, captured.err
    assert result["train_loss"] < result["first_train_loss"] - 0.1
    assert result["val_accuracy"] > 0
    filled = command("generate", generate_main, f"checkpoint={tmp_path / 'run'}", "prompt=the [MASK] sat")
    assert filled[1]["guesses"], filled[2].err


def test_an_encoder_without_a_masked_token_head_learns_no_plain_text(command, finetune, tmp_path):
    assert finetune(told_by_a_word(), "training.steps=1", "training.eval_every=null")[0] == 0
    (tmp_path / "t.txt").write_text("a b " * 99, encoding="utf-8")
    typed = [
        f"checkpoint={tmp_path / 'run'}",
        f"run_dir={tmp_path / 'x'}",
        "data=text",
        f"data.path={tmp_path / 't.txt'}",
    ]
    code, _, captured = command("finetune", finetune_main, *TINY, *typed, f"data.cache_dir={tmp_path / 'cache'}")
    assert code == 2
    assert "checkpoint must have a masked-token head to learn from plain text" in captured.err.splitlines()[-1]


def test_the_layers_of_a_classifier_are_matched_and_its_classes_have_no_original(finetune):
    swap = ["attention=linear", "training.steps=14", "training.eval_every=null"]
    code, result, captured = finetune(
        told_by_a_word(), *swap, "distillation.attention_steps=12", "distillation.attention_learning_rate=1e-3"
    )
    assert code == 0, captured.err
    assert result["attention_loss"] < result["first_attention_loss"]
    assert result["original_tokens"] < result["tokens"]
    code, _, captured = finetune(told_by_a_word(), *swap, "distillation.loss=kl", folder="kl")
    assert code == 2
    assert "distillation.loss must be next_token where texts are classified" in captured.err


def test_a_classifier_is_evaluated_on_other_texts_with_its_own_labels_only(command, finetune, tmp_path):
    assert finetune(told_by_a_word(), "training.eval_every=null")[0] == 0
    others = tmp_path / "others.jsonl"
    places = [f"checkpoint={tmp_path / 'run'}", f"run_dir={tmp_path}", f"data.cache_dir={tmp_path / 'cache'}"]
    typed = [*places, "data=examples", f"data.path={others}", "data.validation_fraction=0.5"]
    # Labels that are wrong on purpose, and some that the classifier does not have.
    for labels, expected in ((("bad", "good"), 0), ((1, 0), 1)):
        others.write_text("\n".join(map(json.dumps, told_by_a_word(labels))), encoding="utf-8")
        code, found, captured = command("evaluate", evaluate_main, *typed)
        assert code == 0, captured.err
        assert found["tasks"]["classification"]["value"] == expected
    others.write_text("\n".join(map(json.dumps, told_by_a_word(("good", "fair")))), encoding="utf-8")
    code, _, captured = command("evaluate", evaluate_main, *typed)
    assert code == 2
    assert "labels must be the classifier's; got 'fair' (choices: ('bad', 'good'))" in captured.err.splitlines()[-1]
    others.write_text("\n".join(json.dumps({"text": f"a {number}"}) for number in range(9)), encoding="utf-8")
    code, _, captured = command("evaluate", evaluate_main, *typed)
    assert code == 2
    assert "data must be texts with labels for a classifier" in captured.err.splitlines()[-1]


@pytest.mark.parametrize("masked_token_head", [True, False])
def test_exchanging_the_attention_of_a_classifier_is_measured_on_its_classes(
    command, finetune, tmp_path, masked_token_head
):
    """An encoder need not have a masked-token head for that."""
    base = BASE
    if not masked_token_head:
        loaded = load_whole(BASE)
        bare = as_classifier(loaded.model, ("bad", "good"))
        base = save_checkpoint(tmp_path / "bare", model=bare, tokenizer=loaded.tokenizer)
    swapped = ["attention=swa", "attention.window_size=2", "training.steps=2"]
    code, result, captured = finetune(told_by_a_word(), *swapped, checkpoint=base)
    assert code == 0, captured.err
    damage = result["surgery"]["damage"]
    assert damage["kl_nats_per_token"] > 0
    assert (damage["bits_per_byte_before"], damage["tokens"]) == (None, 8)
    places = [f"checkpoint={tmp_path / 'run'}", f"run_dir={tmp_path}", "tasks=[surgery]"]
    for attention, changes in (("mha", True), ("swa", False)):
        typed = [f"attention={attention}", *(["attention.window_size=2"] if attention == "swa" else [])]
        code, found, captured = command("evaluate", evaluate_main, *places, *typed)
        assert code == 0, captured.err
        assert (found["tasks"]["surgery"]["value"] > 1e-9) == changes
    out = [f"checkpoint={tmp_path / 'run'}", f"out={tmp_path / 'out'}", "attention=mha"]
    code, _, captured = command("convert", convert_main, *out)
    assert code == 2
    assert "is a classifier, which predicts no tokens" in captured.err.splitlines()[-1]
    assert command("convert", convert_main, *out, "surgery.batches=0")[0] == 0


def test_encoders_are_asked_about_nothing_that_means_nothing_to_them(command, finetune, tmp_path):
    assert finetune(told_by_a_word(), "training.eval_every=null")[0] == 0
    text = tmp_path / "texts"
    text.mkdir()
    (text / "a.txt").write_text("a b " * 99, encoding="utf-8")
    rows = [f"run_dir={tmp_path}", f"data.cache_dir={tmp_path / 'cache'}", "data.validation_fraction=0.5"]
    for checkpoint, data, message in (
        (tmp_path / "run", ["data=text", f"data.path={text}"], "data must be texts with labels for a classifier"),
        (
            BASE,
            ["data=examples", f"data.path={tmp_path / 'run.jsonl'}", "data.format=text"],
            "data must be running text",
        ),
    ):
        code, _, captured = command("evaluate", evaluate_main, f"checkpoint={checkpoint}", *rows, *data)
        assert code == 2
        assert message in captured.err.splitlines()[-1]
