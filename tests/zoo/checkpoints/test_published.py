"""Models of the Hub are loaded like folders; what cannot be read is refused before it is downloaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from tests.zoo.checkpoints.saved import save_all, small_model
from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint
from tests.zoo.runtime.hub_server import NAME, HubServer, use
from zoo.checkpoints import load_model
from zoo.config import UserError
from zoo.data.tokenizers import PretrainedConfig

ROOT = Path(__file__).resolve().parents[3]
TOKENS = mx.array([[7, 100, 101, 33, 32]])
GGUF = ("llama_q4_1", "llama_f16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_all(tmp_path_factory.mktemp("published") / "one")


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    with HubServer.of_folder(folder) as made:
        use(made, tmp_path / "home", monkeypatch)
        yield made


def test_a_model_loads_from_the_hub_over_a_connection_that_breaks(server):
    server.breaks = [100, 2000]
    loaded, _ = load_model(NAME)
    assert mx.array_equal(loaded(TOKENS), small_model().eval()(TOKENS)).item()
    assert max(start for _, start in server.asked) > 0


def test_a_model_loads_again_without_the_hub(server, tmp_path, monkeypatch):
    load_model(f"{NAME}@main")
    use("http://127.0.0.1:9", tmp_path / "home", monkeypatch, offline=True)
    load_model(f"{NAME}@main")


WEIGHTLESS = {
    "pickles": (("config.json", "pytorch_model.bin"), r"as safetensors; it holds pytorch_model\.bin, a pickle"),
    "GGUF": (("a.Q4_0.gguf", "b.gguf"), rf"GGUF files be named \(choices: {NAME}/a\.Q4_0\.gguf, {NAME}/b\.gguf\)"),
    "nothing": (("README.md", "sub/model.safetensors"), r"as safetensors; it holds none"),
}


@pytest.mark.parametrize("kind", WEIGHTLESS)
def test_a_model_without_weights_that_are_read_is_not_downloaded(kind, server):
    names, message = WEIGHTLESS[kind]
    server.files = dict.fromkeys(names, b"{}")
    with pytest.raises(UserError, match=message):
        load_model(NAME)
    assert server.asked == []


def test_the_tokenizer_of_a_model_comes_without_its_weights(server, tmp_path):
    made = byte_level_checkpoint(tmp_path / "tokenizer")
    server.files = {path.name: path.read_bytes() for path in made.iterdir()} | {"model.safetensors": b"never"}
    tokenizer = PretrainedConfig(path=f"{NAME}@main").build(None, cache_dir=tmp_path)
    assert tokenizer.decode(tokenizer.encode("def f")) == "def f"
    assert "model.safetensors" not in [name for name, _ in server.asked]
    with pytest.raises(UserError, match=r"^tokenizer\.path: 'someone/else' is no folder here"):
        PretrainedConfig(path="someone/else").build(None, cache_dir=tmp_path)


def test_the_librarys_own_variables_hold(server, tmp_path):
    code = "import sys, zoo; print(zoo.load_model(sys.argv[1])[0].num_parameters())"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = {**clean, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "own"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", code, NAME]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == small_model().num_parameters()
    assert list((tmp_path / "own").rglob("model.safetensors"))


def test_one_gguf_file_of_a_model_loads_from_the_hub(server):
    server.files = {f"{name}.gguf": (ROOT / f"tests/references/gguf/{name}.gguf").read_bytes() for name in GGUF}
    model, tokenizer = load_model(f"{NAME}/{GGUF[0]}.gguf@main")
    assert model.config.family == "llama"
    assert tokenizer.decode(tokenizer.encode("the")) == "the"
    assert {name for name, _ in server.asked} == {f"{GGUF[0]}.gguf"}
