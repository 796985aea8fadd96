"""LoRA here beside mlx-lm's own step, interleaved: python -m tests.endurance.against_mlx_lm checkpoint=FOLDER

Both take the same folder in Hugging Face's layout, the same conversations with their real lengths, the same rank,
places, batch size and BLAS, each with its own batches. Rounds of both alternate, in an order that turns around, so that
whatever else the machine does is shared; the last line is JSON with tokens per second (padding not counted) of wall
time and of the processor's time, the ratios, and the bytes that MLX held at the peak of a step, the weights
of both included. Compiling a new length is part of a round, as it is of a run. Other words:
rounds=24 steps=4 (of a round), batch_size=4, length=512,
examples=600, masked=0 (1: only answers are learnt, as mlx-lm's --mask-prompt), full=0 (1: conversations are joined to
rows of the whole length), attention=keep (another variant, here alone), checkpointing=0 (1: here), theirs=0 (1: there,
as mlx-lm's --grad-checkpoint). What a long row takes:

    python -m tests.endurance.against_mlx_lm checkpoint=FOLDER length=4096 batch_size=1 rounds=2 steps=1 \
        full=1 attention=mha_tiled checkpointing=1
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import zoo  # noqa: F401 (before mlx)

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx import optimizers
from mlx_lm.tuner.trainer import default_loss, grad_checkpoint, iterate_batches
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model as load_in_mlx_lm

from tests.endurance.conversations import conversations
from zoo.attention.catalog import variant
from zoo.checkpoints import load_whole
from zoo.data.examples import ExampleLoader, ExampleSplit
from zoo.models.adapters import Adapters, LoRAConfig, attach_adapters
from zoo.training import StepOptions, TrainStep, build_optimizer, optimizer_config_from_mapping
from zoo.training.batches import num_tokens, to_arrays

# Makes a step and returns the tokens that it learnt from.
Step = Callable[[], int]
# A third of the rounds compiles most of the lengths.
_WARM_SHARE = 3


def main(words: Sequence[str]) -> dict[str, Any]:
    """Runs the rounds."""
    given = {"rounds": "24", "steps": "4", "batch_size": "4", "length": "512", "examples": "600", "masked": "0"}
    given |= {"full": "0", "attention": "keep", "checkpointing": "0", "theirs": "0"}
    given |= dict(word.partition("=")[::2] for word in words)
    folder, attention = Path(given.pop("checkpoint")), given.pop("attention")
    sizes = {key: int(value) for key, value in given.items()}
    loaded = load_whole(folder, attention=None if attention == "keep" else variant(attention))
    rows = [*_rows(loaded.tokenizer, sizes)]
    makers: list[tuple[str, Step]] = [("ours", _ours(loaded, rows, sizes)), ("mlx_lm", _theirs(folder, rows, sizes))]
    spent: dict[str, list[tuple[int, float, float]]] = {name: [] for name, _ in makers}
    peaks = dict.fromkeys(spent, 0)
    for number in range(sizes["rounds"]):
        for name, step in makers if number % 2 else makers[::-1]:
            mx.clear_cache()
            mx.reset_peak_memory()
            processor, wall = time.process_time(), time.perf_counter()
            tokens = sum(step() for _ in range(sizes["steps"]))
            spent[name].append((tokens, time.perf_counter() - wall, time.process_time() - processor))
            peaks[name] = max(peaks[name], mx.get_peak_memory())
    found: dict[str, Any] = {**sizes, "checkpoint": str(folder), "attention": attention}
    found["peak_bytes"] = {**peaks, "ratio": peaks["ours"] / peaks["mlx_lm"]}
    for kind, first in (("whole", 0), ("warm", sizes["rounds"] // _WARM_SHARE)):
        sums = {name: np.array(each[first:]).sum(axis=0) for name, each in spent.items()}
        for place, clock in ((1, "wall"), (2, "processor")):
            speeds = {name: float(each[0] / each[place]) for name, each in sums.items()}
            found[f"{kind}_{clock}"] = {**speeds, "ratio": speeds["ours"] / speeds["mlx_lm"]}
    return found


def _rows(tokenizer: Any, sizes: dict[str, int]) -> Iterator[tuple[list[int], int]]:
    """Tokens of each example, and how many of them are its prompt."""
    joined: list[int] = []
    for each, _ in zip(conversations(), range(sizes["examples"]), strict=False):
        question, answer = (message["content"] for message in each["messages"])
        prompt = tokenizer.encode_prompt(question + "\n")
        ids = [*prompt, *tokenizer.encode(answer), tokenizer.eos_id]
        if sizes["full"]:
            joined += ids
            if len(joined) > sizes["length"]:
                yield joined[: sizes["length"] + 1], 0
                joined = []
            continue
        ids = ids[: sizes["length"] + 1]
        yield ids, len(prompt) if sizes["masked"] and len(prompt) < len(ids) else 0


def _ours(loaded: Any, rows: Sequence[tuple[list[int], int]], sizes: dict[str, int]) -> Step:
    model = loaded.model
    adapters = Adapters(kind="lora", lora=LoRAConfig(), base="", base_fingerprint="")
    attach_adapters(model, adapters, dtype=mx.float32)
    model.train()
    adamw = {"name": "adamw", "learning_rate": 1e-5, "weight_decay": 0.0}
    optimizer = build_optimizer(optimizer_config_from_mapping(adamw), model, steps=10_000)
    model.checkpoint_gradients(bool(sizes["checkpointing"]))
    step = TrainStep(model, optimizer, StepOptions(causal=True, loss_rows=256, max_grad_norm=1.0))
    split = ExampleSplit(
        name="train",
        tokens_T=np.concatenate([ids for ids, _ in rows]).astype(np.int32),
        marks_T=np.concatenate([np.arange(len(ids)) >= prompt for ids, prompt in rows]),
        ends_N=np.cumsum([len(ids) for ids, _ in rows]),
    )
    loader = ExampleLoader(
        split, loaded.tokenizer, batch_size=sizes["batch_size"], sequence_length=sizes["length"], seed=0
    )
    numbers = iter(range(10**9))

    def make() -> int:
        batch = loader.batch(next(numbers))
        found = step(to_arrays(batch), float(batch.weights_BL.sum()))
        mx.eval(found, step.state)
        return num_tokens(batch)

    return make


def _theirs(folder: Path, rows: Sequence[tuple[list[int], int]], sizes: dict[str, int]) -> Step:
    model = load_in_mlx_lm(folder)[0]
    model.set_dtype(mx.float32)
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": 8, "scale": 20.0, "dropout": 0.0})
    model.train()
    if sizes["theirs"]:
        grad_checkpoint(model.layers[0])
    optimizer = optimizers.Adam(learning_rate=1e-5)
    value_and_grad = nn.value_and_grad(model, default_loss)
    state = [model.state, optimizer.state, mx.random.state]

    @functools.partial(mx.compile, inputs=state, outputs=state)
    def step(batch: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
        (loss, tokens), gradients = value_and_grad(model, batch, lengths)
        optimizer.update(model, gradients)
        return loss, tokens

    np.random.seed(0)
    batches = iterate_batches(rows, sizes["batch_size"], sizes["length"] + 1, loop=True)

    def make() -> int:
        batch, lengths = next(batches)
        found = step(batch, lengths)
        mx.eval(found, state)
        return int(np.array(lengths)[:, 1].sum()) - len(lengths)

    return make


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
