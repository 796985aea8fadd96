"""Steps of optimizers in compiled kernels: those of MLX and of float64, whatever comes in."""

import mlx.core as mx
import numpy as np
import pytest
from mlx import optimizers
from mlx.utils import tree_flatten, tree_unflatten

from tests.zoo.training.tiny import tiny_model, tiny_optimizer
from zoo.runtime.native import native_kernels_if_any, why_no_native
from zoo.training.updates import update_clipped

KERNELS = native_kernels_if_any()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=str(why_no_native()))

# Of float32 against float64.
RELATIVE = 2e-6
SHAPES = [(), (1,), (7,), (1, 5), (5, 1), (33, 129), (70, 300), (2, 3, 5), (40_001,), (0, 4)]
RATE, BETAS, EPS, DECAY = 3e-3, (0.9, 0.95), 1e-8, 0.1


def drawn(shape, seed):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def adamw(p, g, m, v, step):
    """A step in float64."""
    m = BETAS[0] * m + (1 - BETAS[0]) * g
    v = BETAS[1] * v + (1 - BETAS[1]) * g**2
    root = np.sqrt(v / (1 - BETAS[1] ** step))
    return p * (1 - RATE * DECAY) - RATE * m / (1 - BETAS[0] ** step) / (root + EPS), m, v


def lion(p, g, m):
    """A step in float64."""
    return (
        p * (1 - RATE * DECAY) - RATE * np.sign(BETAS[0] * m + (1 - BETAS[0]) * g),
        BETAS[1] * m + (1 - BETAS[1]) * g,
    )


def computed_adamw(p, g, m, v, *, step=1, scale=1.0):
    arrays = (each if isinstance(each, mx.array) else mx.array(each) for each in (p, g, m, v))
    rates = {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "weight_decay": DECAY}
    return KERNELS.adamw(*arrays, rate=mx.array(RATE), step=mx.array(step, mx.uint64), scale=mx.array(scale), **rates)


def assert_close(found, expected, rtol=RELATIVE):
    for have, want in zip(found, expected, strict=True):
        # What is subtracted from a parameter may leave little of it.
        np.testing.assert_allclose(np.array(have), want, rtol=rtol, atol=rtol * 1e-1)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_of_adamw_equal_float64(shape, transposed):
    p, m, v = drawn(shape, 0), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    exact, found = [each.astype(np.float64) for each in (p, m, v)], [mx.array(each) for each in (p, m, v)]
    for step in (1, 2, 3):
        g = drawn(shape, step)
        exact = list(adamw(exact[0], 0.5 * g.astype(np.float64), *exact[1:], step))
        gradient = mx.contiguous(mx.array(g).T).T if transposed else mx.array(g)
        found = computed_adamw(found[0], gradient, *found[1:], step=step, scale=0.5)
    assert_close(found, exact)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_of_lion_equal_float64(shape, transposed):
    p, m = drawn(shape, 0), np.zeros(shape, np.float32)
    exact, found = [each.astype(np.float64) for each in (p, m)], [mx.array(each) for each in (p, m)]
    for step in (1, 2, 3):
        g = drawn(shape, step)
        exact = list(lion(exact[0], 0.5 * g.astype(np.float64), exact[1]))
        gradient = mx.contiguous(mx.array(g).T).T if transposed else mx.array(g)
        rates = {"beta1": BETAS[0], "beta2": BETAS[1], "weight_decay": DECAY}
        found = KERNELS.lion(found[0], gradient, found[1], rate=mx.array(RATE), scale=mx.array(0.5), **rates)
    assert_close(found, exact)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_directions_of_muon_and_steps_along_them_equal_float64(shape, transposed, nesterov):
    def laid_out(x):
        return mx.contiguous(mx.array(x).T).T if transposed else mx.array(x)

    p, m = drawn(shape, 0), np.zeros(shape, np.float32)
    exact, found = m.astype(np.float64), mx.array(m)
    for step in (1, 2, 3):
        given = drawn(shape, step)
        gradient = laid_out(given)
        g = 0.5 * given.astype(np.float64) + DECAY * p
        exact = 0.95 * exact + 0.05 * g
        direction, found = KERNELS.muon(
            mx.array(p), gradient, found, scale=mx.array(0.5), momentum=0.95, nesterov=nesterov, weight_decay=DECAY
        )
        assert_close([direction, found], [0.05 * g + 0.95 * exact if nesterov else exact, exact])
        # Not written over what it was made of, which something else needs here.
        np.testing.assert_array_equal(np.array(gradient), given)
        turned = laid_out(np.array(direction))
        moved = KERNELS.descent(mx.array(p), turned, rate=mx.array(RATE))
        assert_close([moved], [p - RATE * np.array(direction).astype(np.float64)])


@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-25, 1e-12, 1e12, 1e30])
def test_gradients_of_any_size_give_the_steps_of_mlx(size):
    g = (drawn((3, 19), 1).astype(np.float64) * size).astype(np.float32)
    p, zeros = mx.array(drawn((3, 19), 0)), mx.zeros((3, 19))
    theirs = optimizers.AdamW(RATE, betas=list(BETAS), eps=EPS, weight_decay=DECAY, bias_correction=True)
    expected = theirs.apply_gradients({"p": mx.array(g)}, {"p": p})
    found = computed_adamw(p, g, zeros, zeros)
    np.testing.assert_allclose(np.array(found[0]), np.array(expected["p"]), rtol=RELATIVE, atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0), (2, 18)])
def test_what_is_no_number_stays_in_its_place(value, place):
    p, g, zeros = drawn((3, 19), 0), drawn((3, 19), 1), np.zeros((3, 19), np.float32)
    expected = [np.array(each) for each in computed_adamw(p, g, zeros, zeros)]
    g[place] = value
    with np.errstate(invalid="ignore"):
        at = adamw(*(each[place].astype(np.float64) for each in (p, g, zeros, zeros)), 1)
    for have, want, here in zip(computed_adamw(p, g, zeros, zeros), expected, at, strict=True):
        want[place] = here
        np.testing.assert_array_equal(np.array(have), want)


def test_views_and_copies_give_the_same_step():
    p, g, m, v = (mx.array(drawn((9, 14), seed)) for seed in range(4))
    v = mx.abs(v)

    def view(x):
        return mx.concatenate([x, x, x], axis=1)[:, 14:28]

    expected = computed_adamw(p, g, m, v)
    for arrays in ([view(each) for each in (p, g, m, v)], [mx.contiguous(each.T).T for each in (p, g, m, v)]):
        for have, want in zip(computed_adamw(*arrays), expected, strict=True):
            assert mx.array_equal(have, want).item()
    spread = computed_adamw(p, mx.broadcast_to(g[:1], p.shape), m, v)
    for have, want in zip(spread, computed_adamw(p, mx.repeat(g[:1], 9, axis=0), m, v), strict=True):
        assert mx.array_equal(have, want).item()


def test_a_step_is_written_over_what_it_replaces_unless_something_else_needs_it():
    shape = (700, 900)
    for kept in (0, 1, 2, 3):
        p, m, v, g = (mx.array(drawn(shape, seed) ** 2) for seed in range(4))
        mx.eval(p, m, v, g)
        held = [p, m, v][:kept]
        before = [np.array(each) for each in held]
        mx.reset_peak_memory()
        active = mx.get_active_memory()
        p, m, v = computed_adamw(p, g, m, v)
        mx.eval(p, m, v)
        assert mx.get_peak_memory() - active < (kept + 0.1) * p.nbytes
        for have, want in zip(held, before, strict=True):
            np.testing.assert_array_equal(np.array(have), want)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25])
def test_the_global_norm_equals_float64(size):
    arrays = [(drawn(shape, 0).astype(np.float64) * size).astype(np.float32) for shape in SHAPES]
    expected = np.sqrt(sum((each.astype(np.float64) ** 2).sum() for each in arrays))
    norm = KERNELS.global_norm([mx.array(each).T for each in arrays])
    assert norm.item() == pytest.approx(expected, rel=2e-7)
    assert KERNELS.global_norm([]).item() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_global_norm_of_what_is_no_number_is_none(value):
    arrays = [mx.zeros(70_000), mx.array([1.0, value, 2.0])]
    np.testing.assert_array_equal(np.array(KERNELS.global_norm(arrays)), np.float32(value))


@pytest.mark.parametrize("limit", [None, 0.1])
@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_clipped_updates_equal_those_of_mlx(name, limit, monkeypatch):
    def run(*, native):
        if not native:
            monkeypatch.setattr("zoo.training.updates.kernels_for", lambda *_: None)
        model = tiny_model()
        optimizer = tiny_optimizer(model, name)
        norms = []
        for step in (1, 2, 3):
            gradients = {
                path: mx.random.normal(array.shape, key=mx.random.key(step))
                for path, array in tree_flatten(model.trainable_parameters())
            }
            norms.append(update_clipped(optimizer, model, tree_unflatten(list(gradients.items())), limit))
        return norms, tree_flatten([model.parameters(), optimizer.state])

    found, expected = run(native=True), run(native=False)
    np.testing.assert_allclose(np.array(found[0]), np.array(expected[0]), rtol=RELATIVE)
    assert [name for name, _ in found[1]] == [name for name, _ in expected[1]]
    for (path, have), (_, want) in zip(found[1], expected[1], strict=True):
        assert have.dtype == want.dtype
        np.testing.assert_allclose(np.array(have), np.array(want), rtol=1e-5, atol=1e-6, err_msg=path)
