"""What each side of `tests.endurance.against_pytorch` computes: this project, mlx-lm, and PyTorch with transformers.

Imports stand in the functions: a side has its own interpreter, and lacks the packages of the others. Letters: B batch,
L length, V vocabulary.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

PEERS = ("sdpa", "eager")
# Takes tokens [B, L + 1]; returns the loss, or what else all sides must agree on.
Work = Callable[[np.ndarray], float]
RANK, SCALE = 8, 20.0
# Of the attention op: the shape of the measurements that this project began with.
OP_HEADS, OP_HEAD_DIM = 8, 64


def work_of(given: dict[str, str]) -> tuple[Work, int]:
    """What a side does with a batch, and the vocabulary that tokens are drawn from."""
    side, what = given["side"], given["what"]
    if what.startswith("op"):
        return (_torch_op if side in PEERS else _our_op)(given), 2
    if side in PEERS:
        return _decoding_torch(given) if what == "decode" else _pytorch(given)
    if side.startswith("mlx_lm"):
        return _decoding_mlx_lm(given) if what == "decode" else _mlx_lm(given)
    return _decoding_here(given) if what == "decode" else _ours(given)


def _ours(given: dict[str, str]) -> tuple[Work, int]:
    import zoo  # noqa: F401  # isort: skip (before mlx)
    import mlx.core as mx

    from zoo.models.adapters import Adapters, LoRAConfig, attach_adapters
    from zoo.ops.masks import MaskSpec
    from zoo.training import StepOptions, TrainStep, build_optimizer, optimizer_config_from_mapping
    from zoo.training.loss import summed_nats

    model = _model_here(given)
    if given["what"] == "lora":
        attach_adapters(
            model, Adapters(kind="lora", base="", base_fingerprint="", lora=LoRAConfig(rank=RANK, scale=SCALE))
        )
    model.train()
    optimizer = build_optimizer(
        optimizer_config_from_mapping({"name": "adamw", "learning_rate": 1e-4}), model, steps=10_000
    )
    step = TrainStep(model, optimizer, StepOptions(causal=True, max_grad_norm=1.0))

    def batch(tokens_BL: np.ndarray) -> dict[str, mx.array]:
        inputs, targets = mx.array(tokens_BL[:, :-1]), mx.array(tokens_BL[:, 1:].reshape(-1))
        return {"inputs_BL": inputs, "targets_P": targets, "weights_P": mx.ones(targets.shape)}

    def whole(tokens_BL: np.ndarray) -> float:
        count = tokens_BL[:, 1:].size
        found = step([batch(tokens_BL)], float(count))
        mx.eval(found, step.state)
        return float(found[0]) / count

    def mean_loss(parameters: Any, tokens: mx.array, targets_P: mx.array) -> mx.array:
        model.update(parameters)
        arrays = {"inputs_BL": tokens, "targets_P": targets_P, "weights_P": mx.ones(targets_P.shape)}
        return summed_nats(model, arrays, causal=True) / targets_P.size

    gradients = mx.compile(mx.value_and_grad(mean_loss))
    parameters = model.trainable_parameters()

    def backward(tokens_BL: np.ndarray) -> float:
        arrays = batch(tokens_BL)
        found = gradients(parameters, arrays["inputs_BL"], arrays["targets_P"])
        mx.eval(found)
        return float(found[0])

    def logits(tokens_BL: mx.array) -> mx.array:
        found: mx.array = model.logits(model.hidden(tokens_BL, mask=MaskSpec(causal=True), cache=None))
        return found

    forward = mx.compile(logits)

    def only_forward(tokens_BL: np.ndarray) -> float:
        mx.eval(forward(mx.array(tokens_BL[:, :-1])))
        return 0.0

    works: dict[str, Work] = {"step": whole, "lora": whole, "backward": backward, "forward": only_forward}
    return works[given["what"]], model.config.vocab_size


def _model_here(given: dict[str, str]) -> Any:
    import zoo  # isort: skip (before mlx)
    from zoo.attention.variant import variant_from_mapping

    implementation = given["side"].removeprefix("bare_")
    attention = {"name": given["side"], "mechanism": "softmax", "implementation": implementation}
    return zoo.load_model(given["checkpoint"], attention=variant_from_mapping(attention))[0]


def _decoding_here(given: dict[str, str]) -> tuple[Work, int]:
    """As `generate.py` does it; a side `bare_…` is the model in a loop and nothing else."""
    model = _model_here(given)
    import mlx.core as mx

    from zoo.generation.context import Context

    model.eval()

    def written(prompt: list[int], count: int) -> tuple[list[int], float]:
        context = Context(model)
        context.read(prompt[:-1], step_size=512)
        began = time.perf_counter()
        # `choose` takes log-probabilities [1, V].
        tokens = context.write(prompt[-1], limit=count, sampler=functools.partial(mx.argmax, axis=-1), processors=[])
        return [*tokens], time.perf_counter() - began

    def bare(prompt: list[int], count: int) -> tuple[list[int], float]:
        cache = model.make_cache()
        model(mx.array(prompt[:-1])[None], cache=cache)
        mx.eval([layer.state for layer in cache])
        began, found, token = time.perf_counter(), [], mx.array([prompt[-1]])
        for _ in range(count):
            token = mx.argmax(model(token[None], cache=cache)[:, -1], axis=-1)
            mx.async_eval(token)
            if found:
                found[-1] = int(found[-1])
            found.append(token)
        return [int(each) for each in found], time.perf_counter() - began

    return _Decoding(bare if given["side"].startswith("bare_") else written, given), model.config.vocab_size


class _Decoding:
    """Decodes after a context; its time is kept, since reading the context is not to count."""

    def __init__(self, decode: Callable[[list[int], int], tuple[list[int], float]], given: dict[str, str]) -> None:
        self._decode, self._count = decode, int(given["tokens"])
        self.seconds = 0.0

    def __call__(self, tokens_BL: np.ndarray) -> float:
        written, seconds = self._decode(tokens_BL[0, :-1].tolist(), self._count)
        self.seconds = seconds
        return float(written[0])


def _decoding_mlx_lm(given: dict[str, str]) -> tuple[Work, int]:
    import zoo  # noqa: F401  # isort: skip (the same BLAS)
    from pathlib import Path

    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model, config = load_model(Path(given["checkpoint"]))
    model.set_dtype(mx.float32)
    model.eval()

    def decode(prompt: list[int], count: int) -> tuple[list[int], float]:
        steps = generate_step(mx.array(prompt), model, max_tokens=count + 1)
        found = [int(next(steps)[0])]
        began = time.perf_counter()
        found += [int(token) for token, _ in steps]
        return found, time.perf_counter() - began

    return _Decoding(decode, given), config["vocab_size"]


def _decoding_torch(given: dict[str, str]) -> tuple[Work, int]:
    import torch

    model = _torch_model(given).eval()

    @torch.no_grad()
    def decode(prompt: list[int], count: int) -> tuple[list[int], float]:
        cache = model(input_ids=torch.tensor([prompt[:-1]]), use_cache=True, logits_to_keep=1).past_key_values
        began, found = time.perf_counter(), [prompt[-1]]
        for _ in range(count):
            output = model(input_ids=torch.tensor([[found[-1]]]), past_key_values=cache, use_cache=True)
            found.append(int(output.logits[0, -1].argmax()))
        return found[1:], time.perf_counter() - began

    return _Decoding(decode, given), model.config.vocab_size


def _mlx_lm(given: dict[str, str]) -> tuple[Work, int]:
    import zoo  # noqa: F401  # isort: skip (the same BLAS)
    from pathlib import Path

    import mlx.core as mx
    import mlx.nn as nn
    from mlx import optimizers
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    model, config = load_model(Path(given["checkpoint"]))
    model.set_dtype(mx.float32)
    if given["what"] == "lora":
        model.freeze()
        linear_to_lora_layers(model, len(model.layers), {"rank": RANK, "scale": SCALE, "dropout": 0.0})
    model.train()
    optimizer = optimizers.AdamW(learning_rate=1e-4)
    state = [model.state, optimizer.state]

    def mean_loss(model: nn.Module, tokens: mx.array, targets: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(tokens), targets, reduction="mean")

    value_and_grad = nn.value_and_grad(model, mean_loss)

    def step(tokens: mx.array, targets: mx.array) -> mx.array:
        loss, gradients = value_and_grad(model, tokens, targets)
        clipped, _ = optimizers.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, clipped)
        return loss

    compiled = {
        "step": mx.compile(step, inputs=state, outputs=state),
        "lora": mx.compile(step, inputs=state, outputs=state),
        "backward": mx.compile(
            lambda tokens, targets: value_and_grad(model, tokens, targets), inputs=state, outputs=state
        ),
        "forward": mx.compile(lambda tokens, _: model(tokens), inputs=state),
    }[given["what"]]

    def work(tokens_BL: np.ndarray) -> float:
        found = compiled(mx.array(tokens_BL[:, :-1]), mx.array(tokens_BL[:, 1:]))
        mx.eval(found, state)
        return 0.0 if given["what"] == "forward" else float(found[0] if isinstance(found, tuple) else found)

    return work, config["vocab_size"]


def _torch_model(given: dict[str, str]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return AutoModelForCausalLM.from_pretrained(
        given["checkpoint"], dtype=torch.float32, attn_implementation=given["side"]
    )


def _pytorch(given: dict[str, str]) -> tuple[Work, int]:
    import torch

    model = _torch_model(given).train()
    # Sides compute one function: GPT-2's configurations ask for dropout in training.
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if given["what"] == "lora":
        from peft import LoraConfig, get_peft_model

        # PEFT's factor is alpha over the rank.
        config = LoraConfig(r=RANK, lora_alpha=RANK * SCALE, target_modules="all-linear")
        model = get_peft_model(model, config)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def work(tokens_BL: np.ndarray) -> float:
        tokens = torch.from_numpy(tokens_BL).long()
        if given["what"] == "forward":
            with torch.no_grad():
                model(input_ids=tokens[:, :-1], use_cache=False)
            return 0.0
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if given["what"] in ("step", "lora"):
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
        return float(loss.detach())

    return work, model.config.vocab_size


def _op_arrays(given: dict[str, str]) -> list[np.ndarray]:
    """Queries, keys, values and the gradient of the output, [B, N, L, H]."""
    generator = np.random.default_rng(0)
    shape = int(given["batch_size"]), OP_HEADS, int(given["length"]), OP_HEAD_DIM
    return [generator.standard_normal(shape).astype(np.float32) for _ in range(4)]


def _our_op(given: dict[str, str]) -> Work:
    import zoo  # noqa: F401  # isort: skip (before mlx)
    import mlx.core as mx

    from zoo.attention import mechanism
    from zoo.ops.masks import MaskSpec

    declared = mechanism("softmax")
    parameters = declared.config()
    op = declared.implementations[given["side"]](parameters)
    spec = declared.make_spec(parameters, MaskSpec(causal=True), OP_HEAD_DIM, None)
    q, k, v, cotangent = (mx.array(each) for each in _op_arrays(given))

    def backward(q: mx.array, k: mx.array, v: mx.array, cotangent: mx.array) -> list[mx.array]:
        found, gradients = mx.vjp(lambda *arrays: op(*arrays, spec), [q, k, v], [cotangent])
        return [*found, *gradients]

    call = mx.compile(backward if given["what"] == "op_backward" else lambda q, k, v, _: [op(q, k, v, spec)])

    def work(_: np.ndarray) -> float:
        found = call(q, k, v, cotangent)
        mx.eval(found)
        return float(mx.abs(found[-1]).mean())

    return work


def _torch_op(given: dict[str, str]) -> Work:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    learns = given["what"] == "op_backward"
    *inputs, cotangent = (torch.from_numpy(each).requires_grad_(learns) for each in _op_arrays(given))

    def work(_: np.ndarray) -> float:
        found = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
        if learns:
            (_, _, found) = torch.autograd.grad(found, inputs, cotangent.detach())
        return float(found.detach().abs().mean())

    return work
