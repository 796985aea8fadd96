"""Sizes of mechanisms: beyond int32 they are refused, and below it the largest computes what the formula says."""

import dataclasses
from typing import Any, get_args, get_type_hints

import mlx.core as mx
import numpy as np
import pytest

from tests.tolerances import tolerance
from tests.zoo.attention import cases
from zoo.attention import mechanism, mechanism_names
from zoo.attention.mechanism import GROUPING
from zoo.config import MOST, FieldError
from zoo.ops.masks import MaskSpec

SIZES = [
    (name, field.name)
    for name in mechanism_names()
    for field in dataclasses.fields(mechanism(name).config)
    if field.name not in GROUPING
    and int in (hint := get_type_hints(mechanism(name).config)[field.name], *get_args(hint))
]
LENGTH = 13


@pytest.mark.parametrize(("name", "field"), SIZES)
def test_a_size_beyond_int32_is_refused(name: str, field: str) -> None:
    for size in (MOST + 1, 10**18, -1):
        with pytest.raises(FieldError, match=rf"^{field} must .*; got {size}"):
            mechanism(name).config(**{field: size})


@pytest.mark.parametrize(("name", "field"), SIZES)
def test_the_largest_size_computes_what_the_formula_says(name: str, field: str) -> None:
    declared = mechanism(name)
    parameters = largest(declared.config, field)
    sizes = (2, LENGTH, cases.NUM_HEADS, cases.NUM_HEADS, cases.HEAD_DIM)
    inputs = declared.inputs(parameters, np.random.default_rng(0), *sizes)
    arrays = [mx.array(array.astype(np.float32)) for array in inputs]
    for implementation in declared.implementations_here():
        case = cases.Case(name, implementation, parameters)
        for causal in case.directions:
            spec = case.spec(MaskSpec(causal=causal))
            expected = declared.reference(*inputs, spec)
            np.testing.assert_allclose(np.array(case.op()(*arrays, spec)), expected, rtol=0, atol=tolerance(mx.float32))


def largest(config: type[Any], field: str) -> Any:
    """The config with the largest size that it takes: a power of two, or one below."""
    for size in (MOST, *(2**power for power in range(30, 0, -1))):
        try:
            return config(**{field: size})
        except FieldError:
            continue
    raise AssertionError(f"{config.__name__} takes no {field}")
