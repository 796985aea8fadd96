import pytest

from eval.suites.series import chosen_series, named_parameters, published_series, series
from zoo.attention import variant_from_mapping
from zoo.attention.catalog import variant_mapping
from zoo.config import UserError


def test_changed_parameters_stand_in_the_name_and_in_the_mapping() -> None:
    found = series("blocksparse", block_size=16, num_global_tokens=1)
    assert found.name == "blocksparse(block_size=16, num_global_tokens=1)"
    assert found.mapping == {**variant_mapping("blocksparse"), "block_size": 16, "num_global_tokens": 1}


def test_a_parameter_is_named_even_if_it_is_the_default() -> None:
    assert series("swa", window_size=64).name == "swa(window_size=64)"
    assert series("swa").name == "swa"


def test_head_groupings_exclude_each_other() -> None:
    mapping = series("gqa", num_kv_heads=4).mapping
    assert mapping["num_kv_heads"] == 4
    assert "queries_per_kv_head" not in mapping


def test_unknown_parameters_are_refused() -> None:
    with pytest.raises(UserError, match="window_sice"):
        series("swa", window_sice=32)


def test_the_text_of_a_series_is_the_same_however_its_mapping_is_ordered() -> None:
    mapping = variant_mapping("swa")
    turned = dict(reversed(list(mapping.items())))
    ours, theirs = (chosen_series({"swa": each}, ())[0] for each in (mapping, turned))
    assert ours.attention == theirs.attention
    assert ours.variant == variant_from_mapping(mapping)


def test_default_variants_serve_only_where_none_was_named() -> None:
    assert [each.name for each in chosen_series(None, ["mha", "swa"])] == ["mha", "swa"]
    assert [each.name for each in chosen_series({"mine": variant_mapping("mqa")}, ["mha"])] == ["mine"]


def test_a_series_is_taken_apart_by_its_own_name():
    for each in (
        series("swa"),
        series("swa", window_size=32),
        series("blocksparse", block_size=16, num_global_tokens=1),
    ):
        name, parameters = named_parameters(each.name)
        assert series(name, **parameters) == each


def test_published_figures_are_of_the_mechanisms_own_code():
    assert series("swa").mapping["implementation"] == "auto"
    found = published_series("swa(window_size=32)")
    assert (found.name, found.mapping["implementation"]) == ("swa(window_size=32)", "chunked")
    assert published_series("mha_manual") == series("mha_manual")


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
    ],
)
def test_what_is_no_series_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        named_parameters(text)
