"""What no machine holds is refused in one line, before anything is allocated; memory that runs out is named."""

import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from recipes.app import execute
from recipes.evaluate import main as evaluate_main
from recipes.generate import main as generate_main
from zoo.attention.catalog import variant_mapping
from zoo.checkpoints import save_checkpoint
from zoo.data.synthetic import MultiQueryRecall
from zoo.data.tokenizers import BytesTokenizer
from zoo.models import build_model, model_config_from_mapping
from zoo.runtime import memory
from zoo.training import Trainer

HUGE = [
    ["model.hidden_size=1000000000"],
    ["model.intermediate_size=1000000000"],
    ["model.vocab_size=1000000000"],
    ["model.max_seq_len=1000000000"],
    ["model.num_layers=2000", "model.hidden_size=100000"],
    ["training.batch_size=1000000000"],
    ["training.sequence_length=1000000000", "model.positions=none"],
]


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a megabyte to spare."""
    monkeypatch.setattr(memory, "usable_bytes", lambda: 10**6)
    monkeypatch.setattr(mx, "set_memory_limit", lambda limit: limit)


@pytest.mark.parametrize("more", HUGE, ids=" ".join)
def test_a_training_that_no_machine_holds_is_refused_in_one_line(more: list[str], train: Any, tmp_path: Path) -> None:
    before = mx.get_active_memory()
    code, result, errors = train.attempt(*more, f"run_dir={tmp_path / 'run'}")
    assert (code, result) == (2, None)
    assert re.fullmatch(
        r"error: the training must fit into memory; it would need about \S+ GB, and this process may use \S+ [GMk]B "
        r"\(make .* smaller, .* larger, or allow_large=true to insist\)\n",
        errors,
    )
    assert mx.get_active_memory() - before < 10**6
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("little")
def test_whoever_insists_is_not_refused(train: Any, tmp_path: Path) -> None:
    code, _, errors = train.attempt(f"run_dir={tmp_path / 'one'}", "training.steps=1")
    assert code == 2
    assert "allow_large=true to insist" in errors
    assert train(f"run_dir={tmp_path / 'two'}", "training.steps=1", "allow_large=true")["steps"] == 1


def test_a_training_begins_with_its_price(train: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train(f"run_dir={tmp_path / 'run'}", "training.steps=2")
    found = re.search(r"the training takes about ([0-9.]+) (MB|kB) of memory", caplog.text)
    assert found is not None
    price = float(found[1]) * {"MB": 10**6, "kB": 10**3}[found[2]]
    # Other tests' arrays are in this process's peak as well.
    assert price < 2 * result["peak_memory_bytes"]


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("[malloc] Unable to allocate\n9 bytes.")])
def test_memory_that_runs_out_is_one_line_that_names_the_last_checkpoint(
    error: Exception, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = f"run_dir={tmp_path / 'run'}"
    train(run_dir, "training.steps=2")

    def exhausted(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Trainer, "train", exhausted)
    code, result, errors = train.attempt(run_dir, "resume=auto", "training.steps=4")
    assert (code, result) == (2, None)
    last = errors.splitlines()[-1]
    assert last.startswith("error: memory ran out at step 3 of a training priced at about ")
    assert last.endswith(f"the last checkpoint is {tmp_path / 'run' / 'checkpoints' / 'step_000002'}")
    assert "Traceback" not in errors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of text, and one of a synthetic task."""
    folder = tmp_path_factory.mktemp("checkpoints")
    sizes = {"num_layers": 1, "hidden_size": 20, "num_heads": 2, "intermediate_size": 28, "max_seq_len": 64}
    mapping = {"family": "llama", "vocab_size": 260, "attention": variant_mapping("mha"), **sizes}
    model = build_model(model_config_from_mapping(mapping))
    task = MultiQueryRecall(length=21, num_pairs=(2, 3))
    save_checkpoint(folder / "text", model=model, tokenizer=BytesTokenizer())
    save_checkpoint(folder / "task", model=model, config={"data": task.as_mapping(), "seed": 2})
    return folder


def refused(capsys: pytest.CaptureFixture[str], name: str, main: Any, *arguments: str) -> str:
    assert execute(name, main, list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_checkpoint_that_does_not_fit_is_not_loaded(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "usable_bytes", lambda: 10**3)
    said = refused(capsys, "generate", generate_main, f"checkpoint={checkpoint / 'text'}", "prompt=a")
    assert re.match(r"error: checkpoint: \S+model.safetensors must fit into memory; it would need about", said)


@pytest.mark.usefixtures("little")
def test_prompts_that_do_not_fit_are_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = f"prompt={'a' * 3000}"
    said = refused(capsys, "generate", generate_main, f"checkpoint={checkpoint / 'text'}", long)
    assert said.startswith("error: the prompts must fit into memory; it would need about")
    insists = [f"checkpoint={checkpoint / 'text'}", long, "allow_large=true", "max_tokens=1"]
    assert execute("generate", generate_main, insists) == 0


def test_what_may_be_generated_is_not_priced(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [f"checkpoint={checkpoint / 'text'}", "prompt=a", "max_tokens=1000000000000", "stop=[a,e,i,o,u,n,s]"]
    monkeypatch.setattr("recipes.generate.stream_text", stopped)
    with pytest.raises(StoppedError):
        execute("generate", generate_main, arguments)


class StoppedError(Exception):
    """The text would begin here."""


def stopped(*_: Any, **__: Any) -> None:
    raise StoppedError


def test_batches_of_an_evaluation_that_do_not_fit_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [f"checkpoint={checkpoint / 'task'}", f"run_dir={tmp_path}", "batch_size=1000000000"]
    said = refused(capsys, "evaluate", evaluate_main, *more)
    assert said.startswith("error: a batch of the evaluation must fit into memory; it would need about")
