"""Several processes on one machine: a training step that they share, and the exchange of arrays alone.

A cell's `detail` is JSON: `processes`, and the `threads` of each. The worker that times the cell starts them, connected
by MLX's ring, and a call is a word to each and its answer; so one process is timed in the same way as several.
"""

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from eval.bench import Workload
from eval.checks import Finding, tolerance, verdict
from eval.rows import Cell, Work
from eval.workloads import computed_function, scalar
from eval.workloads.model import LEARNING_RATE, MAX_GRAD_NORM, ModelSetting, model_setting
from zoo.config import require
from zoo.runtime.backend import backend, choose_backend
from zoo.runtime.pool import THREAD_VARIABLES
from zoo.runtime.processes import ALONE, Processes, connected
from zoo.training.batches import own_rows, to_arrays
from zoo.training.step import StepOptions, TrainStep

BUILDER = "processes"
# Steps whose losses are compared with those of one process: the second one's has seen an update.
_CHECKED_STEPS = 2
_END_SECONDS = 10.0


def build(cell: Cell) -> Workload:
    """Builds a cell of level processes.

    Modes: `step` is a training step with AdamW and clipping, of which each process does its rows of the batch;
    `all_sum` sums an array of L float32 numbers over the processes.

    Raises:
        UserError: If the rows cannot be shared out, or the model cannot do what the cell asks for.
    """
    number = json.loads(cell.detail)["processes"]
    if cell.mode == "all_sum":
        team = _Team(cell)
        return Workload(
            call=team.call,
            check=lambda: verdict([_difference("sums of ones", team.call(), number)]),
            work=Work(useful_flops=None),
            function=(cell.mode, cell.length),
        )
    require(cell.batch_size % number == 0, "batch_sizes", f"be multiples of {number}", cell.batch_size)
    setting, team = model_setting(cell), _Team(cell)
    (variant,) = setting.config.attention.variants()
    sizes = {"batch_size": cell.batch_size, "query_length": cell.length, "key_length": cell.length}
    flops = setting.forwards * setting.model().flops(**sizes, predicted=cell.batch_size * cell.length)
    return Workload(
        call=team.call,
        check=lambda: verdict(_losses(setting, team)),
        work=Work(useful_flops=flops, tokens=cell.batch_size * cell.length),
        function=computed_function(cell, variant.capabilities.exact_class),
    )


def _losses(setting: ModelSetting, team: "_Team") -> list[Finding]:
    alone = _step(setting, ALONE)
    return [
        _difference(f"loss of step {number} beside one process", team.call(), alone())
        for number in range(1, _CHECKED_STEPS + 1)
    ]


def _difference(check: str, found: float, expected: float) -> Finding:
    return Finding(check=check, error=abs(found / expected - 1), tolerance=tolerance(mx.float32).value)


class _Team:
    """Processes that do the same whenever they are told to; they end with this object, or with this process."""

    def __init__(self, cell: Cell) -> None:
        how = json.loads(cell.detail)
        self._size = int(how["processes"])
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(how["threads"]))}
        pairs = [socket.socketpair() for _ in range(self._size)]
        with tempfile.TemporaryDirectory() as folder:
            hosts = Path(folder) / "hosts.json"
            hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in _free_ports(self._size)]))
            alone = self._size == 1
            running = [
                subprocess.Popen(
                    [sys.executable, "-m", __name__, cell.model_dump_json(), backend(), str(theirs.fileno())],
                    env=environment if alone else {**environment, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)},
                    pass_fds=[theirs.fileno()],
                    stdout=subprocess.DEVNULL,
                )
                for rank, (_, theirs) in enumerate(pairs)
            ]
            for _, theirs in pairs:
                theirs.close()
            self._sockets = [ours for ours, _ in pairs]
            self._answers = [ours.makefile("r") for ours in self._sockets]
            weakref.finalize(self, _end, self._sockets, self._answers, running)
            # When they say that they are ready they have read the file.
            self._answered()

    def call(self) -> float:
        """What they have found, as the first one tells it."""
        for each in self._sockets:
            each.sendall(b"\n")
        return self._answered()

    def _answered(self) -> float:
        lines = [each.readline() for each in self._answers]
        if not all(lines):
            raise RuntimeError(f"process {lines.index('')} of {self._size} has ended; see stderr")
        return float(lines[0])


def _end(
    sockets: Sequence[socket.socket], answers: Sequence[Any], running: "Sequence[subprocess.Popen[bytes]]"
) -> None:
    for each in (*answers, *sockets):
        each.close()
    for process in running:
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _step(setting: ModelSetting, processes: Processes) -> Callable[[], float]:
    """A training step of these processes; returns the loss of the whole batch, nats per token."""
    model, batch = setting.model(), setting.drawn()
    optimizer = optim.AdamW(LEARNING_RATE)
    optimizer.init(model.trainable_parameters())
    options = StepOptions(
        causal=setting.config.causal, dtype=setting.dtype, max_grad_norm=MAX_GRAD_NORM, compile=setting.cell.compiled
    )
    step = TrainStep(model, optimizer, options, processes=processes)
    weight, parts = float(batch.weights_BL.sum()), to_arrays(own_rows(batch, processes))

    def call() -> float:
        nats, norm, _ = step(parts, weight)
        mx.eval(nats, norm, step.state)
        return scalar(nats) / weight

    return call


def _all_sum(length: int, processes: Processes) -> float:
    summed = mx.distributed.all_sum(mx.ones(length), group=processes.group)
    mx.eval(summed)
    return scalar(summed[-1])


def main() -> None:
    """One of the processes, until nobody asks any more."""
    cell, device, descriptor = Cell.model_validate_json(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    choose_backend(device)
    processes = connected()
    sums: Callable[[], float] = functools.partial(_all_sum, cell.length, processes)
    call = sums if cell.mode == "all_sum" else _step(model_setting(cell), processes)
    with socket.socket(fileno=descriptor) as end, end.makefile("rw") as lines:
        print(0.0, file=lines, flush=True)
        for _ in lines:
            print(call(), file=lines, flush=True)


if __name__ == "__main__":
    main()
