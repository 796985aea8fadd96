"""A training step here beside PyTorch's and mlx-lm's: python -m tests.endurance.against_pytorch checkpoint=FOLDER

Every side is a process of its own that loads the same folder in Hugging Face's layout (a Llama or a GPT-2), takes the
same batches of random tokens, and answers one at a time, so that nothing else runs while one is timed; rounds alternate
in an order that turns around. The losses of the first step must agree to 1e-3. The last line is JSON: for each side the
median seconds of a step and the median of the paired ratios of PyTorch's time to its own. Other words:

    sides=native,fused,mlx_lm,mlx_lm_stock,sdpa,eager   native, fused and manual are implementations here; sdpa and
                                                        eager PyTorch's; stock is mlx-lm on the BLAS of MLX's wheel
    what=step      step (AdamW and clipping included), backward (with the forward pass) or forward
    batch_size=4 length=256 rounds=9 steps=3 (of a round)
    peer=PYTHON    an interpreter that has torch and transformers; default: this one
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_DEFAULTS = {"sides": "sdpa,native,fused,mlx_lm", "what": "step", "batch_size": "4", "length": "256", "rounds": "9"}
_DEFAULTS |= {"steps": "3", "peer": sys.executable}
_PEERS = ("sdpa", "eager")
_LOSS_DIFFERENCE = 1e-3
# Takes tokens [B, L + 1] and returns the loss, or 0 where none is made.
Work = Callable[[np.ndarray], float]


def main(words: Sequence[str]) -> dict[str, Any]:
    """Runs the rounds."""
    given = _DEFAULTS | dict(word.partition("=")[::2] for word in words)
    names = given["sides"].split(",")
    sides = {name: _Side(name, given) for name in names}
    try:
        first = {name: side.ask(1) for name, side in sides.items()}
        losses = [found["loss"] for found in first.values()]
        assert max(losses) - min(losses) < _LOSS_DIFFERENCE, f"the sides compute different models: {first}"
        # The second call compiles what the first step of an optimizer has made.
        for side in sides.values():
            side.ask(1)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(int(given["rounds"])):
            for name in names if number % 2 else names[::-1]:
                seconds[name].append(sides[name].ask(int(given["steps"]))["seconds"] / int(given["steps"]))
    finally:
        for side in sides.values():
            side.process.kill()
    baseline = np.array(seconds[names[0]])
    tokens = int(given["batch_size"]) * int(given["length"])
    found: dict[str, Any] = {key: value for key, value in given.items() if key != "peer"}
    for name, each in seconds.items():
        median = float(np.median(each))
        found[name] = {
            "seconds": median,
            "tokens_per_second": tokens / median,
            f"times_{names[0]}": float(np.median(baseline / np.array(each))),
        }
    return found


class _Side:
    """A process that makes steps when it is asked to."""

    def __init__(self, name: str, given: dict[str, str]) -> None:
        python = given["peer"] if name in _PEERS else sys.executable
        stock = {"ZOO_BLAS": "none", "ZOO_NATIVE": "none"} if name == "mlx_lm_stock" else {}
        words = [f"{key}={value}" for key, value in given.items()]
        self.process = subprocess.Popen(
            [python, "-m", __spec__.name, f"side={name}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **stock},
            text=True,
        )

    def ask(self, steps: int) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer


def serve(given: dict[str, str]) -> None:
    """One side: for every number on stdin, that many steps."""
    name = given["side"]
    make = _pytorch if name in _PEERS else _mlx_lm if name.startswith("mlx_lm") else _ours
    work, vocab_size = make(given)
    generator = np.random.default_rng(0)
    shape = int(given["batch_size"]), int(given["length"]) + 1
    for line in sys.stdin:
        tokens = generator.integers(0, vocab_size, (int(line), *shape)).astype(np.int32)
        began = time.perf_counter()
        losses = [work(each) for each in tokens]
        print(json.dumps({"seconds": time.perf_counter() - began, "loss": losses[0]}), flush=True)


def _ours(given: dict[str, str]) -> tuple[Work, int]:
    import zoo  # isort: skip (before mlx)
    import mlx.core as mx

    from zoo.attention.variant import variant_from_mapping
    from zoo.ops.masks import MaskSpec
    from zoo.training import StepOptions, TrainStep, build_optimizer, optimizer_config_from_mapping
    from zoo.training.loss import summed_nats

    attention = {"name": given["side"], "mechanism": "softmax", "implementation": given["side"]}
    model, _ = zoo.load_model(given["checkpoint"], attention=variant_from_mapping(attention))
    model.train()
    adamw = {"name": "adamw", "learning_rate": 1e-4}
    optimizer = build_optimizer(optimizer_config_from_mapping(adamw), model, steps=10_000)
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

    works: dict[str, Work] = {"step": whole, "backward": backward, "forward": only_forward}
    return works[given["what"]], model.config.vocab_size


def _mlx_lm(given: dict[str, str]) -> tuple[Work, int]:
    import zoo  # noqa: F401  # isort: skip (the same BLAS)
    from pathlib import Path

    import mlx.core as mx
    import mlx.nn as nn
    from mlx import optimizers
    from mlx_lm.utils import load_model

    model, config = load_model(Path(given["checkpoint"]))
    model.set_dtype(mx.float32)
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


def _pytorch(given: dict[str, str]) -> tuple[Work, int]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForCausalLM.from_pretrained(
        given["checkpoint"], dtype=torch.float32, attn_implementation=given["side"]
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

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
        if given["what"] == "step":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return float(loss.detach())

    return work, model.config.vocab_size


if __name__ == "__main__":
    asked = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if "side" in asked:
        serve(asked)
    else:
        print(json.dumps(main(sys.argv[1:])))
