"""A worker announces what it is about to do, each call on its own."""

import multiprocessing

import mlx.core as mx

from eval.speed import worker
from eval.speed.protocol import Finished, Measured, MeasureOptions, MemoryJob
from tests.eval.speed.cells import planted

OPTIONS = MeasureOptions(builders="tests.eval.speed.planted")


def test_each_call_of_a_memory_job_is_a_step_so_that_slow_ones_together_do_not_count_as_hung() -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.send(worker.BEGIN)
    steps = [worker.NO_CELL, 0, 0]
    worker.serve(MemoryJob(cell=planted("adds"), options=OPTIONS), theirs, steps)
    assert isinstance(ours.recv(), Measured)
    assert isinstance(ours.recv(), Finished)
    # One build, a call that compiles, and at least five whose peaks are compared.
    assert steps[worker.STEPS] >= 1 + 1 + 5


def test_the_peak_of_a_call_counts_its_inputs_and_outputs() -> None:
    mebibyte = 2**20
    mx.clear_cache()
    before = mx.get_active_memory()
    a = mx.ones((8, mebibyte // 4))
    mx.eval(a)
    peak = worker.peak_bytes_of_calls(lambda: a + 1) - before
    assert 16 * mebibyte <= peak < 20 * mebibyte
