"""mlx-lm's own commands run on exported models, called as their entry points call them."""

import importlib
import json
import os
import shutil
import sys
import threading
import urllib.request
from http.server import ThreadingHTTPServer

import mlx.core as mx
import pytest
from mlx_lm import server
from mlx_lm.utils import load_model as load_in_mlx_lm

from tests.tolerances import tolerance
from tests.zoo.checkpoints.export.variants import ONE_OF_EACH
from tests.zoo.checkpoints.saved import TOKENIZER, small_model
from zoo.checkpoints import load_checkpoint
from zoo.checkpoints.export import export_model
from zoo.checkpoints.foreign_adapters import load_adapters
from zoo.models.adapters import fuse_adapters

TEMPLATE = "{% for each in messages %}{{ each.content }}{% endfor %}"
TEXTS = ["def f(x):\n    return x\n", "for each in range(9):\n    print(each)\n"]
# Every mechanism, which takes minutes, if this is set; else one for each kind of cache and layer.
EVERY = "ZOO_TEST_EVERY_MECHANISM"


def build(name, family="llama"):
    model = small_model(name, family=family, num_layers=1, hidden_size=32, num_heads=2, head_dim=16, max_seq_len=64)
    model.eval()
    return model


def chosen():
    kinds = {}
    for name in ONE_OF_EACH:
        attention = build(name).layers[0].self_attn
        kinds.setdefault((type(attention), type(attention.make_cache()), len(attention.parameters())), name)
    return list(ONE_OF_EACH if os.environ.get(EVERY) else kinds.values())


@pytest.fixture(autouse=True)
def eager():
    """mlx-lm compiles its training step, which costs a C++ compiler's time."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "valid"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs one of mlx-lm's commands; gives what it said."""

    def command(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"mlx_lm.{name}", *map(str, arguments), "--trust-remote-code"])
        importlib.import_module(f"mlx_lm.{name}").main()
        return capsys.readouterr().out

    return command


@pytest.mark.parametrize(("name", "family"), [*((name, "llama") for name in chosen()), ("sinks", "gpt")])
def test_the_commands_run_and_what_they_write_is_read_here(name, family, data, run, tmp_path):
    model, folder, adapters = build(name, family), tmp_path / "model", tmp_path / "adapters"
    folder.mkdir()
    export_model(folder, model, tokenizer=TOKENIZER)
    rows_BL = mx.array([TOKENIZER.encode_prompt("def f(")])
    train = ["--train", "--iters", 1, "--batch-size", 1, "--num-layers", -1, "--val-batches", 1, "--data", data]
    run("lora", "--model", folder, *train, "--adapter-path", adapters, "--grad-checkpoint", "--learning-rate", 0.1)
    again = load_checkpoint(folder).model
    load_adapters(again, adapters, base=str(folder))
    fuse_adapters(again)
    run("fuse", "--model", folder, "--adapter-path", adapters, "--save-path", tmp_path / "fused")
    fused = load_checkpoint(tmp_path / "fused").model
    assert mx.abs(fused(rows_BL) - again(rows_BL)).max() <= tolerance(mx.float32)
    assert mx.abs(fused(rows_BL) - model(rows_BL)).max() > tolerance(mx.float32)
    options = ["-q", "--q-group-size", 32, "--q-bits", 8, "--mlx-path", tmp_path / "packed"]
    run("convert", "--hf-path", tmp_path / "fused", *options)
    packed = load_checkpoint(tmp_path / "packed").model
    theirs, _ = load_in_mlx_lm(tmp_path / "packed", trust_remote_code=True)
    assert mx.abs(packed(rows_BL) - theirs(rows_BL)).max() <= tolerance(mx.float32)
    assert mx.abs(packed(rows_BL) - fused(rows_BL)).max() > 0
    assert "Averages" in run("benchmark", "--model", tmp_path / "packed", "-p", 5, "-g", 3, "-n", 1)
    said = run("generate", "--model", folder, "--prompt", "def f(", "-m", 4, "--temp", 0, "--verbose", "False")
    assert said.strip() == greedy(model, "def f(", 4).strip()


def greedy(model, text, count):
    tokens = TOKENIZER.encode_prompt(text)
    for _ in range(count):
        tokens.append(int(mx.argmax(model(mx.array([tokens]))[0, -1])))
    return TOKENIZER.decode(tokens[-count:])


def test_a_batch_is_refused_by_name_where_it_cannot_be_right(run, tmp_path):
    export_model(tmp_path, build("dilated"), tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="does not yet support batching"):
        run("benchmark", "--model", tmp_path, "-p", 3, "-g", 2, "-n", 1, "-b", 2)


@pytest.fixture
def address(monkeypatch):
    """A server of mlx-lm's that answers for any folder, in a thread of its own."""
    started, made, writers = threading.Event(), [], []

    class NotedWriter(server.ResponseGenerator):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            writers.append(self)

    class Noted(ThreadingHTTPServer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)
            started.set()

    monkeypatch.setattr(server, "ResponseGenerator", NotedWriter)
    monkeypatch.setattr(server._run_http_server, "__defaults__", (Noted, server.APIHandler))
    monkeypatch.setattr(sys, "argv", ["mlx_lm.server", "--port", "0", "--trust-remote-code", "--log-level", "ERROR"])
    thread = threading.Thread(target=server.main, daemon=True)
    # It tells everybody that it is not made for production.
    monkeypatch.setattr(server.warnings, "warn", lambda text: None)
    thread.start()
    assert started.wait(60)
    yield f"http://127.0.0.1:{made[0].server_address[1]}/v1"
    made[0].shutdown()
    made[0].server_close()
    thread.join(60)
    writers[0].stop_and_join()


def ask(address, path, **question):
    request = urllib.request.Request(
        f"{address}/{path}", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_the_server_answers_as_the_model_does(address, tmp_path):
    for name in chosen():
        model, folder = build(name), tmp_path / name
        folder.mkdir()
        export_model(folder, model, tokenizer=TOKENIZER.with_chat_template(TEMPLATE))
        expected = greedy(model, "def f(", 4)
        question = {"model": str(folder), "max_tokens": 4, "temperature": 0}
        completed = ask(address, "completions", prompt="def f(", **question)
        assert completed["choices"][0]["text"] == expected
        messages = [{"role": "user", "content": "def f("}]
        chat = ask(address, "chat/completions", messages=messages, **question)
        assert chat["choices"][0]["message"]["content"] == expected
        assert chat["usage"] == {**chat["usage"], "prompt_tokens": 7, "completion_tokens": 4}
        shutil.rmtree(folder)
