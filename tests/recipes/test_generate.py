"""`scripts/generate.py`: text as it comes, then one JSON line; mistakes as one line that names them."""

import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from recipes.app import execute
from recipes.generate import main
from zoo.attention.catalog import variant_mapping
from zoo.checkpoints import load_model, save_checkpoint
from zoo.data.tokenizers import BytesTokenizer, Tokenizer
from zoo.generation import GenerationConfig, generate_text
from zoo.generation.row import Row
from zoo.models import build_model, model_config_from_mapping

ROOT = Path(__file__).resolve().parents[2]
BYTES = BytesTokenizer()
KEYS = {
    "text",
    "finish_reason",
    "prompt_tokens",
    "generated_tokens",
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "cache_bytes",
}


def save(folder: Path, family: str, tokenizer: Tokenizer | None = BYTES, *, head_dim: int = 6) -> str:
    mx.random.seed(3)
    sizes = {"num_layers": 2, "hidden_size": 20, "num_heads": 4, "head_dim": head_dim, "intermediate_size": 22}
    mapping: dict[str, Any] = {"family": family, "vocab_size": 270, "max_seq_len": 60, "init_std": 0.8, **sizes}
    model = build_model(model_config_from_mapping({**mapping, "attention": variant_mapping("mha")}))
    save_checkpoint(folder, model=model, tokenizer=tokenizer)
    return str(folder)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> str:
    """A run's folder with two checkpoints of the same model."""
    folder = tmp_path_factory.mktemp("a run") / "checkpoints"
    folder.mkdir()
    save(folder / "step_000002", "llama")
    save(folder / "step_000010", "llama")
    return str(folder.parent)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("encoder") / "bert", "bert")


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, str]:
    """A model with learned positions, and one that was saved without its tokenizer."""
    folder = tmp_path_factory.mktemp("others")
    return {"gpt": save(folder / "gpt", "gpt"), "untold": save(folder / "untold", "llama", tokenizer=None)}


@pytest.fixture
def generate(capsys):
    """Runs the recipe with a command line; gives (code, text on stdout, JSON object or None, text on stderr)."""

    def call(*arguments: str) -> tuple[int, str, Any, str]:
        # Greedy unless asked otherwise: what is compared must not hang on a seed.
        sampled = any(argument.startswith("temperature=") for argument in arguments)
        code = execute("generate", main, arguments if sampled else [*arguments, "temperature=0"])
        captured = capsys.readouterr()
        shown, _, last = captured.out.removesuffix("\n").rpartition("\n")
        # The line end that separates the JSON object is the text's own where it has one.
        text = shown + "\n" if code == 0 and str(json.loads(last)["text"]).endswith("\n") else shown
        return code, text, json.loads(last) if code == 0 else None, captured.err

    return call


def expected(checkpoint: str, prompt: str, **choices: Any) -> str:
    model, tokenizer = load_model(checkpoint)
    return generate_text(model, tokenizer, prompt, GenerationConfig(**choices)).text


def test_text_comes_first_and_the_last_line_is_the_contract(generate, run_dir):
    code, shown, result, _ = generate(f"checkpoint={run_dir}", "prompt=def f(x): {", "max_tokens=15")
    assert code == 0
    assert result.keys() >= KEYS
    assert shown == result["text"] == expected(run_dir, "def f(x): {", max_tokens=15)
    assert (result["prompt_tokens"], result["generated_tokens"], result["finish_reason"]) == (12, 15, "max_tokens")
    assert result["attention"] == "mha"
    assert result["cache_bytes"] > 0


def test_a_run_stands_for_its_newest_checkpoint(generate, run_dir):
    newest = f"{run_dir}/checkpoints/step_000010"
    choices = ("prompt=a", "max_tokens=9")
    assert generate(f"checkpoint={run_dir}", *choices)[1] == generate(f"checkpoint={newest}", *choices)[1]


def test_every_choice_reaches_the_generation(generate, run_dir):
    chosen = {
        "temperature": 0.9,
        "top_k": 50,
        "top_p": 0.95,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "seed": 11,
        "prefill_step_size": 3,
        "max_tokens": 25,
    }
    _, _, result, _ = generate(f"checkpoint={run_dir}", "prompt=abcd", *(f"{k}={v}" for k, v in chosen.items()))
    assert result["text"] == expected(run_dir, "abcd", **chosen)
    assert result["text"] != expected(run_dir, "abcd", **{**chosen, "seed": 12})


def test_without_a_temperature_text_is_sampled_and_repeats(capsys, run_dir):
    texts = []
    for more in ([], [], ["temperature=0.8", "top_p=0.95", "seed=0"], ["seed=1"], ["temperature=0"]):
        assert execute("generate", main, [f"checkpoint={run_dir}", "prompt=abcd", "max_tokens=25", *more]) == 0
        texts.append(json.loads(capsys.readouterr().out.splitlines()[-1])["text"])
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts)) == 3


@pytest.mark.parametrize("more", [["prompt=abc"], ["prompts=[abc,b]"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_endless_text_with_the_json_of_what_was_generated(number, more, generate, run_dir, monkeypatch):
    def count_and_stop(row, token, **facts):
        if row.index == 0 and row._count == 4:
            os.kill(os.getpid(), number)
        return add(row, token, **facts)

    add = Row.add
    monkeypatch.setattr(Row, "add", count_and_stop)
    code, shown, result, error = generate(f"checkpoint={run_dir}", "max_tokens=null", "stop_at_eos=false", *more)
    assert (code, error) == (0, "")
    assert result["interrupted"] is True
    for row in result.get("results", [result]):
        assert row["finish_reason"] == "interrupted"
        assert 5 <= row["generated_tokens"] <= 7
        assert row["text"] in shown


def test_an_encoder_fills_the_masks_of_a_prompt(generate, bert):
    code, shown, result, error = generate(f"checkpoint={bert}", "prompt=ab[MASK]d [MASK]!")
    assert code == 0, error
    assert result.keys() >= KEYS
    assert (result["prompt_tokens"], result["generated_tokens"], result["cache_bytes"]) == (8, 2, 0)
    model, _ = load_model(bert)
    ids = [BYTES.eos_id, *b"ab", BYTES.mask_id, *b"d ", BYTES.mask_id, *b"!"]
    # Only bytes have a text.
    chances = np.array(mx.softmax(model(mx.array([ids]))[0, :, :256], axis=-1))
    for place, guesses in zip((3, 6), result["guesses"], strict=True):
        best = np.argsort(-chances[place])[:5]
        assert [guess["text"] for guess in guesses] == [BYTES.decode([token]) for token in best.tolist()]
        assert [guess["probability"] for guess in guesses] == pytest.approx(chances[place, best].tolist(), rel=1e-4)
    first, second = (guesses[0]["text"] for guesses in result["guesses"])
    assert shown == result["text"] == f"ab{first}d {second}!"


def test_an_encoder_fills_several_prompts(generate, bert):
    _, shown, result, _ = generate(f"checkpoint={bert}", "prompts=['a[MASK]','[MASK][MASK]']")
    single = [generate(f"checkpoint={bert}", f"prompt={prompt}")[2] for prompt in ("a[MASK]", "[MASK][MASK]")]
    assert result["text"] == [each["text"] for each in single]
    assert [row["guesses"] for row in result["results"]] == [each["guesses"] for each in single]
    assert f"--- prompt 2 of 2\n{single[1]['text']}" in shown


def test_a_mask_in_the_prompt_of_a_language_model_is_text(generate, run_dir):
    _, _, result, _ = generate(f"checkpoint={run_dir}", "prompt=[MASK]", "max_tokens=3")
    assert result["prompt_tokens"] == 7


def test_stop_texts_end_the_text(generate, run_dir):
    whole = expected(run_dir, "abc", max_tokens=30, temperature=0.0)
    stop = whole[9:11]
    for argument in (f"stop={stop}", f"stop=['never seen', {json.dumps(stop, ensure_ascii=False)}]"):
        code, shown, result, error = generate(f"checkpoint={run_dir}", "prompt=abc", "max_tokens=30", argument)
        assert code == 0, error
        assert shown == result["text"] == whole[: whole.index(stop)]
        assert result["finish_reason"] == "stop"


def test_prompts_are_continued_in_one_batch(generate, run_dir):
    code, shown, result, _ = generate(f"checkpoint={run_dir}", "prompts=[abc,'',z z]", "max_tokens=12")
    assert code == 0
    texts = [expected(run_dir, prompt, max_tokens=12) for prompt in ("abc", "", "z z")]
    assert result["text"] == texts
    assert result.keys() >= KEYS
    assert (result["prompt_tokens"], result["generated_tokens"]) == (4 + 1 + 4, 36)
    assert [row["text"] for row in result["results"]] == texts
    for number, text in enumerate(texts, start=1):
        assert f"--- prompt {number} of 3\n{text}" in shown


@pytest.mark.parametrize("prompt", ["", "null and void", "${a} $ \\", "é\n", "[1, 2", "key=value", "'"])
def test_a_prompt_is_taken_as_it_is_typed(generate, run_dir, prompt):
    arguments = (f"checkpoint={run_dir}", f"prompt={prompt}", "max_tokens=8", "attention=null")
    code, shown, _, error = generate(*arguments)
    assert code == 0, error
    assert shown == expected(run_dir, prompt, max_tokens=8)


def test_a_prompt_quoted_for_hydra_loses_its_quotes(generate, run_dir):
    assert generate(f"checkpoint={run_dir}", "prompt='a, b'", "max_tokens=8")[1] == expected(
        run_dir, "a, b", max_tokens=8
    )


def test_a_prompt_comes_from_a_file_or_from_standard_input(generate, run_dir, tmp_path, monkeypatch):
    prompt = "def é():\n"
    file = tmp_path / "prompt (1).txt"
    file.write_text(prompt, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(prompt.encode())))
    for source in (file, "-"):
        _, shown, _, _ = generate(f"checkpoint={run_dir}", f"prompt_file={source}", "max_tokens=8")
        assert shown == expected(run_dir, prompt, max_tokens=8)


def test_a_standard_input_that_cannot_be_read_is_one_line(generate, run_dir, tmp_path, monkeypatch):
    # What Python makes of a closed descriptor, and of one that was opened for writing.
    with (tmp_path / "written").open("w") as written:
        for stdin in (None, written):
            monkeypatch.setattr(sys, "stdin", stdin)
            code, _, _, error = generate(f"checkpoint={run_dir}", "prompt_file=-")
            assert (code, error.count("\n")) == (2, 1), error
            assert "prompt_file must be" in error
            assert "None" not in error


def test_a_pipe_that_nobody_writes_to_is_said_to_be_waited_for(generate, run_dir, tmp_path, monkeypatch, caplog):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr("recipes.generate._SILENT_SECONDS", 0.05)

    def write_once_it_is_said():
        while "waiting for prompt_file" not in caplog.text:
            time.sleep(0.01)
        pipe.write_text("abc", encoding="utf-8")

    writer = threading.Thread(target=write_once_it_is_said)
    writer.start()
    _, shown, _, _ = generate(f"checkpoint={run_dir}", f"prompt_file={pipe}", "max_tokens=8")
    writer.join()
    assert str(pipe) in caplog.text
    assert shown == expected(run_dir, "abc", max_tokens=8)


def test_another_attention_takes_the_same_weights(generate, run_dir):
    arguments = (f"checkpoint={run_dir}", "prompt=abcdefgh", "max_tokens=20")
    _, whole, _, _ = generate(*arguments)
    _, windowed, result, _ = generate(*arguments, "attention=swa_masked", "attention.window_size=2")
    assert result["attention"] == "swa_masked"
    assert whole != windowed
    assert generate(*arguments, "attention=mha_manual")[1] == whole


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prompt=a"], ["checkpoint must be"]),
        (["checkpoint=", "prompt=a"], ["checkpoint must be"]),
        (["checkpoint=/no/such (folder)", "prompt=a"], ["/no/such (folder)", "no such folder"]),
        (["checkpoint={run}"], ["prompt must be given", "prompts=", "prompt_file="]),
        (["checkpoint={run}", "prompt=a", "prompts=[b]"], ["exactly one way", "['prompt', 'prompts']"]),
        (["checkpoint={run}", "prompts=[]"], ["prompts must hold at least one"]),
        (["checkpoint={run}", "prompt_file=/no/such/file"], ["prompt_file", "/no/such/file"]),
        (
            ["checkpoint={run}", "prompt_file=~no_such_user/prompt"],
            ["prompt_file", "home folder", "~no_such_user/prompt"],
        ),
        (["checkpoint=~no_such_user/run", "prompt=a"], ["checkpoint", "home folder", "~no_such_user/run"]),
        (["checkpoint={bert}", "prompt=a"], ["prompt must hold [MASK]", "encoder", "'a'"]),
        (["checkpoint={bert}", "prompt=[MASK]" + 60 * "a"], ["at most model.max_seq_len = 60 tokens; got 62"]),
        (["checkpoint={gpt}", "prompt=" + 70 * "a"], ["fewer tokens than model.max_seq_len = 60; got 71"]),
        (["checkpoint={untold}", "prompt=a"], ["must hold a tokenizer"]),
        (["checkpoint={run}", "prompt=a", "max_tokens=0"], ["max_tokens must be at least 1 or null", "0"]),
        (["checkpoint={run}", "prompt=a", "temperature=-1"], ["temperature must be at least 0", "-1"]),
        (["checkpoint={run}", "prompt=a", "top_p=1.2"], ["top_p must be in (0, 1]", "1.2"]),
        (["checkpoint={run}", "prompt=a", "max_tokens=many"], ["max_tokens must be a whole number", "many"]),
        (["checkpoint={run}", "prompt=a", "temprature=1"], ["temprature", "did you mean 'temperature'"]),
        (["checkpoint={run}", "prompt=a", "attention=mhaa"], ["mhaa", "choices", "mha_manual"]),
        (
            ["checkpoint={run}", "prompt=a", "attention.window_size=3"],
            ["attention must be chosen", "attention=NAME attention.window_size=3"],
        ),
        (["checkpoint={run}", "prompt=a", "dtype=int8"], ["dtype", "int8", "float32"]),
    ],
)
def test_mistakes_are_one_line_that_names_them(generate, run_dir, bert, others, arguments, words):
    code, _, _, error = generate(*(argument.format(run=run_dir, bert=bert, **others) for argument in arguments))
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words), error


def test_a_prompt_file_that_is_no_text_is_refused(generate, run_dir, tmp_path):
    file = tmp_path / "image"
    file.write_bytes(b"ab\xff")
    code, _, _, error = generate(f"checkpoint={run_dir}", f"prompt_file={file}")
    assert code == 2
    assert "byte 3" in error
