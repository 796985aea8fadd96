import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from tests.tolerances import tolerance
from tests.zoo.training.tiny import TinyLoader, assert_identical, tiny_model, tiny_optimizer
from zoo.training.batches import to_arrays
from zoo.training.step import EvaluationStep, StepOptions, TrainStep


def one_step(*, parts=1, compile_step=False, dtype=mx.float32, checkpointing=False, steps=1, attention="mha", clip=1.0):
    """Weights after some steps, and what the last one reported."""
    model = tiny_model(attention)
    model.checkpoint_gradients(checkpointing)
    optimizer = tiny_optimizer(model)
    options = StepOptions(causal=True, dtype=dtype, max_grad_norm=clip, compile=compile_step)
    step = TrainStep(model.train(), optimizer, options)
    for index in range(steps):
        batch = TinyLoader().batch(index)
        nats, norm, _ = step(to_arrays(batch, parts=parts), float(batch.weights_BL.sum()))
        mx.eval(nats, norm, step.state)
    return tree_flatten(model.parameters()), nats.item(), norm.item()


def largest_difference(left, right):
    return max(mx.abs(a - b).max().item() for (_, a), (_, b) in zip(left, right, strict=True))


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_accumulated_parts_equal_the_whole_batch(parts):
    # Plain descent, since AdamW divides by a root that magnifies rounding where gradients vanish.
    whole, whole_nats, whole_norm = gradients(parts=1)
    split, split_nats, split_norm = gradients(parts=parts)
    assert split_nats == pytest.approx(whole_nats, rel=1e-6)
    assert split_norm == pytest.approx(whole_norm, rel=1e-5)
    assert largest_difference(whole, split) <= 1e-6


def gradients(*, parts, checkpointing=False, dropout=0.0):
    """The gradients of a step's loss, seen through an optimizer that does nothing but keep them."""
    model = tiny_model(dropout=dropout)
    model.checkpoint_gradients(checkpointing)
    kept = []

    class Keeper:
        def __init__(self):
            self.state = {}

        def update(self, _model, given):
            kept.append(given)

    step = TrainStep(model.train(), Keeper(), StepOptions(causal=True, max_grad_norm=None, compile=False))
    batch = TinyLoader().batch(0)
    nats, norm, _ = step(to_arrays(batch, parts=parts), float(batch.weights_BL.sum()))
    return tree_flatten(kept[0]), nats.item(), norm.item()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradient_checkpointing_changes_no_gradient(dropout):
    plain, plain_nats, _ = gradients(parts=1, dropout=dropout)
    recomputed, recomputed_nats, _ = gradients(parts=1, dropout=dropout, checkpointing=True)
    assert recomputed_nats == plain_nats
    assert max(mx.abs(array).max().item() for _, array in plain) > 1e-3
    assert largest_difference(plain, recomputed) <= tolerance(mx.float32, gradient=True) / 100


@pytest.mark.parametrize("parts", [1, 2])
def test_compiled_step_equals_eager(parts):
    eager, eager_nats, eager_norm = one_step(parts=parts, steps=2)
    compiled, compiled_nats, compiled_norm = one_step(parts=parts, steps=2, compile_step=True)
    assert compiled_nats == pytest.approx(eager_nats, rel=1e-5)
    assert compiled_norm == pytest.approx(eager_norm, rel=1e-4)
    # After two steps of AdamW at a rate of 1e-2, weights have moved by about as much.
    assert largest_difference(eager, compiled) <= 1e-4


def test_below_float32_the_weights_stay_float32():
    weights, nats, _ = one_step(dtype=mx.bfloat16)
    _, exact_nats, _ = one_step()
    assert {array.dtype for _, array in weights} == {mx.float32}
    assert nats != exact_nats
    assert nats == pytest.approx(exact_nats, rel=tolerance(mx.bfloat16))


def test_clipping_bounds_the_norm_and_reports_it_unclipped():
    def first_moments(clip):
        model = tiny_model()
        optimizer = tiny_optimizer(model)
        step = TrainStep(model.train(), optimizer, StepOptions(causal=True, max_grad_norm=clip, compile=False))
        batch = TinyLoader().batch(0)
        _, norm, _ = step(to_arrays(batch), float(batch.weights_BL.sum()))
        moments = [array for name, array in tree_flatten(optimizer.state) if name.endswith(".m")]
        # AdamW's first mean is a tenth of the (clipped) gradient.
        return norm.item(), 10 * sum(mx.square(array).sum().item() for array in moments) ** 0.5

    free_norm, free = first_moments(None)
    clipped_norm, clipped = first_moments(free_norm / 7)
    assert clipped_norm == pytest.approx(free_norm, rel=1e-6)
    assert free == pytest.approx(free_norm, rel=1e-4)
    assert clipped == pytest.approx(free_norm / 7, rel=1e-4)


def test_an_evaluation_changes_nothing():
    model = tiny_model(dropout=0.5)
    before = [(name, mx.array(array)) for name, array in tree_flatten([model.parameters(), list(mx.random.state)])]
    step = EvaluationStep(model.eval(), StepOptions(causal=True, dtype=mx.bfloat16, compile=False))
    (arrays,) = to_arrays(TinyLoader().batch(0))
    assert [each.item() for each in step(arrays)] == [each.item() for each in step(arrays)]
    assert_identical(before, tree_flatten([model.parameters(), list(mx.random.state)]))
