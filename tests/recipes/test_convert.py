"""`convert.py`: what it writes is whole and equal, what it did is measured, and an interruption leaves nothing."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_map
from mlx_lm.utils import load_model as load_in_mlx_lm

from recipes.app import execute
from recipes.convert import main
from recipes.generate import main as generate
from tests.full_disk import FullDisk
from tests.zoo.checkpoints.huggingface.references import copied
from tests.zoo.checkpoints.saved import TOKENIZER, small_model
from zoo.checkpoints import load_checkpoint, load_whole, save_checkpoint
from zoo.checkpoints.adapters import write_adapters
from zoo.checkpoints.foreign_adapters import load_adapters
from zoo.models.adapters import Adapters, LoRAConfig, attach_adapters, fuse_adapters

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = ROOT / "tests" / "references" / "peft"
ROW_BL = mx.array([[256, 104, 101, 108, 108, 111]])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    model = small_model(family="llama", hidden_size=32, num_heads=2, head_dim=16, max_seq_len=64)
    return save_checkpoint(tmp_path_factory.mktemp("source") / "source", model=model, tokenizer=TOKENIZER)


@pytest.fixture
def convert(source, tmp_path, text_corpus, capsys):
    """Runs `convert.py` in this process: exit code, JSON or None, stderr."""

    def run(*more, out="out", checkpoint=source):
        text = ["data=text", f"data.path={text_corpus}", "batch_size=2", "sequence_length=33"]
        code = execute("convert", main, [f"checkpoint={checkpoint}", f"out={tmp_path / out}", *text, *more])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]) if captured.out else None, captured.err

    return run


def logits(folder):
    return load_checkpoint(folder).model(ROW_BL)


@pytest.mark.parametrize("form", ["huggingface", "zoo"])
def test_a_model_comes_out_as_it_was(convert, source, tmp_path, form):
    (tmp_path / "out").mkdir()
    code, result, error = convert(f"format={form}")
    assert (code, result["format"]) == (0, form), error
    assert mx.array_equal(logits(source), logits(result["out"]))
    assert result["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_surgery_and_quantization_are_done_and_measured(convert, tmp_path):
    code, result, error = convert("attention=swa", "attention.window_size=3", "layers=[-1]", "quantization.mode=mxfp4")
    assert code == 0, error
    assert (result["surgery"]["layers"], result["quantization"]["matrices"]) == ([1], 14)
    for each in (result["surgery"]["damage"], result["quantization"]["damage"]):
        assert each["kl_nats_per_token"] > 0
        assert each["tokens"] > 2 * 33
    theirs, _ = load_in_mlx_lm(tmp_path / "out", trust_remote_code=True)
    assert mx.abs(theirs(ROW_BL) - logits(result["out"])).max() < 1e-4
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "--trust-remote-code",
        "window_size = 3",
        "mxfp4, 4 bits",
        f"{result['surgery']['damage']['tokens']:.0f}",
    ):
        assert said in card
    assert "license" not in card
    code, again, error = convert("dequantize=true", out="plain", checkpoint=tmp_path / "out")
    assert code == 0, error
    assert "quantization" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert mx.abs(logits(again["out"]) - logits(result["out"])).max() < 1e-4


def test_the_card_of_the_source_says_the_license(convert, tmp_path):
    folder = copied("llama", tmp_path)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags: [other]\n---\n# Else\n")
    assert convert(checkpoint=folder)[0] == 0
    (folder / "README.md").write_text("no front matter")
    assert convert(checkpoint=folder, out="again")[0] == 0
    assert "license: apache-2.0\n" in (tmp_path / "out" / "README.md").read_text()
    assert "license" not in (tmp_path / "again" / "README.md").read_text()


def test_what_was_quantized_cannot_be_once_more(convert, tmp_path):
    assert convert("quantization.bits=8", "quantization.group_size=32", "surgery.batches=0")[0] == 0
    code, _, error = convert("quantization.bits=4", out="twice", checkpoint=tmp_path / "out")
    assert code == 2
    assert "quantized already (or give dequantize=true)" in error.splitlines()[-1]


def test_adapters_of_other_libraries_are_put_into_the_weights(convert, tmp_path):
    base, adapters = ADAPTERS / "base", ADAPTERS / "lora"
    code, result, error = convert(f"adapters={adapters}", checkpoint=base)
    assert code == 0, error
    loaded = load_whole(base)
    load_adapters(loaded.model, adapters, base=str(base))
    fuse_adapters(loaded.model)
    assert mx.array_equal(load_checkpoint(result["out"]).model(ROW_BL % 31), loaded.model(ROW_BL % 31))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("out=null", "out must name a new folder"),
        ("format=onnx", "format must be one of huggingface, zoo, gguf"),
        ("dtype=int8", "dtype must be a floating-point type"),
        ("quantization.bits=7", "bits must be one of affine's"),
        ("quantization.mode=q4_k", "mode must be one of MLX's"),
        ("layers=[0]", "layers must be null without another attention"),
        ("adapters=nowhere", "adapters: nowhere must hold"),
        ("checkpoint=nowhere", "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(convert, tmp_path, change, said):
    code, result, error = convert(change)
    assert (code, result) == (2, None)
    assert said in error.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way_stays(convert, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        code, _, error = convert(out=name)
        assert code == 2
        assert "out must be a new folder" in error.splitlines()[-1]
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "kept"


def test_a_disk_that_is_full_is_one_line(convert, tmp_path):
    disk = FullDisk(tmp_path, fails_from=3)
    with disk.entered():
        code, result, error = convert("surgery.batches=0")
    assert (code, result) == (2, None)
    assert "No space left on device" in error.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_kill_leaves_nothing_that_looks_finished(source, tmp_path):
    """Stopped while it writes its weights, which then are half there."""
    code = (
        "import os, signal, sys\n"
        "import recipes.app, recipes.convert, zoo.checkpoints.export.folder as folder\n"
        "write = folder.write_tensors\n"
        "def dying(path, arrays):\n"
        "    write(path, arrays)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder.write_tensors = dying\n"
        "recipes.app.execute('convert', recipes.convert.main, sys.argv[1:])\n"
    )
    arguments = [f"checkpoint={source}", f"out={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_is_written_whole_under_the_name_that_is_asked_for(convert, source, tmp_path, monkeypatch):
    code, result, error = convert("format=gguf", out="out.gguf")
    assert (code, result["out"]) == (0, str(tmp_path / "out.gguf")), error
    assert result["bytes"] == (tmp_path / "out.gguf").stat().st_size
    # float16, in layers of order 1.
    assert mx.abs(logits(tmp_path / "out.gguf") - logits(source)).max() < 4e-3
    for out in ("out.gguf", "folder"):
        code, _, error = convert("format=gguf", out=out)
        assert code == 2
        assert "out must be a new file whose name ends in .gguf" in error.splitlines()[-1]

    def full(*_):
        raise RuntimeError("[save_gguf] no space left on device")

    monkeypatch.setattr(mx, "save_gguf", full)
    code, _, error = convert("format=gguf", out="more.gguf")
    assert code == 2
    assert "no space left on device" in error.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def test_adapters_speak_as_they_do_when_they_are_put_into_the_weights(convert, speak, source, tmp_path):
    model = load_checkpoint(source).model
    attach_adapters(model, Adapters(kind="lora", lora=LoRAConfig(rank=2), base="b", base_fingerprint="f"))
    model.update(tree_map(lambda each: each + 0.3, model.trainable_parameters()))
    (tmp_path / "adapters").mkdir()
    write_adapters(tmp_path / "adapters", model)
    assert convert(f"adapters={tmp_path / 'adapters'}")[0] == 0
    asked = ("prompt=def f(",)
    apart = speak(generate, f"checkpoint={source}", f"adapters={tmp_path / 'adapters'}", *asked)
    whole = speak(generate, f"checkpoint={tmp_path / 'out'}", *asked)
    without = speak(generate, f"checkpoint={source}", *asked)
    assert apart["text"] == whole["text"] != without["text"]
    assert "adapters: nowhere must hold" in speak(generate, f"checkpoint={source}", "adapters=nowhere", *asked)
