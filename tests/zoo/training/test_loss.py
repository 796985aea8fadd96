import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.tolerances import tolerance
from tests.zoo.training.tiny import LENGTH, ROWS, TinyLoader, tiny_model
from zoo.runtime.native import why_no_native
from zoo.training.batches import to_arrays
from zoo.training.loss import judged, summed_nats, token_nats

P, V = 7, 11


def reference(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Weighted nats and their gradient in float64."""
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(-1, keepdims=True)) + top
    nats = (log_sum - np.take_along_axis(logits, targets[:, None], -1))[:, 0]
    onehot = np.eye(logits.shape[-1])[targets]
    return float((nats * weights).sum()), (np.exp(logits - log_sum) - onehot) * weights[:, None]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_nats_and_their_gradient_equal_the_reference(dtype, scale):
    generator = np.random.default_rng(0)
    logits = mx.array(generator.standard_normal((P, V)) * scale).astype(dtype)
    targets, weights = generator.integers(0, V, P), generator.random(P)

    def loss(x):
        return (token_nats(x, mx.array(targets)) * mx.array(weights)).sum()

    value, gradient = mx.value_and_grad(loss)(logits)
    expected_value, expected_gradient = reference(np.array(logits.astype(mx.float32)), targets, weights)
    assert value.item() == pytest.approx(expected_value, rel=1e-5)
    difference = np.abs(np.array(gradient.astype(mx.float32)) - expected_gradient).max()
    assert difference <= tolerance(dtype, gradient=True)


def test_nats_equal_those_of_mlx():
    logits, targets = mx.random.normal((P, V)), mx.random.randint(0, V, (P,))
    difference = mx.abs(token_nats(logits, targets) - nn.losses.cross_entropy(logits, targets))
    assert mx.max(difference).item() <= tolerance(mx.float32)


def test_probabilities_of_a_huge_logit_are_finite():
    logits = mx.array([[1e4, 0.0, -1e4], [0.0, 1e4, 0.0]])
    value, gradient = mx.value_and_grad(lambda x: token_nats(x, mx.array([0, 2])).sum())(logits)
    assert value.item() == pytest.approx(1e4)
    assert mx.all(mx.isfinite(gradient)).item()


def test_predicted_positions_alone_give_the_same_nats_and_gradients():
    batch, model = TinyLoader().batch(0), tiny_model()
    weights = np.zeros((ROWS, LENGTH), dtype=np.float32)
    weights[[0, 1, 4, 5, 5], [3, 0, 12, 1, 2]] = 1
    batch = type(batch)(**{**vars(batch), "weights_BL": weights})
    (picked,) = to_arrays(batch)
    assert picked["picks_P"].size < ROWS * LENGTH
    whole = {
        "inputs_BL": picked["inputs_BL"],
        "targets_P": mx.array(batch.targets_BL.reshape(-1)),
        "weights_P": mx.array(weights.reshape(-1)),
    }
    results = []
    for arrays in (picked, whole):
        loss = nn.value_and_grad(model, lambda arrays=arrays: summed_nats(model, arrays, causal=True))
        results.append(loss())
    (few, few_gradients), (all_, all_gradients) = results
    assert few.item() == pytest.approx(all_.item(), rel=1e-6)
    embedding = "embed_tokens"
    difference = few_gradients[embedding]["weight"] - all_gradients[embedding]["weight"]
    assert mx.abs(difference).max().item() <= tolerance(mx.float32, gradient=True)


@pytest.mark.parametrize("rows", [1, 5, 10_000])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("frozen", [(), ("embed_tokens", "lm_head")])
def test_logits_in_chunks_give_the_same_nats_gradients_and_evaluation(rows, tied, frozen):
    (arrays,) = to_arrays(TinyLoader().batch(0))
    model = tiny_model(tie_word_embeddings=tied)
    for name in frozen:
        if name in model:
            model[name].freeze()
    (nats, gradients), (whole_nats, whole_gradients) = (
        nn.value_and_grad(model, lambda size=size: summed_nats(model, arrays, causal=True, rows=size) / 3)()
        for size in (rows, None)
    )
    assert nats.item() == pytest.approx(whole_nats.item(), rel=1e-6)
    few, all_ = dict(tree_flatten(gradients)), dict(tree_flatten(whole_gradients))
    assert few.keys() == all_.keys()
    assert ("embed_tokens.weight" in few) == (not frozen)
    for name, gradient in few.items():
        assert mx.abs(gradient - all_[name]).max().item() <= tolerance(mx.float32, gradient=True), name
    found, whole = (judged(model, arrays, causal=True, rows=size) for size in (rows, None))
    assert found[0].item() == pytest.approx(whole[0].item(), rel=1e-6) == pytest.approx(3 * nats.item(), rel=1e-6)
    assert found[1].item() == whole[1].item()


def test_in_chunks_the_logits_never_exist_at_once():
    model = tiny_model(vocab_size=4099, positions="rotary")
    rows, length = 16, 64
    arrays = {
        "inputs_BL": mx.zeros((rows, length), dtype=mx.int32),
        "targets_P": mx.arange(rows * length, dtype=mx.int32),
        "weights_P": mx.ones(rows * length),
    }
    peaks = []
    for size in (16, None):
        mx.eval(model.parameters())
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(nn.value_and_grad(model, lambda size=size: summed_nats(model, arrays, causal=True, rows=size))())
        peaks.append(mx.get_peak_memory() - before)
    logits = rows * length * 4099 * 4
    assert peaks[1] > logits
    assert peaks[0] < logits


@pytest.mark.skipif(why_no_native() is not None, reason=str(why_no_native()))
@pytest.mark.parametrize("trained", [True, False])
def test_logits_of_a_large_vocabulary_never_exist_at_once_with_kernels(trained, monkeypatch):
    monkeypatch.setattr("zoo.training.chunks._MANY", 1 << 20)
    monkeypatch.setattr("zoo.training.chunks._FEW", 0)
    vocab_size, rows, length = 20_011, 32, 16
    model = tiny_model(vocab_size=vocab_size, positions="rotary", tie_word_embeddings=False, num_layers=1)
    model.embed_tokens.freeze()
    if not trained:
        model.lm_head.freeze()
    arrays = {
        "inputs_BL": mx.zeros((rows, length), dtype=mx.int32),
        "targets_P": mx.arange(rows * length, dtype=mx.int32),
        "weights_P": mx.ones(rows * length),
    }
    mx.eval(model.parameters())
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    nats, gradients = nn.value_and_grad(model, lambda: summed_nats(model, arrays, causal=True) / 3)()
    mx.eval(nats, gradients)
    peak = mx.get_peak_memory() - before
    # The matrix's gradient, a chunk, and what a block takes.
    logits = rows * length * vocab_size * 4
    assert peak < (model.lm_head.weight.nbytes if trained else 0) + 0.2 * logits
    x_PD = model.hidden(arrays["inputs_BL"], mask=None).reshape(rows * length, -1)
    whole, of_weight = mx.value_and_grad(lambda weight: token_nats(x_PD @ weight.T, arrays["targets_P"]).sum() / 3)(
        model.lm_head.weight
    )
    assert nats.item() == pytest.approx(whole.item(), rel=1e-6)
    if trained:
        assert mx.abs(gradients["lm_head"]["weight"] - of_weight).max().item() <= tolerance(mx.float32, gradient=True)
    judged_nats, _ = judged(model, arrays, causal=True)
    assert judged_nats.item() == pytest.approx(3 * nats.item(), rel=1e-6)
