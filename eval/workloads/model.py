"""A whole model: what an attention costs where it is used, and how fast it reads and writes.

Letters: B batch, L length, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from eval.bench import Workload
from eval.checks import Finding, verdict
from eval.checks.model import check_gradients, check_logits, check_model, check_step
from eval.rows import Cell
from eval.workloads import Setting, arrays_of, bytes_of, computed_function, loss_and_gradients, scalar, work_of
from eval.workloads.attention import AttentionSetting
from zoo.config import require
from zoo.data.loader import Batch
from zoo.layers.caches import RotatingKVCache
from zoo.models import Model, ModelConfig, build_model, model_config_from_mapping
from zoo.models.catalog import shipped_model
from zoo.ops.masks import MaskSpec
from zoo.training.batches import to_arrays
from zoo.training.loss import Arrays
from zoo.training.step import StepOptions, TrainStep

# Of every model, whatever its YAML says, so that the output projection weighs alike in all of them.
VOCAB_SIZE = 2048
# Learned positions must reach past the tokens that decoding is timed and checked with.
DECODE_HEADROOM = 8
# BERT's, https://arxiv.org/abs/1810.04805.
_MASKED_SHARE = 0.15
# Any small rate: the same batch comes again and again, and the weights must stay finite.
LEARNING_RATE, MAX_GRAD_NORM = 1e-4, 1.0
# Tokens that the cache is filled with at a time, as generation does by default.
_PREFILL_CHUNK = 512


def build(cell: Cell) -> Workload:
    """Builds a cell of level model.

    Modes: `forward` returns all logits; `forward_backward` the mean loss and the gradient of every parameter; `step`
    is a whole training step with AdamW and clipping, whose weights move on from call to call; `prefill` reads L
    tokens into an empty cache and returns the logits of the last, which is the time to the first token; `decode`
    reads one more token in each row with L tokens in the cache.

    Decoding takes its token back wherever a cache can, so that every call meets L tokens. Recurrent states cannot; they
    move on by a token a call, which is equal work. It is never compiled as a whole, whatever the cell says, since its
    shapes change from token to token.

    Raises:
        UserError: If the model or its attention cannot do what the cell asks for.
    """
    setting = model_setting(cell)
    model = setting.model()
    parts = _BUILD[cell.mode](setting, model)
    classes = [variant.capabilities.exact_class for variant in setting.config.attention.variants()]
    decodes = cell.mode == "decode"
    queries, keys = (1, cell.length + 1) if decodes else (cell.length, cell.length)
    # Positions that get logits.
    predicted = cell.batch_size * (cell.length if cell.mode == "forward" else 1)
    if setting.gradient:
        predicted = setting.batch()["targets_P"].size
    sizes = {"batch_size": cell.batch_size, "query_length": queries, "key_length": keys}
    flops = setting.forwards * model.flops(**sizes, predicted=predicted)
    work = work_of(parts.outputs, useful_flops=flops, tokens=cell.batch_size * queries)
    if decodes:
        # The cache that the calls go on with.
        mx.eval(parts.outputs)
    cached = None
    if parts.cache_bytes is not None:
        cached = model.cache_bytes(batch_size=cell.batch_size, length=keys, dtype=setting.dtype)
    # The least that is held: weights and the logits that are returned; or weights, gradients and in a step AdamW's two
    # moments, since a loss may be computed without ever holding all logits.
    logits_bytes = 0 if setting.gradient else predicted * VOCAB_SIZE * setting.dtype.size
    held = logits_bytes + bytes_of(model.parameters()) * {"forward_backward": 2, "step": 4}.get(cell.mode, 1)
    return Workload(
        call=parts.call,
        check=lambda: verdict(check_model(setting, parts.check())),
        work=work,
        function=computed_function(cell, "+".join(dict.fromkeys(classes))),
        analytic_bytes=held + (cached or 0),
        cache_bytes=parts.cache_bytes,
        analytic_cache_bytes=cached,
    )


def model_setting(cell: Cell) -> "ModelSetting":
    """The setting of a cell of level model.

    The model's own sizes count, not the cell's; the vocabulary is `VOCAB_SIZE`, and `max_seq_len` is raised to the
    cell's length where it is less.

    Raises:
        UserError: If there is no such model, the cell contradicts it, or its attention cannot do what is asked for.
    """
    values = shipped_model(cell.model)
    require(cell.mode in _BUILD, "modes", "suit a model", cell.mode, allowed=tuple(_BUILD))
    needed = cell.length + (DECODE_HEADROOM if cell.mode == "decode" else 0)
    changes = {
        "vocab_size": VOCAB_SIZE,
        "max_seq_len": max(values["max_seq_len"], needed),
        "attention": cell.attention_mapping,
        # A timed step is compared with another one.
        "dropout": 0.0,
    }
    config = model_config_from_mapping({**values, **changes})
    require(config.causal == cell.causal, "causal", f"be {config.causal} in a {config.family} model", cell.causal)
    built = build_model(config)
    if cell.mode in ("prefill", "decode"):
        require(config.causal, "modes", f"suit a {config.family} model, which is an encoder", cell.mode)
        built.make_cache()
    return ModelSetting(config=config, cell=cell)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSetting(Setting):
    """What decides a call of a model: its configuration, and a cell; the dtype of a step is that of activations."""

    config: ModelConfig

    def op_settings(self) -> list[AttentionSetting]:
        """The op of each distinct variant at the model's shape."""
        of = functools.partial(AttentionSetting, shape=self.config.layer_shape, cell=self.cell)
        return [of(variant=each) for each in self.config.attention.variants()]

    def model(self) -> Model:
        """The model with the seed's weights, evaluated; a training step's stay float32."""
        mx.random.seed(self.cell.seed)
        built = build_model(self.config)
        if self.cell.mode != "step":
            built.set_dtype(self.dtype)
        built.train(self.cell.mode == "step")
        mx.eval(built.parameters())
        return built

    def tokens(self) -> mx.array:
        """Random token ids, int32 [B, L], evaluated."""
        sizes, generator = (self.cell.batch_size, self.cell.length), np.random.default_rng(self.cell.seed)
        tokens_BL = mx.array(generator.integers(0, VOCAB_SIZE, sizes, dtype=np.int32))
        mx.eval(tokens_BL)
        return tokens_BL

    def batch(self) -> Arrays:
        """The arrays of `drawn`, evaluated."""
        arrays = to_arrays(self.drawn())[0]
        mx.eval(arrays)
        return arrays

    def drawn(self) -> Batch:
        """A training batch of random tokens: the next token everywhere, or of an encoder 15 % masked tokens."""
        B, L = self.cell.batch_size, self.cell.length
        generator = np.random.default_rng(self.cell.seed)
        tokens_BL = generator.integers(0, VOCAB_SIZE, (B, L + 1), dtype=np.int32)
        weights_BL = np.ones((B, L), dtype=np.float32)
        inputs_BL, targets_BL = tokens_BL[:, :-1], tokens_BL[:, 1:]
        if not self.config.causal:
            targets_BL, inputs_BL = inputs_BL, inputs_BL.copy()
            order_BL = generator.permuted(np.tile(np.arange(L), (B, 1)), axis=1)
            weights_BL = (order_BL < max(1, round(_MASKED_SHARE * L))).astype(np.float32)
            # Which token stands for a hidden one does not matter to the work.
            inputs_BL[weights_BL == 1] = 0
        tokens = {"inputs_BL": inputs_BL, "targets_BL": targets_BL, "weights_BL": weights_BL}
        return Batch(**tokens, segments_BL=None, lengths_B=None, identity="random tokens")


class _Parts(NamedTuple):
    """What a mode makes of a model: a call, its check, what the uncompiled call returns, and the size of its cache."""

    call: Callable[[], object]
    check: Callable[[], list[Finding]]
    outputs: Any
    cache_bytes: Callable[[], int] | None = None


def _called(
    setting: ModelSetting, model: Model, function: Callable[..., Any], given: Any, check: Callable[..., list[Finding]]
) -> _Parts:
    """Of a function of the model's state that is called with the same tokens or batch again and again."""
    timed = mx.compile(function, inputs=model.state) if setting.cell.compiled else function
    return _Parts(lambda: timed(given), lambda: check(setting, model, timed(given)), function(given))


def _step(setting: ModelSetting, model: Model) -> _Parts:
    batch = setting.batch()
    optimizer = optim.AdamW(LEARNING_RATE)
    optimizer.init(model.trainable_parameters())
    weight = scalar(batch["weights_P"].sum())
    causal, dtype = setting.config.causal, setting.dtype

    def step_of(*, compiled: bool) -> Callable[[], list[Any]]:
        options = StepOptions(causal=causal, dtype=dtype, max_grad_norm=MAX_GRAD_NORM, compile=compiled)
        step = TrainStep(model, optimizer, options)
        return lambda: [*step([batch], weight)[:2], step.state]

    mx.eval(model.state, optimizer.state, mx.random.state)
    # Counting operations takes a step that is never evaluated; model and optimizer are then put back.
    before = model.parameters(), tree_map(lambda array: array, optimizer.state)
    outputs = arrays_of(step_of(compiled=False)())
    model.update(before[0])
    optimizer.state = before[1]
    call = step_of(compiled=setting.cell.compiled)
    return _Parts(call, lambda: check_step(setting, model, optimizer, call, MAX_GRAD_NORM), outputs)


def _prefill(setting: ModelSetting, model: Model) -> _Parts:
    tokens_BL = setting.tokens()

    def prefill(tokens_BL: mx.array) -> list[mx.array]:
        cache = model.make_cache()
        logits = model.logits(model.hidden(tokens_BL, cache=cache)[:, -1:])
        return [logits, *arrays_of([each.state for each in cache])]

    def cache_bytes() -> int:
        cache = model.make_cache()
        mx.eval(model.hidden(tokens_BL, cache=cache))
        return sum(each.nbytes for each in cache)

    return _called(setting, model, prefill, tokens_BL, check_logits)._replace(cache_bytes=cache_bytes)


def _decode(setting: ModelSetting, model: Model) -> _Parts:
    length = setting.cell.length
    tokens_BL = setting.changed(length=length + 1).tokens()
    next_B1 = tokens_BL[:, -1:]
    mx.eval(next_B1)
    cache = model.make_cache()
    for start in range(0, length, _PREFILL_CHUNK):
        model(tokens_BL[:, start : min(start + _PREFILL_CHUNK, length)], cache=cache)
        mx.eval([each.state for each in cache])

    # Said outright, since caches that move on would count their own tokens into everyone's positions.
    mask = MaskSpec(causal=True, offset=length)

    def decode() -> mx.array:
        logits = model(next_B1, mask=mask, cache=cache)
        # The next token is to lie where this one does. A window's cache that is full has lost what this one overwrote,
        # so it is not trimmable in general; but that was a token that no query at this position may see.
        for each in cache:
            if each.is_trimmable() or isinstance(each, RotatingKVCache):
                each.trim(1)
        return logits

    # Evaluated, so that the graph counted next begins at the filled cache; this also settles how large the caches are.
    first = decode()
    mx.eval(first)
    return _Parts(
        call=decode,
        check=lambda: check_logits(setting, model, [first]),
        outputs=decode(),
        cache_bytes=lambda: sum(each.nbytes for each in cache),
    )


_BUILD: dict[str, Callable[[ModelSetting, Model], _Parts]] = {
    "forward": lambda setting, model: _called(setting, model, model, setting.tokens(), check_logits),
    "forward_backward": lambda setting, model: _called(
        setting, model, functools.partial(loss_and_gradients, model), setting.batch(), check_gradients
    ),
    "step": _step,
    "prefill": _prefill,
    "decode": _decode,
}
