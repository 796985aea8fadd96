"""Plain mappings become frozen dataclasses; every mistake is one line that names its place and the choices."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import hypothesis
import pytest
from hypothesis import strategies

from zoo.config import FieldError, UserError, from_mapping, require, to_mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 3

    def __post_init__(self) -> None:
        require(self.width % 2 == 1, "width", "be odd", self.width, allowed=[1, 3, 5])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    rate: float = 0.5
    name: str = "one"
    enabled: bool = True
    kind: Literal["left", "right"] = "left"
    limit: int | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[int, str] = (1, "a")
    inner: Inner = dataclasses.field(default_factory=Inner)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    mode: int | Literal["auto"] = "auto"


def refusal(mapping: Mapping[str, Any], cls: type = Outer) -> str:
    with pytest.raises(UserError) as caught:
        from_mapping(cls, mapping, path="model")
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "model: missing key 'count'; the keys are count, rate, name"),
        ({"count": 1, "counts": 2}, "model: unknown key 'counts'; did you mean 'count'?"),
        ({"count": 1, "zzz": 2}, "model: unknown key 'zzz'; the keys are count, enabled"),
        ({"count": "many"}, "model.count must be a whole number; got 'many'"),
        ({"count": True}, "model.count must be a whole number; got True"),
        ({"count": 1.5}, "model.count must be a whole number; got 1.5"),
        ({"count": None}, "model.count must be a whole number; got None"),
        ({"count": 1, "rate": "fast"}, "model.rate must be a number; got 'fast'"),
        ({"count": 1, "rate": False}, "model.rate must be a number; got False"),
        ({"count": 1, "name": 7}, "model.name must be a text; got 7"),
        ({"count": 1, "enabled": 1}, "model.enabled must be true or false; got 1"),
        ({"count": 1, "kind": "up"}, "model.kind must be one of left, right; got 'up'"),
        ({"count": 1, "limit": "x"}, "model.limit must be a whole number; got 'x'"),
        ({"count": 1, "sizes": "12"}, "model.sizes must be a list; got '12'"),
        ({"count": 1, "sizes": [1, "2"]}, "model.sizes[1] must be a whole number; got '2'"),
        ({"count": 1, "pair": [1]}, "model.pair must have 2 items; got [1]"),
        ({"count": 1, "inner": 3}, "model.inner must be a mapping; got 3"),
        ({"count": 1, "inner": {"width": 4}}, "model.inner: width must be odd; got 4"),
        ({"count": 1, "inner": {"height": 4}}, "model.inner: unknown key 'height'"),
        ({"count": 1, "inner": {"width": 4}}, "(choices: 1, 3, 5)"),
        ({"count": 1, "inner": {"width": "w"}}, "model.inner.width must be a whole number; got 'w'"),
        ({"count": 1, "options": [1]}, "model.options must be a mapping; got [1]"),
    ],
)
def test_a_mistake_is_named_with_its_place(mapping: dict[str, Any], message: str) -> None:
    assert message in refusal(mapping)


def test_values_take_the_types_of_their_fields() -> None:
    built = from_mapping(
        Outer,
        {
            "count": 2,
            "rate": 3,
            "sizes": [4, 5],
            "pair": [6, "b"],
            "inner": {"width": 5},
            "limit": None,
            "options": {"any": [1, "x"]},
            "mode": 7,
        },
        path="model",
    )
    assert built == Outer(
        count=2, rate=3.0, sizes=(4, 5), pair=(6, "b"), inner=Inner(width=5), options={"any": [1, "x"]}, mode=7
    )
    assert isinstance(built.rate, float)


def test_a_ready_config_passes_through() -> None:
    inner = Inner(width=1)
    assert from_mapping(Outer, {"count": 1, "inner": inner}, path="model").inner is inner


def test_a_field_type_that_no_config_may_have_is_our_own_fault() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wrong:
        value: set[int]

    with pytest.raises(TypeError, match=r"model\.value"):
        from_mapping(Wrong, {"value": {1}}, path="model")


configs = strategies.builds(
    Outer,
    count=strategies.integers(),
    rate=strategies.floats(allow_nan=False),
    name=strategies.text(),
    enabled=strategies.booleans(),
    kind=strategies.sampled_from(["left", "right"]),
    limit=strategies.none() | strategies.integers(),
    sizes=strategies.lists(strategies.integers()).map(tuple),
    pair=strategies.tuples(strategies.integers(), strategies.text()),
    inner=strategies.builds(Inner, width=strategies.sampled_from([1, 3, 5])),
    mode=strategies.integers() | strategies.just("auto"),
)


@hypothesis.given(config=configs)
def test_a_config_survives_its_mapping(config: Outer) -> None:
    assert from_mapping(Outer, to_mapping(config), path="model") == config


@hypothesis.given(
    mapping=strategies.dictionaries(
        strategies.sampled_from([*Outer.__dataclass_fields__, "other"]),
        strategies.recursive(
            strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
            lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_any_mapping_is_either_built_or_refused_by_name(mapping: dict[str, Any]) -> None:
    try:
        outcome: Outer | str = from_mapping(Outer, mapping, path="model")
    except UserError as error:
        outcome = str(error)
    assert isinstance(outcome, Outer) or outcome.startswith("model")


def test_require_passes_what_meets_the_condition() -> None:
    require(True, "width", "be odd", 4)
    with pytest.raises(FieldError, match=r"^width must be odd; got 4 \(choices: 1, 3\)$"):
        require(False, "width", "be odd", 4, allowed=[1, 3])


@pytest.mark.parametrize("quoted", ["a\nb", "\x1b[31mred", "\u202etxt", "\ud800", "\r", "\0", "a\u2028b"])
def test_what_a_message_quotes_never_reaches_a_terminal_as_it_is(quoted):
    assert str(UserError(f"run_dir: {quoted} must exist")).isprintable()
    assert str(UserError("é 漢字 🙂 – “x” … ±")) == "é 漢字 🙂 – “x” … ±"
