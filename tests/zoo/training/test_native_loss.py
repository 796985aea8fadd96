"""Cross-entropy in compiled kernels: values and gradients of float64, whatever comes in."""

import mlx.core as mx
import numpy as np
import pytest

from zoo.runtime.native import native_kernels_if_any, why_no_native

KERNELS = native_kernels_if_any()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=str(why_no_native()))

# Of float32 against float64; below the smallest normal number kernels give 0.
RELATIVE, SMALLEST = 2e-6, 1e-37


def reference(logits, targets, cotangents):
    """Nats and gradient in float64; the gradient at the target without cancellation."""
    logits = logits.astype(np.float64)
    with np.errstate(all="ignore"):
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        rows = np.arange(len(logits))
        others = weights.copy()
        others[rows, logits.argmax(-1)] = 0
        others, top = others.sum(-1), logits.max(-1)
        nats = np.log1p(others) + (top - logits[rows, targets])
        gradient = weights / (1 + others)[:, None]
        certain = weights[rows, targets] == 1
        gradient[rows, targets] = np.where(certain, -others / (1 + others), gradient[rows, targets] - 1)
        return nats, gradient * cotangents[:, None]


def computed(logits, targets, cotangents):
    nats, (gradient,) = mx.vjp(
        lambda x: KERNELS.cross_entropy(x, mx.array(targets)), [mx.array(logits)], [mx.array(cotangents)]
    )
    return np.array(nats[0]), np.array(gradient)


def assert_equal_to_reference(logits, targets, cotangents, smallest=SMALLEST):
    expected, found = reference(logits, targets, cotangents), computed(logits, targets, cotangents)
    for want, have in zip(expected, found, strict=True):
        np.testing.assert_allclose(have, want, rtol=RELATIVE, atol=smallest)


def drawn(P, V, *, scale=3.0, seed=0):
    generator = np.random.default_rng((seed, P, V))
    logits = (generator.standard_normal((P, V)) * scale).astype(np.float32)
    return logits, generator.integers(0, V, P).astype(np.int32), generator.random(P).astype(np.float32)


@pytest.mark.parametrize("P", [1, 13])
@pytest.mark.parametrize("V", [1, 2, 7, 31, 33, 1025, 40_001])
def test_nats_and_gradients_equal_the_reference(P, V):
    assert_equal_to_reference(*drawn(P, V))


@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-3, 10.0, 1e30])
def test_logits_of_any_size_equal_the_reference(scale):
    logits, targets, cotangents = drawn(9, 37)
    logits = (logits.astype(np.float64) * scale).astype(np.float32)
    # A logit's distance to the largest has an error of 2e-6 from 32 on, where probabilities are below 1e-13.
    assert_equal_to_reference(logits, targets, cotangents, smallest=1e-13)


@pytest.mark.parametrize("margin", [5.0, 12.0, 30.0, 80.0])
def test_nearly_certain_tokens_lose_no_digits(margin):
    logits, targets, cotangents = drawn(11, 65, scale=0.1)
    logits[np.arange(11), targets] = margin
    assert_equal_to_reference(logits, targets, cotangents)


def test_equal_largest_logits_share_the_probability():
    assert_equal_to_reference(np.full((3, 19), 7.5, np.float32), np.array([0, 18, 4]), np.ones(3, np.float32))


def test_forbidden_tokens_have_no_gradient_and_infinite_nats():
    logits, targets, cotangents = drawn(5, 21)
    logits[:, ::4] = -np.inf
    targets[:] = [1, 4, 3, 20, 7]
    assert_equal_to_reference(logits, targets, cotangents)
    assert np.isposinf(computed(logits, targets, cotangents)[0]).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 8, 20])
def test_what_is_no_number_makes_its_row_so_and_no_other(value, place):
    logits, targets, cotangents = drawn(4, 21)
    expected = computed(logits, targets, cotangents)
    cotangents[2] = 0
    logits[2, place] = value
    nats, gradient = computed(logits, targets, cotangents)
    assert np.isnan(nats).tolist() == np.isnan(gradient).any(-1).tolist() == [False, False, True, False]
    others = [0, 1, 3]
    np.testing.assert_array_equal(nats[others], expected[0][others])
    np.testing.assert_array_equal(gradient[others], expected[1][others])


def test_a_row_of_nothing_but_forbidden_tokens_is_no_number():
    nats, gradient = computed(np.full((1, 9), -np.inf, np.float32), np.array([3]), np.ones(1, np.float32))
    assert np.isnan(nats).all()
    assert np.isnan(gradient).all()


@pytest.mark.parametrize("target", [-1, 5, 2**31 - 1])
def test_a_target_outside_the_vocabulary_is_no_number(target):
    logits, targets, cotangents = drawn(3, 5)
    targets[1] = target
    nats, gradient = computed(logits, targets, cotangents)
    assert np.isnan(nats).tolist() == np.isnan(gradient).all(-1).tolist() == [False, True, False]


def test_nothing_to_predict_gives_nothing():
    nats, gradient = computed(np.zeros((0, 7), np.float32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert nats.shape == (0,)
    assert gradient.shape == (0, 7)


def test_strides_and_offsets_change_nothing():
    logits, targets, _ = drawn(8, 26)
    views = [
        (lambda x: x[1::3, 5:], lambda x: x[1::3, 5:]),
        (lambda x: x.T, lambda x: x.T),
        (lambda x: mx.broadcast_to(x[:1], (8, 26)), lambda x: np.broadcast_to(x[:1], (8, 26))),
    ]
    for view, same in views:
        whole = same(logits)
        at = (targets if len(whole) == 8 else np.resize(targets, len(whole))) % whole.shape[1]
        expected = reference(whole, at, np.ones(len(whole)))
        nats, gradient = mx.vjp(
            lambda x, view=view, at=at: KERNELS.cross_entropy(view(x), mx.array(at)).sum(),
            [mx.array(logits)],
            [mx.array(1.0)],
        )
        assert nats[0].item() == pytest.approx(expected[0].sum(), rel=RELATIVE)
        assert mx.abs(gradient[0]).sum().item() > 0


def test_the_gradient_is_written_over_logits_that_nothing_else_needs():
    P, V = 64, 20_011
    weight, targets = mx.random.normal((3, V)), mx.zeros(P, mx.int32)
    gradient = mx.grad(lambda x: KERNELS.cross_entropy(x @ weight, targets).sum())
    x = mx.random.normal((P, 3))
    mx.eval(x, weight, targets)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(gradient(x))
    assert mx.get_peak_memory() - before < 1.5 * P * V * 4


def test_logits_that_something_else_needs_are_kept():
    P, V = 64, 20_011
    logits = mx.random.normal((P, V)) + 1
    mx.eval(logits)
    before = np.array(logits)
    mx.eval(mx.grad(lambda x: KERNELS.cross_entropy(x, mx.zeros(P, mx.int32)).sum())(logits))
    np.testing.assert_array_equal(np.array(logits), before)


def test_results_do_not_depend_on_the_number_of_threads():
    arrays, threads = drawn(40, 3001), KERNELS.num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            KERNELS.set_num_threads(count)
            results.append(computed(*arrays))
    finally:
        KERNELS.set_num_threads(threads)
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (mx.zeros((2, 3, 4)), mx.zeros(2, mx.int32), "must be"),
        (mx.zeros((2, 3)), mx.zeros(3, mx.int32), "must be"),
        (mx.zeros((2, 3), mx.float16), mx.zeros(2, mx.int32), "float32"),
    ],
)
def test_other_shapes_and_types_are_refused(logits, targets, message):
    with pytest.raises(ValueError, match=message):
        KERNELS.cross_entropy(logits, targets)
