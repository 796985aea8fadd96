"""Whole models of every variant: built, right, and with the work that they are worth."""

from typing import Any

import mlx.core as mx
import pytest

from eval.bench import Workload
from eval.bench.worker import peak_bytes_of_calls
from eval.rows import Cell
from eval.workloads.model import model_setting
from eval.workloads.registry import BUILDERS
from tests.eval.workloads import settings
from tests.eval.workloads.settings import called
from zoo.attention.catalog import attention_names, variant

LENGTH, BATCH_SIZE, VOCAB_SIZE = 11, 2, 53


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.shrink_models(monkeypatch, vocab_size=VOCAB_SIZE)


def _cell(name: str, mode: str, *, model: str = "gpt_tiny", **changes: Any) -> Cell:
    plain = {"model": model, "mode": mode, "length": LENGTH, "batch_size": BATCH_SIZE, "causal": model != "bert_tiny"}
    return settings.cell("model", name, **{**plain, **changes})


def _able(name: str, *capabilities: str) -> bool:
    return all(getattr(each.capabilities, able) for each in variant(name).variants() for able in capabilities)


CAUSAL = [name for name in attention_names() if _able(name, "causal")]
DECODING = [name for name in attention_names() if _able(name, "causal", "decode")]
# One variant of each function, so that the longer checks see every mechanism once.
EACH_FUNCTION = list(
    {tuple(each.capabilities.exact_class for each in variant(name).variants()): name for name in CAUSAL}.values()
)


@pytest.mark.parametrize("name", CAUSAL)
def test_every_variant_makes_a_training_step_that_moves_the_weights(name: str) -> None:
    workload = BUILDERS["model"](_cell(name, "step"))
    first, norm, state = called(workload)
    mx.eval(first, norm, state)
    second, *_ = called(workload)
    assert second.item() < first.item()
    assert norm.item() > 0
    assert workload.work.tokens == BATCH_SIZE * LENGTH


def _held(workload: Workload) -> int:
    """Bytes of the cache of decoding."""
    assert workload.cache_bytes is not None
    return workload.cache_bytes()


@pytest.mark.parametrize("name", DECODING)
def test_every_variant_that_can_decode_reads_one_token_a_call(name: str) -> None:
    workload = BUILDERS["model"](_cell(name, "decode"))
    assert called(workload).shape == (BATCH_SIZE, 1, VOCAB_SIZE)
    assert workload.work.tokens == BATCH_SIZE
    assert _held(workload) > 0


GATED = [(name, mode, "llama_tiny") for name in EACH_FUNCTION for mode in ("forward_backward", "prefill", "decode")]
COMPILED = [("linear", "forward", "bert_tiny"), ("linear", "step", "bert_tiny"), ("hybrid_swa", "step", "gpt_tiny")]


@pytest.mark.parametrize(("name", "mode", "model"), [*GATED, *COMPILED])
def test_every_function_passes_the_gate_and_encoders_and_steps_do_compiled(name: str, mode: str, model: str) -> None:
    workload = BUILDERS["model"](_cell(name, mode, model=model, compiled=(name, mode, model) in COMPILED))
    mx.eval(called(workload))
    verdict = workload.check()
    assert verdict.passed, verdict.checks


WINDOWED = {"name": "swa", "mechanism": "sliding_window", "implementation": "chunked", "window_size": 5}
FULL = {"name": "mha", "mechanism": "softmax", "implementation": "fused"}


@pytest.mark.parametrize("layers", [(FULL, FULL), (WINDOWED, WINDOWED), (WINDOWED, FULL), (FULL, WINDOWED)])
@pytest.mark.parametrize("length", [4, 5, LENGTH])
def test_decoding_takes_its_token_back_from_every_cache_of_keys_and_values(layers: Any, length: int) -> None:
    attention = {"name": "hybrid_swa", "layer_pattern": list(layers)}
    workload = BUILDERS["model"](_cell("hybrid_swa", "decode", attention=attention, length=length, model="llama_tiny"))
    held, first = _held(workload), called(workload)
    assert all(mx.array_equal(first, called(workload)).item() for _ in range(7))
    assert _held(workload) == held == workload.analytic_cache_bytes


@pytest.mark.parametrize("mode", ["forward", "forward_backward", "step", "prefill", "decode"])
def test_no_call_holds_less_than_it_must(mode: str) -> None:
    workload = BUILDERS["model"](_cell("mha", mode))
    assert peak_bytes_of_calls(workload.call) >= workload.analytic_bytes > 0


def test_decoding_moves_recurrent_states_on_and_leaves_other_caches_as_large() -> None:
    attention = {"name": "hybrid_swa", "layer_pattern": [{"name": "linear", "mechanism": "linear"}, FULL]}
    workload = BUILDERS["model"](_cell("hybrid_swa", "decode", attention=attention))
    held, first = _held(workload), called(workload)
    # Beyond a block of 256 slots, were it to move on.
    for _ in range(260):
        mx.eval(called(workload))
    assert not mx.array_equal(first, called(workload)).item()
    assert _held(workload) == held


def test_learned_positions_reach_as_far_as_the_cell_asks() -> None:
    for mode, length, reached in (("forward", LENGTH, 64), ("forward", 70, 70), ("decode", 70, 70 + 8)):
        assert model_setting(_cell("mha", mode, length=length)).config.max_seq_len == reached


def test_useful_flops_count_the_output_projection_where_it_is_applied() -> None:
    work = {mode: BUILDERS["model"](_cell("mha", mode)).work for mode in ("forward", "step", "prefill", "decode")}
    model = model_setting(_cell("mha", "forward")).model()
    whole = BATCH_SIZE * LENGTH * model.flops_per_token(LENGTH)
    # The model's own count per token is rounded down.
    assert 0 <= work["forward"].useful_flops - whole < BATCH_SIZE * LENGTH
    assert work["step"].useful_flops == 3 * work["forward"].useful_flops
    head = model.head_flops_per_token()
    saved = BATCH_SIZE * (LENGTH - 1) * head
    assert work["prefill"].useful_flops == work["forward"].useful_flops - saved
    assert BATCH_SIZE * head < work["decode"].useful_flops < work["prefill"].useful_flops / 4


def test_counting_operations_of_a_step_leaves_the_weights_as_they_were() -> None:
    asked = _cell("mha", "step")
    workload, untouched = BUILDERS["model"](asked), model_setting(asked).model()
    _, _, state = called(workload)
    weights = state[0]["embed_tokens"]["weight"]
    # AdamW's first step is 3.2 times the learning rate; two would be 7.4 times.
    assert 0 < mx.abs(weights - untouched.embed_tokens.weight).max().item() < 4e-4
