"""Scripts on models in Hugging Face's layout."""

import json
from typing import Any

import mlx.core as mx
import pytest

from eval.rows import read_rows
from recipes import evaluate, generate
from recipes.app import execute
from tests.zoo.checkpoints.huggingface.references import copied, expected, model_folder
from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint


@pytest.fixture
def run(capsys):
    """Runs a recipe; gives (code, JSON object or None, text on stderr)."""

    def call(recipe, *arguments):
        capsys.readouterr()
        code = execute(recipe.__name__.rpartition(".")[2], recipe.main, list(map(str, arguments)))
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]) if code == 0 else None, captured.err

    return call


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_generate_continues_a_prompt_as_transformers_does(run, name):
    prompt, text = str(expected(name)["prompt"]), str(expected(name)["greedy"])
    asked = (f"checkpoint={model_folder(name)}", f"prompt={prompt}", "temperature=0", "max_tokens=20")
    code, result, error = run(generate, *asked)
    assert code == 0, error
    assert result["text"] == text
    assert result["dtype"] == "float32"
    assert result["attention"] == ("swa" if name == "mistral" else "mha")


def test_generate_exchanges_the_attention(run):
    asked = (
        f"prompt={expected('mistral')['prompt']}",
        "temperature=0",
        "max_tokens=20",
        f"checkpoint={model_folder('mistral')}",
    )
    texts = [run(generate, *asked, f"attention={choice}")[1]["text"] for choice in ("mha", "swa_masked")]
    # The shipped window is longer than the text.
    assert texts[0] == texts[1] != str(expected("mistral")["greedy"])
    # What it learns begins so that it disturbs least.
    assert run(generate, *asked, "attention=learned_sinks")[1]["text"] == texts[0]


def test_generate_fills_the_masks_of_an_encoder_with_a_head_and_refuses_one_without(run, tmp_path):
    code, result, error = run(generate, f"checkpoint={model_folder('bert')}", "prompt=the [MASK] sat")
    assert code == 0, error
    assert len(result["guesses"]) == 1
    folder = copied("bert_encoder", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((model_folder("bert") / name).read_bytes())
    code, _, error = run(generate, f"checkpoint={folder}", "prompt=the [MASK] sat")
    assert (code, error.count("\n")) == (2, 1)
    assert "must have a masked-token head" in error


@pytest.fixture
def lossless(tmp_path):
    """A model whose tokenizer gives every text back."""
    folder = copied("qwen2", tmp_path)
    path = folder / "model.safetensors"
    tensors: Any = mx.load(str(path))
    name = "model.embed_tokens.weight"
    mx.save_safetensors(str(path), {**tensors, name: mx.concatenate([tensors[name]] * 3)})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 3 * config["vocab_size"]}))
    byte_level_checkpoint(folder)
    return folder


def test_evaluate_judges_a_foreign_model_on_a_text_that_is_named(run, lossless, tmp_path):
    (tmp_path / "text").mkdir()
    for number in range(20):
        (tmp_path / "text" / f"{number}.txt").write_text(f"the cat sat on a mat, and dog number {number} ran by")
    asked = (
        f"checkpoint={lossless}",
        f"run_dir={tmp_path / 'rows'}",
        "compile=false",
        "sequence_length=9",
    )
    code, _, error = run(evaluate, *asked)
    assert (code, error.count("\n")) == (2, 1)
    assert "data must be chosen, as in data=text data.path=FILE" in error
    data = ("data=text", f"data.path={tmp_path / 'text'}", f"data.cache_dir={tmp_path / 'cache'}", "max_batches=2")
    results = [run(evaluate, *asked, *data, "tasks=[language]") for _ in range(2)]
    assert [code for code, _, _ in results] == [0, 0], results[0][2]
    assert results[0][1]["tasks"] == results[1][1]["tasks"]
    assert results[0][1]["tasks"]["language"]["value"] > 0
    path = tmp_path / "rows" / "rows.jsonl"
    # Asked again of the same content, its rows are the same ones.
    assert len(read_rows(path)) == len(path.read_text().splitlines()) // 2
