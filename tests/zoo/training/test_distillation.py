import copy
import dataclasses

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.tolerances import tolerance
from tests.zoo.training.tiny import TinyLoader, assert_identical, tiny_model, tiny_optimizer
from zoo.attention import variant_from_mapping
from zoo.models import build_model
from zoo.ops.masks import MaskSpec
from zoo.training import AttentionTransfer, Divergence, StepOptions, TrainStep, original_of
from zoo.training.batches import to_arrays
from zoo.training.loss import divergence_nats, summed_divergence

WINDOW = {"name": "swa", "mechanism": "sliding_window", "window_size": 3}


def pair(**choices):
    """An original, and a student of the same weights with another attention."""
    # Weights as large as learnt ones, so that scores matter.
    original = original_of(tiny_model("mha", init_std=0.3, **choices), dtype=mx.float32)
    config = dataclasses.replace(original.config, attention=variant_from_mapping(WINDOW))
    student = build_model(config)
    student.update(copy.deepcopy(original).parameters())
    return original, student.train()


def copied(model):
    return [(name, mx.array(np.array(array))) for name, array in tree_flatten(model.parameters())]


def trained(objective, student, *, steps, parts=1, compiled=False):
    """The loss and the details of every step."""
    learner = objective.learner(student)
    options = StepOptions(causal=True, compile=compiled)
    step = TrainStep(student, tiny_optimizer(learner), options, objective)
    found = []
    for index in range(steps):
        batch = TinyLoader().batch(index)
        weight = objective.weight(batch)
        loss, norm, details = step(to_arrays(batch, parts=parts), weight)
        mx.eval(loss, norm, step.state)
        found.append((loss.item() / weight, {name: each.item() / weight for name, each in details.items()}))
    return found


def test_each_exchanged_layer_learns_the_originals_output_and_nothing_else_changes():
    original, student = pair()
    before, of_original = dict(copied(student)), copied(original)
    found = trained(AttentionTransfer(original, [0, 1]), student, steps=12)
    assert_identical(of_original, tree_flatten(original.parameters()))
    assert found[0][0] == pytest.approx(np.mean([*found[0][1].values()]), rel=1e-6)
    assert [*found[0][1]] == ["attention_loss/layer_0", "attention_loss/layer_1"]
    assert all(found[-1][1][name] < 0.9 * first for name, first in found[0][1].items())
    changed = {name for name, array in tree_flatten(student.parameters()) if not mx.array_equal(array, before[name])}
    assert {name.rpartition(".")[0] for name in changed} == {
        f"layers.{index}.self_attn.{part}_proj" for index in (0, 1) for part in "qkvo"
    }


def test_an_original_shares_its_arrays_and_nothing_else():
    model = tiny_model("mha", hidden_size=64, intermediate_size=512)
    mx.eval(model.parameters())
    before = mx.get_active_memory()
    original = original_of(model, dtype=mx.float32)
    mx.eval(original.parameters())
    assert mx.get_active_memory() == before
    assert not tree_flatten(original.trainable_parameters())
    assert len(tree_flatten(model.trainable_parameters())) == len(tree_flatten(model.parameters()))
    narrow = original_of(model, dtype=mx.bfloat16)
    assert {array.dtype for _, array in tree_flatten(narrow.parameters())} == {mx.bfloat16}
    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {mx.float32}


def test_a_layer_gets_what_the_original_gets():
    original, student = pair()
    (arrays,) = to_arrays(TinyLoader().batch(0))
    clean, _ = AttentionTransfer(original, [1])(student, arrays, causal=True, rows=None)
    for array in (student.layers[0].self_attn.v_proj, student.layers[0].mlp.up_proj, student.embed_tokens):
        array.weight = array.weight + 1
    found, details = AttentionTransfer(original, [1])(student, arrays, causal=True, rows=None)
    assert found.item() == clean.item() > 0
    assert [*details] == ["attention_loss/layer_1"]


def test_padding_is_not_matched():
    original, student = pair()
    (arrays,) = to_arrays(TinyLoader().batch(0))
    arrays["lengths_B"] = mx.array([13, 2, 1, 7, 4, 9])
    valid = (mx.arange(13) < arrays["lengths_B"][:, None])[..., None]
    mask = MaskSpec(causal=True)
    found, _ = AttentionTransfer(original, [0])(student, arrays, causal=True, rows=None)
    x = original.layers[0].attention_input(original.embedded(arrays["inputs_BL"], mask))
    errors = mx.square(student.layers[0].self_attn(x, mask=mask) - original.layers[0].self_attn(x, mask=mask))
    assert found.item() == pytest.approx((errors * valid).mean(-1).sum().item(), rel=1e-5)


def test_parts_and_a_compiled_step_equal_the_whole_and_an_eager_one():
    found, weights = [], []
    for parts, compiled in ((1, False), (3, False), (1, True)):
        original, student = pair()
        found.append(trained(AttentionTransfer(original, [0, 1]), student, steps=3, parts=parts, compiled=compiled))
        weights.append(dict(copied(student)))
    for other in found[1:]:
        assert [loss for loss, _ in other] == pytest.approx([loss for loss, _ in found[0]], rel=1e-3)
        assert [*other[2][1].values()] == pytest.approx([*found[0][2][1].values()], rel=1e-3)
    for name, array in weights[0].items():
        # After three steps of AdamW at a rate of 1e-2, weights have moved by about as much.
        assert mx.abs(weights[2][name] - array).max() <= 1e-4, name


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_divergence_and_its_gradient_equal_the_reference(temperature):
    generator = np.random.default_rng(3)
    logits, original = generator.standard_normal((2, 7, 11)) * 3

    def reference(logits):
        exps = (np.exp(each / temperature) for each in (original, logits))
        p, q = (each / each.sum(-1, keepdims=True) for each in exps)
        return temperature**2 * (p * np.log(p / q)).sum(-1), temperature * (q - p)

    nats, gradient = mx.value_and_grad(lambda x: divergence_nats(x, mx.array(original), temperature=temperature).sum())(
        mx.array(logits)
    )
    expected, expected_gradient = reference(logits)
    assert nats.item() == pytest.approx(expected.sum(), rel=1e-5)
    assert np.abs(np.array(gradient) - expected_gradient).max() <= tolerance(mx.float32, gradient=True)


@pytest.mark.parametrize("rows", [None, 5])
def test_a_model_that_is_the_original_is_at_zero_and_stays_there(rows):
    original = original_of(tiny_model("mha"), dtype=mx.float32)
    student = tiny_model("mha")
    (arrays,) = to_arrays(TinyLoader().batch(0))
    loss = nn.value_and_grad(student, lambda: summed_divergence(student, original, arrays, causal=True, rows=rows))
    nats, gradients = loss()
    assert nats.item() == 0
    assert all(mx.all(array == 0).item() for _, array in tree_flatten(gradients))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_divergence_in_chunks_is_that_of_the_whole(frozen):
    original, student = pair(tie_word_embeddings=False)
    if frozen:
        student.lm_head.freeze()
        student.norm.freeze()
    (arrays,) = to_arrays(TinyLoader().batch(0))
    (nats, gradients), (whole_nats, whole_gradients) = (
        nn.value_and_grad(
            student,
            lambda rows=rows: summed_divergence(student, original, arrays, causal=True, temperature=2.0, rows=rows),
        )()
        for rows in (5, None)
    )
    assert nats.item() == pytest.approx(whole_nats.item(), rel=1e-5)
    assert nats.item() > 1e-3
    few, whole = dict(tree_flatten(gradients)), dict(tree_flatten(whole_gradients))
    assert few.keys() == whole.keys()
    for name, gradient in few.items():
        assert mx.abs(gradient - whole[name]).max().item() <= tolerance(mx.float32, gradient=True), name


def test_a_student_of_the_divergence_comes_closer_and_its_original_stays():
    original, student = pair()
    before = copied(original)
    found = trained(Divergence(original, temperature=1.0), student, steps=10)
    assert found[-1][0] < 0.75 * found[0][0]
    assert_identical(before, tree_flatten(original.parameters()))
