"""A whole model: what an attention costs where it is used, and how fast it reads and writes.

Letters: B batch, L length, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_map

from eval.rows import Cell
from eval.speed.analytic import model_bytes
from eval.speed.correctness import verdict
from eval.speed.model_correctness import check_decode, check_forward, check_gradients, check_prefill, check_step
from eval.speed.model_setting import ModelSetting, model_setting
from eval.speed.subject import Subject
from eval.speed.work import FORWARDS, arrays_of, scalar, work_of
from zoo.attention import Cache
from zoo.layers.caches import RotatingKVCache
from zoo.models import Model
from zoo.ops.masks import MaskSpec
from zoo.training.loss import Arrays, summed_nats
from zoo.training.step import StepOptions, TrainStep

# Any small rate: the same batch comes again and again, and the weights must stay finite.
LEARNING_RATE, MAX_GRAD_NORM = 1e-4, 1.0
# Tokens that the cache is filled with at a time, as generation does by default.
_PREFILL_CHUNK = 512


def build(cell: Cell) -> Subject:
    """Builds a cell of level model.

    Modes: `forward` returns all logits; `forward_backward` the mean loss and the gradient of every parameter; `step`
    is a whole training step with AdamW and clipping, whose weights move on from call to call; `prefill` reads L
    tokens into an empty cache and returns the logits of the last, which is the time to the first token; `decode`
    reads one more token in each row with L tokens in the cache.

    Decoding takes its token back wherever a cache can, so that every call meets L tokens: caches of keys and values
    give it up, those of windows too. Recurrent states cannot; they move on by a token a call, which is equal work.
    Decoding is never compiled as a whole, whatever the cell says, since its shapes change from token to token.

    Raises:
        UserError: If the model or its attention cannot do what the cell asks for.
    """
    setting = model_setting(cell)
    setting.require_possible()
    return _BUILD[setting.mode](setting)


def _forward(setting: ModelSetting) -> Subject:
    model, tokens_BL = setting.model(), setting.tokens()
    timed = _compiled(model, model.state, setting)
    return _subject(
        setting,
        model,
        call=lambda: timed(tokens_BL),
        check=lambda: check_forward(setting, model, timed(tokens_BL)),
        outputs=model(tokens_BL),
    )


def _forward_backward(setting: ModelSetting) -> Subject:
    model, batch = setting.model(), setting.batch()
    gradients = _gradients_of(model, setting)
    timed = _compiled(gradients, model.state, setting)
    return _subject(
        setting,
        model,
        call=lambda: timed(batch),
        check=lambda: check_gradients(setting, model, timed(batch)),
        outputs=gradients(batch),
        predicted=batch["targets_P"].size,
    )


def _gradients_of(model: Model, setting: ModelSetting) -> Callable[[Arrays], tuple[mx.array, Any]]:
    """`batch -> (mean nats, gradients)`."""

    def gradients(batch: Arrays) -> tuple[mx.array, Any]:
        own = model.trainable_parameters()

        def loss(parameters: Any) -> mx.array:
            model.update(parameters)
            return summed_nats(model, batch, causal=setting.config.causal) / batch["weights_P"].sum()

        found: tuple[mx.array, Any] = mx.value_and_grad(loss)(own)
        model.update(own)
        return found

    return gradients


def _step(setting: ModelSetting) -> Subject:
    model, batch = setting.model(), setting.batch()
    optimizer = optim.AdamW(LEARNING_RATE)
    optimizer.init(model.trainable_parameters())
    weight = scalar(batch["weights_P"].sum())

    def step_of(*, compiled: bool) -> Callable[[], list[Any]]:
        options = StepOptions(
            causal=setting.config.causal, dtype=setting.dtype, max_grad_norm=MAX_GRAD_NORM, compile=compiled
        )
        step = TrainStep(model, optimizer, options)
        return lambda: [*step([batch], weight)[:2], step.state]

    mx.eval(model.state, optimizer.state, mx.random.state)
    # Counting operations takes a step that is never evaluated; model and optimizer are then put back.
    before = model.parameters(), tree_map(lambda array: array, optimizer.state)
    outputs = arrays_of(step_of(compiled=False)())
    model.update(before[0])
    optimizer.state = before[1]
    call = step_of(compiled=setting.compiled)
    return _subject(
        setting,
        model,
        call=call,
        check=lambda: check_step(setting, model, optimizer, call, max_grad_norm=MAX_GRAD_NORM),
        outputs=outputs,
        predicted=batch["targets_P"].size,
    )


def _prefill(setting: ModelSetting) -> Subject:
    model, tokens_BL = setting.model(), setting.tokens()

    def prefill(tokens_BL: mx.array) -> list[mx.array]:
        cache = model.make_cache()
        logits = model.logits(model.hidden(tokens_BL, cache=cache)[:, -1:])
        return [logits, *_arrays(cache)]

    timed = _compiled(prefill, model.state, setting)

    def cache_bytes() -> int:
        cache = model.make_cache()
        mx.eval(model.hidden(tokens_BL, cache=cache))
        return _held(cache)

    return _subject(
        setting,
        model,
        call=lambda: timed(tokens_BL),
        check=lambda: check_prefill(setting, model, timed(tokens_BL)[0]),
        outputs=prefill(tokens_BL),
        predicted=setting.batch_size,
        cache_bytes=cache_bytes,
    )


def _decode(setting: ModelSetting) -> Subject:
    model = setting.model()
    tokens_BL = setting.tokens(length=setting.length + 1)
    next_B1 = tokens_BL[:, -1:]
    mx.eval(next_B1)
    cache = model.make_cache()
    for start in range(0, setting.length, _PREFILL_CHUNK):
        model(tokens_BL[:, start : min(start + _PREFILL_CHUNK, setting.length)], cache=cache)
        mx.eval(_arrays(cache))

    # Said outright, since caches that move on would count their own tokens into everyone's positions.
    mask = MaskSpec(causal=True, offset=setting.length)

    def decode() -> mx.array:
        logits = model(next_B1, mask=mask, cache=cache)
        for each in cache:
            _take_back(each)
        return logits

    # Evaluated, so that the graph counted next begins at the filled cache; this also settles how large the caches are.
    first = decode()
    mx.eval(first)
    outputs = decode()
    subject = _subject(
        setting,
        model,
        call=decode,
        check=lambda: check_decode(setting, model, first),
        outputs=outputs,
        cache_bytes=lambda: _held(cache),
    )
    mx.eval(outputs)
    return subject


_BUILD: dict[str, Callable[[ModelSetting], Subject]] = {
    "forward": _forward,
    "forward_backward": _forward_backward,
    "step": _step,
    "prefill": _prefill,
    "decode": _decode,
}


def useful_flops(setting: ModelSetting, model: Model, *, predicted: int) -> int:
    """Useful operations of one call; the output projection counts at the positions that it is applied to.

    Args:
        setting: Mode, batch size and length.
        model: The model.
        predicted: Positions of the whole batch that get logits.
    """
    decoding = setting.mode == "decode"
    queries, keys = (1, setting.length + 1) if decoding else (setting.length, setting.length)
    row = sum(
        layer.self_attn.flops(query_length=queries, key_length=keys) + queries * layer.mlp.flops_per_token
        for layer in model.layers
    )
    return FORWARDS[setting.mode] * (setting.batch_size * row + predicted * model.head_flops_per_token())


def _subject(
    setting: ModelSetting,
    model: Model,
    *,
    call: Callable[[], object],
    check: Callable[[], Any],
    outputs: Any,
    predicted: int | None = None,
    cache_bytes: Callable[[], int] | None = None,
) -> Subject:
    decoding = setting.mode == "decode"
    tokens = setting.batch_size * (1 if decoding else setting.length)
    positions = tokens if predicted is None else predicted
    work = work_of(outputs, useful_flops=useful_flops(setting, model, predicted=positions), tokens=tokens)
    classes = [variant.capabilities.exact_class for variant in setting.config.attention.variants()]
    held = setting.length + (1 if decoding else 0)
    return Subject(
        call=call,
        check=lambda: verdict(check()),
        work=work,
        exact_class="+".join(dict.fromkeys(classes)),
        analytic_bytes=model_bytes(setting, model, work, predicted=positions),
        cache_bytes=cache_bytes,
        analytic_cache_bytes=None
        if cache_bytes is None
        else model.cache_bytes(batch_size=setting.batch_size, length=held, dtype=setting.dtype),
    )


def _compiled(function: Callable[..., Any], state: Any, setting: ModelSetting) -> Callable[..., Any]:
    return mx.compile(function, inputs=state) if setting.compiled else function


def _take_back(cache: Cache) -> None:
    """Lets the next token lie where the last one does.

    A window's cache that is full has lost what the last token overwrote, so it is not trimmable in general. But that
    was a token that no query at the last one's position may see.
    """
    if cache.is_trimmable() or isinstance(cache, RotatingKVCache):
        cache.trim(1)


def _arrays(cache: list[Cache]) -> list[mx.array]:
    return arrays_of([each.state for each in cache])


def _held(cache: list[Cache]) -> int:
    return sum(each.nbytes for each in cache)
