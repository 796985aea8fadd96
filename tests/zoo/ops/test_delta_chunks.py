"""The pieces of the chunked delta rule: the block inverse and the scan, with their own gradients."""

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from zoo.ops.delta_chunks import inverse_of_one_plus, scan


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 13, 32])
def test_the_inverse_inverts_what_is_below_the_diagonal(size: int) -> None:
    generator = np.random.default_rng(size)
    a = generator.standard_normal((2, 3, size, size)) / np.sqrt(size)
    expected = np.linalg.inv(np.eye(size) + np.tril(a, -1))
    actual = np.array(inverse_of_one_plus(mx.array(a.astype(np.float32))))
    assert np.abs(actual - expected).max() <= tolerance(mx.float32)


def test_the_inverse_stays_exact_where_all_keys_are_equal() -> None:
    """Where a product of powers of A would cancel numbers of 10¹⁸."""
    a = np.tril(np.ones((1, 1, 64, 64)), -1)
    actual = np.array(inverse_of_one_plus(mx.array(a.astype(np.float32))))
    assert np.abs(actual - np.linalg.inv(np.eye(64) + a)).max() <= tolerance(mx.float32)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_the_gradient_of_the_inverse_equals_directional_derivatives(size: int) -> None:
    generator = np.random.default_rng(size)
    a = np.tril(generator.standard_normal((1, 2, size, size)), -1)
    cotangent = generator.standard_normal(a.shape)
    direction = np.tril(generator.standard_normal(a.shape), -1)
    step = 1e-6
    ends = [(np.linalg.inv(np.eye(size) + a + sign * step * direction) * cotangent).sum() for sign in (1, -1)]

    def loss(a: mx.array) -> mx.array:
        return (inverse_of_one_plus(a) * mx.array(cotangent, dtype=mx.float32)).sum()

    gradient = np.array(mx.grad(loss)(mx.array(a, dtype=mx.float32)), dtype=np.float64)
    expected = (ends[0] - ends[1]) / (2 * step)
    found = (gradient * direction).sum()
    assert abs(found - expected) <= tolerance(mx.float32, gradient=True) * max(1.0, abs(expected))
    assert (gradient == np.tril(gradient, -1)).all(), "the rest of `a` is no input"


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_the_scan_and_its_gradient_equal_the_plain_loop(chunks: int) -> None:
    generator = np.random.default_rng(chunks)
    shapes = [(2, 3, chunks, 4, 4), (2, 3, chunks, 4, 4), (2, 3, 4, 4)]
    arrays = [mx.array(generator.standard_normal(shape).astype(np.float32) / 2) for shape in shapes]
    cotangent = mx.array(generator.standard_normal((2, 3, chunks + 1, 4, 4)).astype(np.float32))

    def plain(transition: mx.array, increment: mx.array, state: mx.array) -> mx.array:
        states = [state]
        for index in range(chunks):
            states.append(transition[:, :, index] @ states[-1] + increment[:, :, index])
        return mx.stack(states, axis=2)

    assert mx.abs(scan(*arrays) - plain(*arrays)).max().item() <= tolerance(mx.float32)
    ours, theirs = (
        mx.grad(lambda *inputs, form=form: (form(*inputs) * cotangent).sum(), argnums=(0, 1, 2))(*arrays)
        for form in (scan, plain)
    )
    for ours_one, theirs_one in zip(ours, theirs, strict=True):
        assert mx.abs(ours_one - theirs_one).max().item() <= tolerance(mx.float32, gradient=True)
