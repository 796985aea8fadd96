"""What a user may choose, and what is refused."""

import math

import pytest

from zoo.config import UserError, from_mapping
from zoo.generation import GenerationConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("top_p", -0.5),
        ("temperature", -0.1),
        ("temperature", 10**400),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("min_p", -0.01),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -1.0),
        ("repetition_penalty", math.inf),
        ("repetition_context_size", 0),
        ("stop", ["end", ""]),
        ("stop", "end"),
        ("seed", -1),
        ("seed", 2**32),
        ("prefill_step_size", 0),
    ],
)
def test_impossible_choices_are_refused_in_one_line_that_names_them(field, value):
    with pytest.raises(UserError, match=rf"^generation(: |\.){field} must [^\n]*$"):
        from_mapping(GenerationConfig, {field: value}, path="generation")


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_tokens", None), ("max_tokens", 1), ("temperature", 0), ("top_p", 1), ("min_p", 1), ("stop", ["\n", "end"])],
)
def test_the_ends_of_each_range_are_allowed(field, value):
    config = from_mapping(GenerationConfig, {field: value}, path="generation")
    assert getattr(config, field) == (tuple(value) if isinstance(value, list) else value)
