"""What compiled attention does at the edges: no tokens, rows without keys, numbers that are none, threads."""

import concurrent.futures
import dataclasses

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.ops.oracle import gradients, qkv, value_error
from tests.zoo.ops.test_native_fuzz import RandomPattern
from zoo.ops.masks import MaskSpec
from zoo.ops.native import native
from zoo.ops.softmax import ScoreSpec
from zoo.runtime.native import native_kernels, why_no_native

pytestmark = pytest.mark.skipif(why_no_native() is not None, reason=str(why_no_native()))

PLAIN = ScoreSpec(scale=0.3, mask=MaskSpec(causal=False))
CAUSAL = ScoreSpec(scale=0.3, mask=MaskSpec(causal=True))


@pytest.fixture
def threads():
    """Sets the number of threads, until the test ends."""
    kernels = native_kernels()
    before = kernels.num_threads()
    yield kernels.set_num_threads
    kernels.set_num_threads(before)


def results(arrays, spec):
    """y, dq, dk and dv."""
    cotangent = np.random.default_rng(5).standard_normal(arrays[0].shape)
    return [np.array(native(*[mx.array(array) for array in arrays], spec)), *gradients(native, arrays, spec, cotangent)]


@pytest.mark.parametrize(("B", "L", "S"), [(2, 0, 0), (2, 3, 0), (2, 0, 5), (0, 3, 3)])
@pytest.mark.parametrize("spec", [PLAIN, CAUSAL], ids=["bidirectional", "causal"])
def test_without_tokens_there_are_zeros_or_nothing(B, L, S, spec):
    arrays = qkv(0, B=B, N=4, K=2, L=L, S=S)
    y, *derivatives = results(arrays, spec)
    assert y.shape == (B, 4, L, 10)
    assert [each.shape for each in derivatives] == [array.shape for array in arrays]
    assert all((each == 0).all() for each in (y, *derivatives))


@pytest.mark.parametrize("L", [1, 37])
def test_a_row_that_sees_no_key_is_zero_and_changes_nothing(L):
    arrays = qkv(1, B=3, N=4, K=2, L=L, S=L)
    spec = ScoreSpec(scale=0.3, mask=MaskSpec(causal=False, lengths_B=mx.array([L, 0, L])))
    y, dq, dk, dv = results(arrays, spec)
    for each in (y, dq, dk, dv):
        assert (each[1] == 0).all()
        assert (np.abs(each[[0, 2]]).max(axis=(-1, -2)) > 0).all() or (L == 1 and each is not y)
    nothing = dataclasses.replace(PLAIN, pattern=RandomPattern(0, 0.0))
    assert all((each == 0).all() for each in results(arrays, nothing))


@pytest.mark.parametrize("L", [1, 37])
def test_a_query_that_is_no_number_spoils_its_own_row_and_no_other(L):
    arrays = qkv(2, B=2, N=4, K=2, L=L, S=41)
    whole = results(arrays, PLAIN)
    arrays[0][1, 2, L // 2, 3] = np.nan
    spoilt = np.zeros((2, 4, L), dtype=bool)
    spoilt[1, 2, L // 2] = True
    y, dq, dk, dv = results(arrays, PLAIN)
    for found, before in zip((y, dq), whole, strict=False):
        assert np.isnan(found[spoilt]).all()
        np.testing.assert_array_equal(found[~spoilt], before[~spoilt])
    # Of the keys that it sees, those of its own head, no gradient can be told.
    for found, before in zip((dk, dv), whole[2:], strict=True):
        assert np.isnan(found[1, 1]).all()
        np.testing.assert_array_equal(found[[0, 0, 1], [0, 1, 0]], before[[0, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize("which", [1, 2])
def test_a_key_that_is_no_number_spoils_the_queries_that_see_it(which):
    arrays = qkv(3, B=1, N=2, K=1, L=150, S=150)
    whole = results(arrays, CAUSAL)[0]
    arrays[which][0, 0, 70, 3] = np.nan
    y = results(arrays, CAUSAL)[0]
    # Values hidden within a tile may be added with weight 0; the tiles before it never see them.
    assert np.isnan(y[:, :, 70:]).any(axis=-1).all()
    np.testing.assert_array_equal(y[:, :, :64], whole[:, :, :64])


def test_a_score_without_bound_is_no_number_and_one_below_all_is_nothing():
    arrays = qkv(4, B=1, N=1, K=1, L=3, S=5)
    arrays[0][:], arrays[1][:] = 1.0, 1.0
    arrays[1][0, 0, 2] = -np.inf
    assert value_error(native, arrays, PLAIN) < 1e-6
    arrays[1][0, 0, 2] = np.inf
    assert np.isnan(results(arrays, PLAIN)[0]).all()


@pytest.mark.parametrize("factor", [1e4, 1e10])
def test_huge_scores_choose_one_key(factor):
    arrays = qkv(5, B=1, N=2, K=1, L=19, S=33)
    arrays[0] *= factor
    y, *derivatives = results(arrays, PLAIN)
    chosen = (arrays[0].astype(np.float64) @ arrays[1].swapaxes(-1, -2)).argmax(axis=-1)
    np.testing.assert_allclose(y[0], arrays[2][0, 0][chosen[0]], rtol=1e-6)
    assert all(np.isfinite(each).all() for each in derivatives)


def test_numbers_below_the_normal_ones_are_summed_as_others():
    arrays = qkv(6, B=1, N=2, K=1, L=19, S=33)
    expected = results(arrays, PLAIN)[0]
    arrays[2] *= np.float32(2.0**-130)
    np.testing.assert_allclose(results(arrays, PLAIN)[0].astype(np.float64) * 2.0**130, expected, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 3])
def test_results_repeat_and_no_number_of_threads_changes_what_rows_compute_alone(heads, threads):
    arrays = qkv(7, B=1, N=2 * heads, K=heads, L=500, H=16)
    reference = None
    for count in (1, 2, 3, 5):
        threads(count)
        first, second = results(arrays, CAUSAL), results(arrays, CAUSAL)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)
        reference = reference or first
        # Of few heads the gradients of keys and values are summed in as many parts as there are threads.
        for name, one, other in zip(("y", "dq"), first, reference, strict=False):
            np.testing.assert_array_equal(one, other, err_msg=name)
        for one, other in zip(first[2:], reference[2:], strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6 * np.abs(other).max())


def test_streams_that_compute_at_once_and_a_pool_that_changes_do_not_disturb_each_other(threads):
    jobs = [(qkv(number, B=2, N=4, K=2, L=150 + number), CAUSAL) for number in range(6)]
    expected = [results(arrays, spec) for arrays, spec in jobs]

    def compute(number):
        with mx.stream(mx.new_stream(mx.cpu)):
            return [results(*jobs[number]) for _ in range(3)]

    with concurrent.futures.ThreadPoolExecutor(3) as executor:
        asked = [executor.submit(compute, number) for number in range(6)]
        count = 0
        while not all(each.done() for each in asked):
            count = count % 5 + 1
            threads(count)
    for each, alone in zip(asked, expected, strict=True):
        for found in each.result():
            for one, other in zip(found, alone, strict=True):
                np.testing.assert_allclose(one, other, atol=2e-6 * np.abs(other).max())
