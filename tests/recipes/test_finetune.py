"""`finetune.py`: every method end to end, resumed exactly, and what it leaves is ready to use."""

import json
import os
import shutil
import signal
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import recipes.finetune
from recipes.app import execute
from recipes.evaluate import main as evaluate_main
from recipes.finetune import main
from zoo import load_model
from zoo.attention.catalog import variant
from zoo.checkpoints import History, load_checkpoint, load_whole, save_checkpoint
from zoo.config import UserError
from zoo.data.tokenizers import BytesTokenizer
from zoo.models import build_model, model_config_from_mapping

LLAMA = {
    "family": "llama",
    "vocab_size": 259,
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "intermediate_size": 64,
    "max_seq_len": 64,
}
TINY = [
    "optimizer.learning_rate=3e-3",
    "training.steps=6",
    "training.batch_size=3",
    "training.sequence_length=37",
    "training.log_every=2",
    "training.eval_every=2",
    "training.eval_batches=2",
    "training.checkpoint_every=3",
    "training.sample_tokens=0",
    "training.compile=false",
    "lora.rank=3",
    "quantization.group_size=32",
]
HEAL = ["attention=swa", "attention.window_size=5", "distillation.attention_steps=3", "distillation.loss=kl"]
METHODS = ("full", "lora", "dora", "qlora")


def build(**fields):
    return build_model(model_config_from_mapping({**LLAMA, "attention": variant("mha").as_mapping(), **fields}))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    mx.random.seed(5)
    return save_checkpoint(tmp_path_factory.mktemp("base") / "base", model=build(), tokenizer=BytesTokenizer())


@pytest.fixture
def finetune(base, text_corpus, tmp_path, tmp_path_factory, capsys):
    """Runs `finetune.py` in this process: exit code, JSON or None, stderr."""
    cache = tmp_path_factory.getbasetemp() / "token-cache"

    def run(*more: str, folder: str = "run"):
        places = [f"run_dir={tmp_path / folder}", "data=text", f"data.path={text_corpus}", f"data.cache_dir={cache}"]
        code = execute("finetune", main, [f"checkpoint={base}", *TINY, *places, *more])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]) if captured.out else None, captured.err

    return run


@pytest.fixture
def evaluated(tmp_path, capsys):
    """Runs `evaluate.py` in this process: what it found of each task, or the line of an error."""

    def run(*typed: str):
        code = execute("evaluate", evaluate_main, [f"run_dir={tmp_path / 'rows'}", "compile=false", *typed])
        captured = capsys.readouterr()
        return json.loads(captured.out.splitlines()[-1])["tasks"] if code == 0 else captured.err.splitlines()[-1]

    return run


def weights(folder):
    return {name: np.array(array) for name, array in tree_flatten(load_checkpoint(folder).model.parameters())}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_leaves_a_model_that_is_ready_to_use(finetune, base, tmp_path, method):
    code, result, error = finetune(f"method={method}", "training.steps=20", "training.eval_every=null")
    assert code == 0, error
    assert result["train_loss"] < result["first_train_loss"] - 0.1
    assert (result["method"], result["attention"], result["surgery"]) == (method, "mha", None)
    loaded = load_checkpoint(tmp_path / "run")
    trained = dict(tree_flatten(loaded.model.trainable_parameters()))
    assert result["trainable_parameters"] == sum(array.size for array in trained.values())
    assert all(name.endswith(("lora_a", "lora_b", ".m")) for name in trained) == (method != "full")
    assert (loaded.folder / "model.safetensors").exists() == (method == "full")
    assert (loaded.folder / "adapters.safetensors").exists() == (method != "full")
    tokens = mx.array([loaded.tokenizer.encode("def main")])
    model, _ = load_model(tmp_path / "run", attention="mha_manual")
    assert mx.abs(model(tokens) - load_model(base)[0](tokens)).max() > 1e-2
    assert mx.allclose(load_whole(tmp_path / "run").model(tokens), model(tokens), atol=1e-5)


def test_a_mistake_in_the_settings_of_a_run_says_whose_they_are(finetune):
    assert finetune("training.steps=1")[0] == 0
    code, _, errors = finetune("resume=auto", "training.batch_size=0")
    assert code == 2
    assert "(settings are those of the run in " in errors.splitlines()[-1]


def test_quantized_weights_are_not_trained_and_it_is_said(finetune, tmp_path):
    model = build()
    nn.quantize(model, group_size=32, bits=4)
    quantized = save_checkpoint(tmp_path / "quantized", model=model, tokenizer=BytesTokenizer())
    code, result, errors = finetune(f"checkpoint={quantized}", "method=full")
    assert (code, result) == (2, None)
    assert errors.splitlines()[-1].endswith("quantized weights cannot be trained; got 'full'")
    code, result, errors = finetune(f"checkpoint={quantized}", "method=lora", "training.steps=2", folder="lora")
    assert code == 0, errors
    assert result["trainable_parameters"] < 10_000


@pytest.mark.parametrize("method", ["full", "qlora"])
def test_a_run_in_pieces_ends_bit_identical_to_one_in_one_and_keeps_its_best(finetune, tmp_path, method):
    steady = ["optimizer.schedule=constant", "optimizer.warmup_fraction=0"]
    options = [f"method={method}", "lora.dropout=0.2", "training.keep_checkpoints=1", *steady]
    _, whole, error = finetune(*options, folder="whole")
    assert whole is not None, error
    for steps in (1, 4, 6):
        _, parts, error = finetune(*options, "resume=auto", f"training.steps={steps}", folder="parts")
    assert (parts["steps"], parts["resumed_from_step"]) == (6, 4), error
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    kept = {path.name for path in (tmp_path / "parts" / "checkpoints").iterdir()}
    assert kept == {Path(parts["checkpoint"]).name, Path(parts["best_checkpoint"]).name}
    rows = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["val_loss"] for row in rows if "val_loss" in row}
    assert Path(parts["best_checkpoint"]).name == f"step_{min(losses, key=losses.get):06d}"


def test_adapters_are_refused_on_another_base_and_an_adapted_base_is_fused(finetune, base, tmp_path):
    moved = shutil.copytree(base, tmp_path / "moved")
    assert finetune(f"checkpoint={moved}", "training.steps=1")[0] == 0
    again, _, error = finetune(f"checkpoint={tmp_path / 'run'}", "training.steps=1", folder="again")
    assert again == 0, error
    shutil.rmtree(moved)
    with pytest.raises(UserError, match=r"adapters\.base must be the checkpoint that was adapted; .*no such folder"):
        load_checkpoint(tmp_path / "again")
    save_checkpoint(moved, model=build(), tokenizer=BytesTokenizer())
    with pytest.raises(UserError, match=r"adapters\.base must be .*has other weights$"):
        load_checkpoint(tmp_path / "run")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["checkpoint=null"], "checkpoint must be the folder"),
        (["checkpoint=/nowhere"], "no such folder"),
        (["method=lor"], "method must be one of full, lora, dora, qlora"),
        (["lora.rank=0"], "lora: rank must be at least 1"),
        (
            ["lora.keys=[self_attn.qkv]"],
            "lora.keys must name linear layers of the model's blocks; got 'self_attn.qkv' (ch",
        ),
        (["lora.num_layers=3"], "lora.num_layers must be at most the model's 2"),
        (["method=qlora", "quantization.bits=7"], "quantization: bits must be one"),
        (
            ["method=qlora", "quantization.group_size=128"],
            "quantization.group_size must divide the",
        ),
        (["lora.dropout=0.1", "training.gradient_checkpointing=true"], "lora.dropout must be 0 beside"),
        (["distillation.attention_steps=2"], "attention must be another one for distillation.attention_steps"),
        (
            ["attention=swa", "distillation.attention_steps=7"],
            "attention_steps must be at most the 6 of training.steps",
        ),
        (["attention=swa", "distillation.loss=mse"], "distillation.loss must be one of next_token, kl"),
        (["attention=swa", *HEAL[2:], "lora.keys=[mlp.up_proj]"], "lora must leave something to train in"),
        (["data=mqar"], "data must be one of its choices; got 'mqar' (choices: examples, "),
        (["attention=swat"], "attention must be one of its choices; got 'swat'"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(finetune, tmp_path, typed, message):
    code, result, error = finetune(*typed)
    assert (code, result) == (2, None)
    (line,) = [line for line in error.splitlines() if line.startswith("error:")]
    assert message in line
    assert not (tmp_path / "run").exists()


def test_keep_is_a_word_for_the_attention_of_the_checkpoint_and_a_name_is_another(finetune):
    assert finetune("attention=keep", "training.steps=1")[1]["attention"] == "mha"
    assert finetune("attention=swa", "training.steps=1", folder="other")[1]["attention"] == "swa"


def test_a_distillation_killed_in_either_stage_or_between_them_ends_bit_identical(finetune, tmp_path, monkeypatch):
    """Of all weights; the campaign of kills has adapters."""
    options = ["method=full", "training.checkpoint_every=1", *HEAL]
    code, whole, error = finetune(*options, folder="whole")
    assert code == 0, error
    save, kills = History.save, [2, 3, 5]

    def killed(history, step, **what):
        save(history, step, **what)
        if step in kills:
            kills.remove(step)
            raise RuntimeError("killed")

    monkeypatch.setattr(History, "save", killed)
    while kills:
        with pytest.raises(RuntimeError, match="killed"):
            finetune(*options, "resume=auto", folder="parts")
    _, parts, error = finetune(*options, "resume=auto", folder="parts")
    assert parts["resumed_from_step"] == 5, error
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(np.array_equal(one[name], other[name]) for name in one)
    same = [name for name in whole if "loss" in name or ("tokens" in name and "second" not in name)]
    assert {name: whole[name] for name in same} == {name: parts[name] for name in same}
    assert whole["original_tokens"] == whole["tokens"] == 6 * 3 * 37
    assert (whole["train_loss"], whole["first_train_loss"]) == (None, None)
    rows = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "attention_loss/layer_1" in row] == [2, 3]
    assert [row["step"] for row in rows if "kl_loss" in row] == [4, 6]
    assert [row["step"] for row in rows if row.get("val_bits_per_byte")] == [2, 3, 4, 6]


def test_a_wish_to_stop_is_heard_while_the_end_of_the_first_stage_is_saved(finetune, monkeypatch):
    save = History.save

    def asked_to_stop(history, step, **what):
        save(history, step, **what)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(History, "save", asked_to_stop)
    code, result, error = finetune("method=full", "training.checkpoint_every=3", *HEAL)
    assert (code, result["steps"], result["stopped_by"]) == (0, 3, "signal"), error
    assert result["attention_loss"] is not None
    assert finetune("method=full", "resume=auto", *HEAL)[1]["steps"] == 6


def test_adapters_of_an_attention_that_learns_keep_what_it_learnt(finetune, tmp_path):
    code, result, error = finetune(
        "attention=learned_sinks", "layers=[-1]", "distillation.attention_steps=3", "optimizer.learning_rate=0.1"
    )
    assert code == 0, error
    healed, base = load_checkpoint(tmp_path / "run").model, load_checkpoint(result["base"]).model
    assert healed.config.attention.layer(0) == base.config.attention
    assert result["surgery"]["new"] == {"sinks": 1}
    whole = "layers.1.self_attn.sinks"
    assert healed.adapters.whole == (whole,)
    exchanged = load_model(result["base"], attention="learned_sinks", layers=[1])[0]
    assert mx.abs(healed.layers[1].self_attn.sinks - exchanged.layers[1].self_attn.sinks).max() > 1e-2
    assert not (tmp_path / "run" / "peft").exists()
    more = finetune(
        "attention=learned_sinks", "layers=[-1]", "lora.rank=8", f"adapters={tmp_path / 'run'}", folder="more"
    )
    assert more[0] == 0, more[2]
    full, _ = load_model(tmp_path / "run")
    tokens = mx.array([[5, 7, 9]])
    assert mx.allclose(full(tokens), load_whole(tmp_path / "run").model(tokens), atol=1e-5)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_conversations_are_learnt_and_the_template_stays_with_the_model(finetune, evaluated, tmp_path):
    for name, count in (("train", 7), ("valid", 2)):
        talk = [{"role": role, "content": text} for role, text in (("user", "a?"), ("assistant", "b"))]
        lines = [json.dumps({"messages": talk * (number % 3 + 1)}) for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "t.jinja").write_text(CHATML, encoding="utf-8")
    options = ["data=examples", f"data.path={tmp_path}", f"data.chat_template={tmp_path / 't.jinja'}"]
    steady = ["optimizer.schedule=constant", "optimizer.warmup_fraction=0", "training.sequence_length=200"]
    code, result, error = finetune(*options, *steady)
    assert code == 0, error
    assert result["train_loss"] < result["first_train_loss"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["val_bits_per_byte"] > 0
    for steps in (3, 6):
        assert finetune(*options, *steady, "resume=auto", f"training.steps={steps}", folder="parts")[0] == 0
    one, other = weights(tmp_path / "run"), weights(tmp_path / "parts")
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert load_checkpoint(tmp_path / "run").tokenizer.chat_source == CHATML
    found = evaluated(f"checkpoint={tmp_path / 'run'}", "max_batches=2")["language"]
    assert found["value"] == pytest.approx(rows[-1]["val_bits_per_byte"], rel=1e-5)
    refused = evaluated(f"checkpoint={tmp_path / 'run'}", "tasks=[positions]")
    assert "positions must fit the checkpoint; it asks for running text" in refused
    changed = finetune(*options, *steady, "resume=auto", "data.loss_on=last", folder="parts")
    assert "resume: data.loss_on must stay 'assistant' as in the run" in changed[2]
    packed = finetune(*options, *steady, "data.pack=true", "training.sequence_length=300", folder="packed")
    assert packed[1]["train_loss"] < packed[1]["first_train_loss"]


def test_adapters_for_peft_are_there_before_a_run_counts_as_finished(finetune, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(recipes.finetune, "write_peft", None)  # Fails, as if the run were killed there.
        with pytest.raises(TypeError):
            finetune("method=lora", "training.steps=2")
    code, _, error = finetune("method=lora", "training.steps=2", "resume=auto")
    assert code == 0, error
    assert (tmp_path / "run" / "peft" / "adapter_model.safetensors").is_file()


def test_a_training_goes_on_from_adapters_and_leaves_them_for_peft_too(finetune, tmp_path):
    assert finetune("method=dora", "training.steps=2")[0] == 0
    code, result, error = finetune("method=dora", f"adapters={tmp_path / 'run'}", "lora.rank=8", folder="more")
    assert code == 0, error
    trained = dict(tree_flatten(load_checkpoint(tmp_path / "more").model.trainable_parameters()))
    assert result["trainable_parameters"] == sum(array.size for array in trained.values())
    again = finetune("method=dora", f"adapters={tmp_path / 'more' / 'peft'}", "lora.rank=8", folder="third")
    assert again[1]["first_train_loss"] < result["first_train_loss"]
    assert (
        "method must be dora, as the adapters are; got 'lora'"
        in finetune(f"adapters={tmp_path / 'run'}", folder="x")[2]
    )
    wrong = finetune("method=dora", f"adapters={tmp_path / 'run'}", "lora.rank=5", folder="wrong")
    assert "lora must be left out beside adapters" in wrong[2]
