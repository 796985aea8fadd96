"""Several processes train one model: they reach the losses of one, and the death of one is told and mended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.processes import require_nobody_left
from tests.ring import Cable, free_ports, ring_environment
from zoo.checkpoints import History
from zoo.runtime.watch import process_of

ROOT = Path(__file__).resolve().parents[2]
# Relative; one process adds up a batch's gradients in another order than several do.
TOLERANCE = 1e-5
STEPS = 12
# Of the processes that train; that many seconds a test waits for what takes a few.
PATIENCE, LIMIT = 3.0, 120.0
TINY = (
    "attention=swa",
    "model=llama_tiny",
    "model.num_layers=2",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "tokenizer=bytes",
    # Its steps do not depend on how many there will be.
    "optimizer=adamw",
    "optimizer.schedule=constant",
    "training.batch_size=8",
)
COMMON = (
    "data=text",
    "training.sequence_length=33",
    "training.log_every=1",
    "training.eval_every=6",
    "training.checkpoint_every=3",
    "training.sample_tokens=4",
    f"launch.patience_seconds={PATIENCE}",
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def start(text_corpus: Path) -> Iterator[Start]:
    """Starts train.py, or another script, in a run's folder."""
    running = []

    def start(
        run: Path, *more: str, steps: int = STEPS, script: str = "train", environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        places = [f"data.path={text_corpus}", f"data.cache_dir={text_corpus.parent / 'token-cache'}", f"run_dir={run}"]
        own = TINY if script == "train" else ()
        command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *own, *COMMON, *places]
        process = subprocess.Popen(
            [*command, f"training.steps={steps}", *more],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def finished(process: "subprocess.Popen[str]") -> dict[str, object]:
    """What a process printed that must succeed: one line of JSON."""
    out, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    (line,) = out.splitlines()
    result: dict[str, object] = json.loads(line)
    return result


def failed(process: "subprocess.Popen[str]") -> str:
    """The one line of a process that must fail."""
    out, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (2, ""), errors
    (line,) = (each for each in errors.splitlines() if "error" in each)
    return line.rpartition("error: ")[2]


def metrics(run: Path, name: str) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if row.get(name) is not None]


def agree(found: Sequence[float], expected: Sequence[float]) -> bool:
    return len(found) == len(expected) > 0 and found == pytest.approx(expected, rel=TOLERANCE)


def saved(run: Path, name: str) -> bytes:
    newest = History(run / "checkpoints").newest()
    assert newest is not None
    return (newest / f"{name}.safetensors").read_bytes()


def when_trained(run: Path, rank: int, process: "subprocess.Popen[str]") -> int:
    """The process of a rank, once the run has saved something."""
    until = time.monotonic() + LIMIT
    while History(run / "checkpoints").newest() is None:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    found = process_of(run, rank)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def alone(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    finished(start(run))
    return run


@pytest.mark.slow
def test_four_processes_reach_the_losses_of_one_and_one_of_them_tells(
    alone: Path, start: Start, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = finished(start(run, "launch.processes=4", "launch.shard=optimizer", "training.accumulation=2"))
    for name in ("train_loss", "gradient_norm", "val_loss", "tokens"):
        assert agree(metrics(run, name), metrics(alone, name)), name
    told = json.loads((alone / "result.json").read_text())
    assert (result["tokens"], result["steps"]) == (told["tokens"], STEPS)
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}


@pytest.mark.slow
def test_adapters_learn_as_by_one_process(alone: Path, start: Start, tmp_path: Path) -> None:
    own = (f"checkpoint={alone}", "method=lora", "training.batch_size=4")
    for run, processes in ((tmp_path / "one", 1), (tmp_path / "two", 2)):
        finished(start(run, *own, f"launch.processes={processes}", script="finetune"))
    for name in ("train_loss", "gradient_norm", "val_loss"):
        assert agree(metrics(tmp_path / "two", name), metrics(tmp_path / "one", name)), name


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(alone: Path, start: Start, tmp_path: Path) -> None:
    for processes, steps in ((2, 6), (1, STEPS)):
        finished(start(tmp_path / "run", f"launch.processes={processes}", "resume=auto", steps=steps))
    assert agree(metrics(tmp_path / "run", "train_loss"), metrics(alone, "train_loss"))


@pytest.mark.slow
def test_a_run_goes_on_by_itself_after_a_death_which_changes_nothing(start: Start, tmp_path: Path) -> None:
    pair = tmp_path / "pair"
    own = ("launch.processes=2", "launch.shard=optimizer", "model.dropout=0.1")
    finished(start(pair, *own))
    process = start(tmp_path / "run", *own, "launch.restarts=1")
    os.kill(when_trained(tmp_path / "run", 0, process), signal.SIGKILL)
    finished(process)
    for name in ("model", "optimizer"):
        assert saved(tmp_path / "run", name) == saved(pair, name)
    assert metrics(tmp_path / "run", "train_loss") == metrics(pair, "train_loss")
    require_nobody_left(str(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "number", "what"),
    [(1, signal.SIGKILL, "has ended"), (0, signal.SIGSTOP, f"has not answered for {PATIENCE:g} s")],
    ids=["killed", "stopped"],
)
def test_the_death_of_a_process_ends_the_others_with_one_line(
    rank: int, number: signal.Signals, what: str, start: Start, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(run, "launch.processes=2", steps=100_000)
    os.kill(when_trained(run, rank, process), number)
    line = failed(process)
    newest = History(run / "checkpoints").newest()
    said = f"process {rank} of 2 {what}, so the run has ended; the last checkpoint is {newest};"
    assert line == f"{said} run_dir={run} resume=auto goes on from there"
    require_nobody_left(str(run))


@pytest.mark.slow
def test_processes_end_with_whoever_has_launched_them(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "run", "launch.processes=2", steps=100_000)
    when_trained(tmp_path / "run", 0, process)
    process.kill()
    require_nobody_left(str(tmp_path / "run"))


@pytest.mark.slow
def test_a_connection_that_is_cut_ends_the_run_with_one_line(start: Start, tmp_path: Path) -> None:
    run, ports = tmp_path / "run", free_ports(2)
    cable = Cable(ports[1])
    seen = {0: (ports[0], cable.port), 1: ports}
    processes = [
        start(run, steps=100_000, environment=ring_environment(tmp_path / f"hosts-{rank}.json", seen[rank], rank))
        for rank in (0, 1)
    ]
    when_trained(run, 0, processes[0])
    cable.cut()
    said = []
    for process in processes:
        _, errors = process.communicate(timeout=LIMIT)
        said += [line.rpartition("error: ")[2] for line in errors.splitlines() if "error: " in line]
    newest = History(run / "checkpoints").newest()
    advice = f"so the run has ended; the last checkpoint is {newest}; run_dir={run} resume=auto goes on from there"
    # Whichever has noticed it first.
    assert said
    assert set(said) <= {f"process {rank} of 2 has lost a connection, {advice}" for rank in (0, 1)}
    assert not any(process.returncode == 0 for process in processes)
    require_nobody_left(str(run))


@pytest.mark.slow
def test_a_process_that_is_slow_is_waited_for(alone: Path, start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "run", "launch.processes=2")
    slow = when_trained(tmp_path / "run", 1, process)
    os.kill(slow, signal.SIGSTOP)
    time.sleep(PATIENCE / 2)
    os.kill(slow, signal.SIGCONT)
    finished(process)
    assert agree(metrics(tmp_path / "run", "train_loss"), metrics(alone, "train_loss"))


@pytest.mark.slow
def test_a_signal_stops_all_at_one_step_with_a_checkpoint(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "run", "launch.processes=2", steps=100_000)
    when_trained(tmp_path / "run", 1, process)
    process.send_signal(signal.SIGINT)
    result = finished(process)
    assert (result["stopped_by"], result["interrupted"]) == ("signal", True)
    assert str(History(tmp_path / "run" / "checkpoints").newest()) == result["checkpoint"]


def test_a_batch_that_cannot_be_shared_out_is_refused(start: Start, tmp_path: Path) -> None:
    line = failed(start(tmp_path / "run", "launch.processes=2", "training.batch_size=3"))
    assert line == "training.batch_size must be a multiple of 2, the 2 processes times training.accumulation 1; got 3"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("hosts", "wanted"),
    [
        (None, "launch.hostfile must be a file; got "),
        ("nonsense", "launch.hostfile must be one that MLX's launcher reads; Failed to parse hostfile"),
        ([("127.0.0.1", "198.51.100.1")], "launched together must be able to connect; [ring] Couldn't bind socket"),
        ([("no.such.host", "127.0.0.1")], "): launch.hostfile must name hosts that ssh reaches"),
    ],
    ids=["missing", "nonsense", "address", "host"],
)
def test_hosts_that_cannot_be_are_told_in_one_line(hosts: object, wanted: str, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    if isinstance(hosts, list):
        rows = [{"ssh": name, "ips": [ip]} for name, ip in [("127.0.0.1", "127.0.0.1"), *hosts]]
        path.write_text(json.dumps(rows))
    elif hosts is not None:
        path.write_text(str(hosts))
    assert wanted in failed(start(tmp_path / "run", f"launch.hostfile={path}"))
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_told_in_one_line(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps([{"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}] * 2))
    with socket.socket() as taken:
        # Where MLX's launcher begins to number.
        taken.bind(("127.0.0.1", 32323))
        taken.listen()
        assert "[ring] Couldn't bind socket (Address already in use)" in failed(
            start(tmp_path / "run", f"launch.hostfile={path}")
        )
