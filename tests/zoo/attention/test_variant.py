"""Variants from mappings of any kind: one line that names the field, and never a traceback or an endless descent."""

from pathlib import Path
from typing import Any

import pytest

from zoo.attention import catalog, variant_from_mapping
from zoo.attention.catalog import attention_names, expand, variant, variant_mapping
from zoo.config import UserError

ENDLESS: dict[str, Any] = {"name": "endless"}
ENDLESS["layer_pattern"] = [ENDLESS]
DEEP: dict[str, Any] = {"name": "deep", "mechanism": "softmax"}
for _ in range(2000):
    DEEP = {"name": "deep", "layer_pattern": [DEEP]}

WRONG: list[tuple[Any, str]] = [
    ([1, 2], r"attention must be a mapping; got \[1, 2\]"),
    ("swa", "attention must be a mapping; got 'swa'"),
    ({}, r"attention\.name must be a text"),
    ({"name": 1, "mechanism": "softmax"}, r"attention\.name must be a text; got 1"),
    ({"name": "", "mechanism": "softmax"}, r"attention\.name must be one line"),
    ({"name": "a\nb", "mechanism": "softmax"}, r"attention\.name must be one line"),
    ({"name": "\x1b[31m", "mechanism": "softmax"}, r"attention\.name must be one line"),
    ({"name": "x" * 10_000, "mechanism": "softmax"}, r"attention\.name must be one line"),
    ({"name": "x"}, "attention: missing key 'mechanism'"),
    ({"name": "x", "mechanism": ["softmax"]}, r"attention\.mechanism must be a text"),
    ({"name": "x", "mechanism": "y" * 10_000}, r"attention\.mechanism must be a registered mechanism"),
    ({"name": "x", "mechanism": "softmax", "implementation": {}}, r"attention\.implementation must be one of"),
    ({"name": "x", "mechanism": "softmax", "implementation": False}, r"attention\.implementation must be one of"),
    ({"name": "x", "mechanism": "softmax", "implementation": ""}, r"attention\.implementation must be one of"),
    ({"name": "x", "mechanism": "softmax", 3: 4}, "attention: unknown key 3"),
    ({"name": "x", "mechanism": "sliding_window", "window_sise": 4}, "did you mean 'window_size'"),
    (
        {"name": "x", "mechanism": "sliding_window", "window_size": "4"},
        r"attention\.window_size must be a whole number",
    ),
    ({"name": "x", "mechanism": "sliding_window", "window_size": 10**18}, "window_size must be at most"),
    ({"name": "x", "mechanism": "learned_sinks", "window_size": 10**18}, "window_size must be at most"),
    ({"name": "x", "mechanism": "softcap", "cap": 1e-300}, "cap must be at least"),
    ({"name": "x", "mechanism": "softcap", "cap": float("nan")}, r"attention\.cap must be a finite number"),
    ({"name": "x", "layer_pattern": []}, r"attention\.layer_pattern must be a non-empty list"),
    ({"name": "x", "layer_pattern": None}, r"attention\.layer_pattern must be a non-empty list"),
    ({"name": "x", "layer_pattern": "swa"}, r"attention\.layer_pattern must be a non-empty list"),
    ({"name": "x", "layer_pattern": {"a": 1}}, r"attention\.layer_pattern must be a non-empty list"),
    ({"name": "x", "layer_pattern": ["swa"], "window_size": 3}, "a hybrid has only 'name' and 'layer_pattern'"),
    ({"name": "x", "layer_pattern": ["swa"], 3: 3}, "a hybrid has only 'name' and 'layer_pattern'"),
    ({"name": "x", "layer_pattern": [None]}, r"attention\.layer_pattern\[0\] must be a variant; got None"),
    ({"name": "x", "layer_pattern": ["swa", "nope"]}, r"attention\.layer_pattern\[1\] must be a variant; got 'nope'"),
    ({"name": "x", "layer_pattern": ["../train"]}, r"attention\.layer_pattern\[0\] must be a variant"),
    ({"name": "x", "layer_pattern": ["x" * 5000]}, r"attention\.layer_pattern\[0\] must be a variant"),
    ({"name": "x", "layer_pattern": ["hybrid_swa"]}, r"attention\.layer_pattern\[0\] must not be a hybrid itself"),
    (ENDLESS, r"attention\.layer_pattern\[0\] must not be a hybrid itself; got 'endless'"),
    (DEEP, r"attention\.layer_pattern\[0\] must not be a hybrid itself; got 'deep'"),
]


@pytest.mark.parametrize(("mapping", "words"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_mapping_is_refused_in_one_line(mapping: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        variant_from_mapping(expand(mapping) if isinstance(mapping, dict) else mapping)
    message = str(refusal.value)
    assert message.isprintable()
    assert len(message) < 1200


@pytest.mark.parametrize("name", ["nope", "../train", "x" * 300, "a\0b", "", ".", None, 3, ("swa",)])
def test_a_name_of_no_variant_is_refused_with_the_choices(name: Any) -> None:
    with pytest.raises(UserError, match=r"attention must be a variant; got .*choices: .*swa"):
        variant(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a mapping"),
        ("- swa\n", "must be a mapping"),
        ("mechanism: [softmax\n", "must be YAML"),
        ("layer_pattern: [broken]\n", "must not be a hybrid itself; got 'broken'"),
        ("window_size: 3\n", "missing key 'mechanism'"),
        ("mechanism: softmax\nname: 3\n", "name must be a text"),
        ("mechanism: !!python/object/apply:os.getcwd []\n", "must be YAML"),
    ],
)
def test_a_malformed_yaml_of_a_variant_is_one_line(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(catalog, "SHIPPED_VARIANTS", tmp_path)
    with pytest.raises(UserError, match=words) as refusal:
        variant("broken")
    assert "\n" not in str(refusal.value)


def test_every_shipped_variant_survives_the_way_through_its_mapping() -> None:
    for name in attention_names():
        assert variant_from_mapping(variant(name).as_mapping()) == variant(name)
        assert variant_mapping(name)["name"] == name
