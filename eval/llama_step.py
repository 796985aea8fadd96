"""One training step of `llama_small`, ours and the same written by hand around mlx-lm's `llama.Model`.

Equal shapes, optimizer, clipping and batch, both compiled, both on the same BLAS.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import yaml
from mlx_lm.models import llama

from zoo.attention.catalog import variant_mapping
from zoo.models import LlamaConfig, build_model, model_config_from_mapping
from zoo.training.step import StepOptions, TrainStep

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "model" / "llama_small.yaml"
BATCH_SIZE, LENGTH, VOCAB_SIZE, LEARNING_RATE, MAX_GRAD_NORM = 4, 256, 2048, 1e-3, 1.0


def llama_step_candidates() -> dict[str, Callable[[], object]]:
    """The two steps, `zoo` and `mlx_lm`, ready to be timed against each other."""
    values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    attention = variant_mapping("mha")
    config = model_config_from_mapping({**values, "vocab_size": VOCAB_SIZE, "attention": attention})
    if not isinstance(config, LlamaConfig):
        raise TypeError(f"{CONFIG.name} is a {config.family}")
    mx.random.seed(0)
    tokens_BL = mx.random.randint(0, VOCAB_SIZE, (BATCH_SIZE, LENGTH + 1))
    inputs_BL, targets_BL = tokens_BL[:, :-1], tokens_BL[:, 1:]
    mx.eval(inputs_BL, targets_BL)
    return {"zoo": _ours(config, inputs_BL, targets_BL), "mlx_lm": _by_hand(config, inputs_BL, targets_BL)}


def _ours(config: LlamaConfig, inputs_BL: mx.array, targets_BL: mx.array) -> Callable[[], object]:
    model, optimizer = build_model(config), optim.AdamW(LEARNING_RATE)
    optimizer.init(model.trainable_parameters())
    step = TrainStep(model, optimizer, StepOptions(causal=True, max_grad_norm=MAX_GRAD_NORM))
    targets_P = targets_BL.reshape(-1)
    arrays = {"inputs_BL": inputs_BL, "targets_P": targets_P, "weights_P": mx.ones(targets_P.shape)}
    mx.eval(arrays, step.state)

    def run() -> object:
        return [step([arrays], float(targets_P.size)), step.state]

    return run


def _by_hand(config: LlamaConfig, inputs_BL: mx.array, targets_BL: mx.array) -> Callable[[], object]:
    model, optimizer = llama.Model(_model_args(config)), optim.AdamW(LEARNING_RATE)
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state, mx.random.state]

    def loss(inputs: mx.array, targets: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(inputs), targets, reduction="mean")

    @functools.partial(mx.compile, inputs=state, outputs=state)
    def step(inputs: mx.array, targets: mx.array) -> mx.array:
        value, gradients = nn.value_and_grad(model, loss)(inputs, targets)
        gradients, _ = optim.clip_grad_norm(gradients, MAX_GRAD_NORM)
        optimizer.update(model, gradients)
        return value

    mx.eval(state)
    return lambda: [step(inputs_BL, targets_BL), state]


def _model_args(config: LlamaConfig) -> llama.ModelArgs:
    return llama.ModelArgs(
        model_type="llama",
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        intermediate_size=config.intermediate_size,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        rms_norm_eps=config.norm_eps,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_seq_len,
        rope_theta=config.rope_theta,
        tie_word_embeddings=config.tie_word_embeddings,
    )
