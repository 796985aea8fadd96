"""The foundation's own claims, measured: BLAS, sliding window, tiled softmax, causal linear, and a whole Llama step.

Every figure is a ratio from one interleaved run, or a peak from a process of its own; no absolute time is reported.

Letters: B batch, L length, N heads, H head_dim.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection

import mlx.core as mx

from eval.llama_step import llama_step_candidates
from eval.memory import peak_bytes_in_fresh_process
from eval.timing import interleave
from zoo.attention import VariantConfig, mechanism
from zoo.attention.catalog import variant
from zoo.ops.masks import MaskSpec

NUM_HEADS, HEAD_DIM = 8, 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure beside its target.

    Attributes:
        name: What was measured.
        value: The figure, a ratio.
        target: The bound.
        at_least: Whether the figure should be at or above the target (else at or below).
    """

    name: str
    value: float
    target: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of its target."""
        return self.value >= self.target if self.at_least else self.value <= self.target


def measure(*, rounds: int, names: Sequence[str] | None = None) -> list[Figure]:
    """Measures figures; all of them take minutes on two cores.

    Args:
        rounds: Timed rounds of each interleaved run.
        names: Which to measure, of `FIGURES`; None for all.
    """
    return [_measured(name, rounds) for name in (FIGURES if names is None else names)]


def _measured(name: str, rounds: int) -> Figure:
    function, target, at_least = FIGURES[name]
    return Figure(name=name, value=function(rounds), target=target, at_least=at_least)


def gradient_call(name: str, length: int, *, causal: bool) -> Callable[[], object]:
    """Forward and backward of a variant's op on random inputs (B=1, 8 heads, head_dim 64), compiled."""
    q, k, v, op = _inputs(name, length, causal=causal)
    step = mx.compile(mx.value_and_grad(lambda q, k, v: op(q, k, v).sum(), argnums=(0, 1, 2)))
    return functools.partial(step, q, k, v)


def causal_gradient_call(name: str, length: int) -> Callable[[], object]:
    """`gradient_call` of a language model's direction; module-level, for a fresh process."""
    return gradient_call(name, length, causal=True)


def forward_call(name: str, length: int, *, causal: bool) -> Callable[[], object]:
    """Forward of a variant's op, compiled."""
    q, k, v, op = _inputs(name, length, causal=causal)
    return functools.partial(mx.compile(op), q, k, v)


def _inputs(name: str, length: int, *, causal: bool) -> tuple[mx.array, mx.array, mx.array, Callable[..., mx.array]]:
    shipped = variant(name)
    if not isinstance(shipped, VariantConfig):
        raise TypeError(f"{name} is a hybrid: it has no single op")
    chosen = shipped.resolved(phase="training", rows=NUM_HEADS, length=length, causal=causal)
    declared = mechanism(chosen.mechanism)
    spec = declared.make_spec(chosen.parameters, MaskSpec(causal=causal), HEAD_DIM, None)
    op = declared.implementations[chosen.implementation](chosen.parameters)
    mx.random.seed(0)
    q, k, v = (mx.random.normal((1, NUM_HEADS, length, HEAD_DIM)) for _ in range(3))
    mx.eval(q, k, v)
    return q, k, v, lambda q, k, v: op(q, k, v, spec)


def window_ratio(rounds: int) -> float:
    """Time of `swa_masked` over `swa`, forward and backward, length 1024, window 64."""
    calls = {name: gradient_call(name, 1024, causal=True) for name in ("swa", "swa_masked")}
    return interleave(calls, rounds=rounds).ratio("swa_masked", "swa")


def window_memory_growth() -> float:
    """Peak bytes of `swa`, forward and backward, at length 2048 over 1024."""
    short, long = (peak_bytes_in_fresh_process(causal_gradient_call, "swa", length) for length in (1024, 2048))
    return long / short


def tiled_memory_ratio() -> float:
    """Peak bytes of `mha_tiled` over `mha_manual`, forward and backward, length 4096."""
    tiled, manual = (
        peak_bytes_in_fresh_process(causal_gradient_call, name, 4096) for name in ("mha_tiled", "mha_manual")
    )
    return tiled / manual


def linear_ratio(rounds: int) -> float:
    """Time of causal (chunked) over bidirectional `linear`, forward, length 512."""
    calls = {direction: forward_call("linear", 512, causal=direction == "causal") for direction in ("causal", "both")}
    return interleave(calls, rounds=rounds).ratio("causal", "both")


def llama_ratio(rounds: int) -> float:
    """Time of our compiled training step of `llama_small` over the same step around mlx-lm's model."""
    return interleave(llama_step_candidates(), rounds=rounds).ratio("zoo", "mlx_lm")


def blas_ratio(rounds: int) -> float:
    """Time of a 1024³ float32 matmul with MLX's own BLAS over ours, in two processes that take turns.

    The BLAS is bound when a process imports MLX, so each has its own process; 1.0 where the runtime changes nothing.
    """
    context = multiprocessing.get_context("spawn")
    workers = {}
    for name, setting in (("zoo", None), ("mlx", "none")):
        ours, theirs = context.Pipe()
        process = context.Process(target=_matmul_worker, args=(theirs,), daemon=True)
        with _environment("ZOO_BLAS", setting):
            process.start()
        workers[name] = ours
    for connection in workers.values():
        connection.recv()
    pairs = []
    for _ in range(rounds):
        seconds = {}
        for name, connection in workers.items():
            connection.send(True)
            seconds[name] = connection.recv()
        pairs.append(seconds["mlx"] / seconds["zoo"])
    for connection in workers.values():
        connection.send(False)
    return statistics.median(pairs)


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Sets one environment variable for the child started inside the block."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _matmul_worker(connection: Connection) -> None:
    a, b = (mx.random.normal((1024, 1024)) for _ in range(2))
    mx.eval(a, b, a @ b)
    connection.send(None)
    while connection.recv():
        start = time.perf_counter()
        mx.eval(a @ b)
        connection.send(time.perf_counter() - start)


# Name -> how to measure it from a number of rounds, its target, and whether the figure should be at least that.
FIGURES: Mapping[str, tuple[Callable[[int], float], float, bool]] = {
    "matmul_1024_mlx_over_zoo": (blas_ratio, 10.0, True),
    "swa_masked_over_swa_1024": (window_ratio, 4.0, True),
    "swa_peak_bytes_2048_over_1024": (lambda _: window_memory_growth(), 2.3, False),
    "tiled_over_manual_peak_bytes_4096": (lambda _: tiled_memory_ratio(), 0.15, False),
    "linear_causal_over_bidirectional_512": (linear_ratio, 1.3, False),
    "llama_small_step_over_mlx_lm": (llama_ratio, 1.05, False),
}
