"""The processes that work on one model together, as `mlx.launch -n 4 scripts/train.py …` starts them; otherwise one.

In training, each computes on its own rows of every batch, and gradients are averaged over all. What decides how a run
goes on, such as a signal to one of them, is agreed on, so that all of them take the same way.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map

from zoo.config import UserError
from zoo.runtime.seeds import random_key, set_random_key

# What MLX's launcher, or MPI's, tells the processes that it starts.
_LAUNCHED = ("MLX_RANK", "MLX_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
# What it tells those that it connects as a ring.
_RING = "MLX_HOSTFILE"
# Some back ends would wait for ever for a process that does not come.
_CONNECTING_SECONDS = 120.0

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """Which of how many processes this one is.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        group: What connects them; None for one process.
        connections: Descriptors of the sockets of the ring, which must stay open; of other back ends none.
    """

    rank: int = 0
    size: int = 1
    group: mx.distributed.Group | None = None
    connections: frozenset[int] = frozenset()

    @property
    def leads(self) -> bool:
        """Whether this process writes files and tells people what happens: one does."""
        return self.rank == 0

    def are_connected(self) -> bool:
        """Whether no other process has closed its end of a connection, after which no exchange succeeds."""
        return all(map(_is_open, self.connections))

    def sent_bytes(self, gradient_bytes: int) -> int:
        """Bytes that each process sends for one average of gradients of so many, by the ring's two turns."""
        return 2 * (self.size - 1) * gradient_bytes // self.size

    def average_gradients(self, gradients: Tree) -> Tree:
        """Means over the processes, in buckets of 32 MiB that overlap the backward pass where the back end can."""
        return gradients if self.group is None else nn.average_gradients(gradients, self.group)

    def sum_arrays(self, tree: Tree) -> Tree:
        """Every array of a tree of float32 arrays, summed over the processes by one exchange."""
        if self.group is None:
            return tree
        arrays: list[mx.array] = [array for _, array in cast(list[tuple[str, mx.array]], tree_flatten(tree))]
        whole = mx.concatenate([array.reshape(-1) for array in arrays])
        ends = itertools.accumulate(array.size for array in arrays[:-1])
        parts = iter(mx.split(mx.distributed.all_sum(whole, group=self.group), list(ends)))
        summed: Tree = tree_map(lambda array: next(parts).reshape(array.shape), tree)
        return summed

    def sums(self, *values: float) -> Sequence[float]:
        """Each number summed over the processes in double precision, the same on all; returns once all have come."""
        if self.group is None:
            return values
        # Back ends exchange float32: a double is the sum of two of them, to 48 bits.
        exact = np.array(values or (0.0,), dtype=np.float64)
        coarse = exact.astype(np.float32)
        halves = np.stack([coarse, (exact - coarse).astype(np.float32)])
        gathered = mx.distributed.all_gather(mx.array(halves)[None], group=self.group)
        return [float(total) for total in np.array(gathered, dtype=np.float64).sum(axis=(0, 1))]

    @contextlib.contextmanager
    def own_randomness(self, step: int) -> Iterator[None]:
        """Inside, MLX's random numbers are this process's own, of this step; afterwards they are what they were."""
        if self.group is None:
            yield
            return
        key = random_key()
        high, low = np.random.SeedSequence([*key, step, self.rank]).generate_state(2)
        set_random_key(int(high), int(low))
        yield
        set_random_key(*key)

    def told(self, text: str) -> str:
        """The text that the process that leads gives, on all; returns once all have come."""
        if self.group is None:
            return text
        content = np.frombuffer(text.encode() if self.leads else b"", dtype=np.uint8)
        (length,) = self.sums(len(content))
        padded = np.zeros(int(length), dtype=np.int32)
        padded[: len(content)] = content
        if not len(padded):
            return ""
        summed = mx.distributed.all_sum(mx.array(padded), group=self.group)
        return np.array(summed).astype(np.uint8).tobytes().decode()


ALONE = Processes()


@functools.cache
def connected() -> Processes:
    """The processes that were launched together with this one, once they are connected.

    Raises:
        UserError: If they cannot be connected.
    """
    if not any(name in os.environ for name in _LAUNCHED):
        return ALONE
    # The launcher forwards what is typed, and asks all the time whether an open pipe takes it: it needs a whole core.
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    impatience = threading.Timer(_CONNECTING_SECONDS, _give_up)
    impatience.daemon = True
    impatience.start()
    before = _sockets()
    try:
        group = mx.distributed.init(strict=True)
        if group.size() > 1:
            # Some back ends connect at the first exchange.
            mx.eval(mx.distributed.all_sum(mx.array(1.0), group=group))
    except (RuntimeError, ValueError) as error:
        reason = re.sub(
            r"\(error: (\d+)\)", lambda code: f"({os.strerror(int(code[1]))})", " ".join(str(error).split())
        )
        raise UserError(f"the processes that were launched together must be able to connect; {reason}") from None
    finally:
        impatience.cancel()
    if group.rank() > 0:
        # One shows what they have found.
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
    # Without those that MLX tried in vain, when the others were not there yet, and has not closed.
    ring = frozenset(filter(_is_open, _sockets() - before)) if _RING in os.environ else frozenset()
    several = Processes(rank=group.rank(), size=group.size(), group=group, connections=ring)
    return several if group.size() > 1 else ALONE


def _sockets() -> frozenset[int]:
    """Descriptors of this process that are sockets."""
    found = set()
    for path in Path("/dev/fd").iterdir():
        # The listing's own descriptor is gone.
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                found.add(int(path.name))
    return frozenset(found)


def _is_open(descriptor: int) -> bool:
    """Whether the other end of a connection is open, as far as this machine has been told; nothing is read."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            return found.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _give_up() -> None:
    line = f"error: the processes that were launched together have not connected within {_CONNECTING_SECONDS:g} s\n"
    os.write(2, line.encode())
    os._exit(2)


def require_divisible(batch_size: int, accumulation: int, processes: int) -> None:
    """Refuses a batch that cannot be shared out among so many processes.

    Raises:
        UserError: With what it must be a multiple of.
    """
    least = processes * accumulation
    if batch_size % least:
        raise UserError(
            f"training.batch_size must be a multiple of {least}, the {processes} processes times"
            f" training.accumulation {accumulation}; got {batch_size}"
        )
