"""The published block-sparse attention in models: encoders may compare it, language models are told why not."""

import pytest

from tests.zoo.attention.cases import Case
from zoo.attention import mechanism
from zoo.config import UserError

DECLARED = mechanism("block_sparse_legacy")
CASE = Case("block_sparse_legacy", "blocked", DECLARED.config())


def test_language_models_are_refused_with_both_reasons_and_the_sound_form() -> None:
    with pytest.raises(UserError, match=r"averages two softmaxes.* leak the future; use attention=blocksparse$"):
        CASE.layer(causal=True)


def test_useful_work_counts_both_softmaxes() -> None:
    layer = CASE.layer(causal=False)
    projections = layer.flops(query_length=64, key_length=64) - layer.mixing_flops(query_length=64, key_length=64)
    assert projections == 64 * layer.flops(query_length=1, key_length=1) - 64 * layer.mixing_flops(
        query_length=1, key_length=1
    )
    scores = 64 * 32 + 64 * 1
    assert layer.mixing_flops(query_length=64, key_length=64) == 4 * 6 * 10 * scores


def test_zero_global_tokens_are_refused() -> None:
    with pytest.raises(UserError, match="num_global_tokens must be at least 1"):
        DECLARED.config(num_global_tokens=0)
