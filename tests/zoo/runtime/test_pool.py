"""Matrix products on the pool of the native kernels: the same numbers, whoever computes which part."""

import ctypes
import itertools
import os
import signal
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.runtime.test_blas import bound_library, run
from zoo.runtime import blas, pool
from zoo.runtime.native import native_kernels, why_no_native
from zoo.runtime.threads import usable_cores

pytestmark = pytest.mark.skipif(
    pool.library() is None or not blas.active().pooled, reason=why_no_native() or "the BLAS in use has no pool"
)
# Rows or columns are cut, or neither; whole parts and a rest.
SIZES = [(1, 1, 1), (700, 50, 90), (90, 50, 701), (1000, 64, 1000), (97, 2000, 98), (3000, 1, 500), (256, 1024, 256)]
# Whole tiles and rests of them, sums of several rounds, and more lines than are packed at a time.
SIZES += [
    (14, 384, 320),
    (113, 385, 97),
    (29, 1153, 33),
    (2101, 40, 2201),
    (2049, 770, 17),
    (15, 500, 2177),
    (16, 64, 700),
]
# Long sums with small results, as gradients of weights are.
SIZES += [(128, 1024, 128), (40, 4099, 60), (16, 30000, 16), (300, 2000, 250)]
# Of one row or one column, which are computed in another way.
SIZES += [(1, 700, 3000), (3000, 700, 1), (1, 5000, 1), (1, 20, 30), (1, 1, 500)]


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    kernels = native_kernels()
    before = kernels.num_threads()
    kernels.set_num_threads(request.param)
    yield request.param
    kernels.set_num_threads(before)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_are_right_however_they_are_cut(size, threads):
    M, K, N = size
    generator = np.random.default_rng(0)
    a, b, c = (generator.standard_normal(shape).astype(np.float32) for shape in ((M, K), (K, N), (M, N)))
    expected = a.astype(np.float64) @ b
    for of_a, of_b in itertools.product((False, True), repeat=2):
        left = mx.array(np.ascontiguousarray(a.T)).T if of_a else mx.array(a)
        right = mx.array(np.ascontiguousarray(b.T)).T if of_b else mx.array(b)
        np.testing.assert_allclose(np.array(left @ right), expected, atol=2e-6 * K**0.5 * 10)
        added = np.array(mx.addmm(mx.array(c), left, right, alpha=0.5, beta=2.0))
        np.testing.assert_allclose(added, 0.5 * expected + 2.0 * c, atol=2e-6 * K**0.5 * 10)


def test_mlx_multiplies_on_the_pool_with_a_blas_that_uses_one_thread(tmp_path):
    assert run()["pooled"]
    assert bound_library(tmp_path) == str(pool.library())
    assert run(OPENBLAS_NUM_THREADS="1")["num_threads"] == 1


def test_without_the_package_the_blas_has_threads_of_its_own():
    report = run(ZOO_NATIVE="none")
    assert (report["pooled"], report["num_threads"]) == (False, usable_cores())


def test_the_pool_itself_is_no_blas():
    report = run(ZOO_BLAS=str(pool.library()))
    assert (report["how"], report["entry"]) == ("scipy-openblas32", 1024)
    (warning,) = report["warnings"]
    assert "needs a BLAS behind it; using scipy-openblas32 instead" in warning


def test_equal_products_are_equal_to_the_last_bit(threads):
    generator = np.random.default_rng(0)
    for M, K, N in SIZES:
        left, right = (mx.array(generator.standard_normal(shape).astype(np.float32)) for shape in ((M, K), (K, N)))
        first = left @ right
        mx.eval(first)
        assert all(mx.array_equal(left @ right, first) for _ in range(3))


def product_on_the_pool(rows, columns=None, inner=None, *, before=0.0):
    """A product by the pool's own function, without MLX, whose threads no child has."""
    columns = columns or rows
    inner = inner or max(rows, columns)
    arrays = [np.ones((rows, inner), dtype=np.float32), np.ones((inner, columns), dtype=np.float32)]
    result = np.full((rows, columns), before, dtype=np.float32)
    left, right, to = (ctypes.c_void_p(array.ctypes.data) for array in (*arrays, result))
    sizes = [ctypes.c_int(size) for size in (rows, columns, inner)]
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    ctypes.CDLL(str(pool.library())).cblas_sgemm(
        *(101, 111, 111), *sizes, one, left, sizes[2], right, sizes[1], zero, to, sizes[1]
    )
    return bool((result == inner).all())


@pytest.mark.parametrize("shape", [(1, 900), (900, 1), (300, 200), (60, 50, 4000)])
def test_what_was_there_counts_for_nothing(shape, threads):
    assert product_on_the_pool(*shape, before=np.nan)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_a_pool_of_its_own():
    before = native_kernels().num_threads()
    native_kernels().set_num_threads(3)
    try:
        assert product_on_the_pool(400)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            right = product_on_the_pool(400) and len(list(Path("/proc/self/task").iterdir())) == 3
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0
        # The parent's is as it was.
        assert product_on_the_pool(400)
    finally:
        native_kernels().set_num_threads(before)
