import dataclasses
from typing import Any

import pytest

from eval.suites.series import published_series, series_named
from zoo.attention import variant_from_mapping
from zoo.attention.catalog import variant_mapping
from zoo.config import UserError


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("swa", {}),
        ("swa(window_size=64)", {"window_size": 64}),
        ("blocksparse(block_size=16, num_global_tokens=1)", {"block_size": 16, "num_global_tokens": 1}),
        # They exclude each other.
        ("gqa(num_kv_heads=4)", {"queries_per_kv_head": None, "num_kv_heads": 4}),
    ],
)
def test_a_name_says_what_is_changed_even_if_the_yaml_says_the_same(name: str, changes: dict[str, Any]) -> None:
    found = series_named(name)
    assert (found.name, found.shipped, found.changes) == (name, name.partition("(")[0], changes)
    whole = {**variant_mapping(found.shipped), **changes}
    assert found.mapping == {key: value for key, value in whole.items() if value is not None}
    assert found.variant == variant_from_mapping(found.mapping)
    turned = dataclasses.replace(found, mapping=dict(reversed(list(found.mapping.items()))))
    assert turned.attention == found.attention
    # Published figures are of the mechanism's own code.
    published = published_series(name)
    own = {"swa": "chunked", "blocksparse": "blocked", "gqa": "fused"}[found.shipped]
    assert (published.name, published.mapping) == (name, {**found.mapping, "implementation": own})
    assert published_series("mha_manual") == series_named("mha_manual")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swa(window_size=*2)", r"must be YAML"),
        ("swa(window_size=2024-99-99)", r"must be YAML"),
        ("swa(window_size=" + "9" * 5000 + ")", r"must be YAML"),
        ("swa(32)", r"variants must be names such as swa or swa\(window_size=32\); got 'swa\(32\)'"),
        ("swa(window_size=32", "variants must be names such as swa"),
        ("swaa(window_size=32)", "attention must be a variant; got 'swaa'"),
        ("swa(window=32)", "unknown key 'window'"),
        ("gqa(num_kv_heads=4, queries_per_kv_head=2)", "num_kv_heads"),
    ],
)
def test_what_is_no_series_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        series_named(text)
