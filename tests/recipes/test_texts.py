"""What is typed for a field whose type is a text arrives as typed, whatever it looks like; the type alone decides."""

import pkgutil
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf

import recipes
from recipes.app import CONFIGS, execute
from recipes.command_line import in_quotes, quoted, rewritten
from recipes.keys import is_text, is_texts, key_types
from zoo.config import UserError

SCRIPTS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
HOSTILE = (
    *("1e5", "695e0514", "0x10", "1_000", "1", "-1", "1.0", ".5", "inf", "nan", "true", "False", "no", "~", "None"),
    *("${seed}", "${oc.env:HOME}", "cost ${seed} now", "\\${seed}", "\\\\${seed}", "${", "$", "$$", "???", "a${", "$}"),
    *("a=b", "a,b", "=", ",", ":", "a: b", "x@y", "~x", "+x", "#x", "%x", "*", "&a", "!t", "|", ">", "@x", "`x`"),
    *("[x]1", "{a:1}", "f(x", "range(1,4)", "choice(a,b)", "(", ")", "{", "}", "]", "{a: [", "0b1", "1:30"),
    *("it's", "'tis", '"a', 'a "b" c', "'", '"', "'a' 'b'", '"a", "b"'),
    *("\\", "a\\", "\\\\", "\\'", "a\\b", "C:\\dir\\", "\\t", "\\x41", "\\u0041"),
    *("", " ", " 3", "3 ", "a  b", "\t", "a\tb", "\n", "a\nb", "\r\n", "\x1b[31m", "\u2028", "\x85"),
    *("zoë/é", "日本", "😀", "e\u0301", "\u202e", "Null", "nul", "2026-01-01", "a" * 5000),
)
SWAPPED = str.maketrans("'\"", "\"'")
NEW_LINES = {"prompt", "prompts", "stop", "training.sample_prompt"}


def _keys(script, accepts):
    """Keys that a value can be given to; the attention's name is that of its YAML."""
    return [key for key, hints in key_types(script).items() if any(map(accepts, hints)) and key != "attention.name"]


def _rewritten(script, override, *, sweep=False):
    (written,) = rewritten([override], script=script, config=CONFIGS / f"{script}.yaml", groups={}, sweep=sweep)
    return written


def _parsed(written):
    """The value, or the values of a sweep, as they come out of Hydra and OmegaConf."""
    (override,) = OverridesParser.create().parse_overrides([written])
    values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
    values = [_plain(each) for each in values]
    plain: Any = OmegaConf.to_container(OmegaConf.create({"values": values, "seed": 1}), resolve=True)
    return plain["values"]


def _plain(value):
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.text if isinstance(value, QuotedString) else value


def test_the_fields_of_every_recipe_are_enumerated():
    modules = {module.name for module in pkgutil.iter_modules(recipes.__path__)}
    assert set(SCRIPTS) <= modules
    texts = {key for script in SCRIPTS for key in _keys(script, is_text)}
    assert {"run_dir", "data.revision", "data.path", "tokenizer.path", "prompt", "harness.folder", "title"} <= texts
    assert {"training.sample_prompt", "attention.calibration", "optimizer.schedule", "model.positions"} <= texts
    lists = {key for script in SCRIPTS for key in _keys(script, is_texts)}
    assert {"prompts", "stop", "rows", "variants", "data.path", "tasks", "training.loggers", "harness.tasks"} <= lists


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_choices_of_a_section_agree_on_which_keys_are_texts(script):
    for key, hints in key_types(script).items():
        assert len({is_text(hint) or is_texts(hint) for hint in hints}) == 1, key


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_key_of_every_text_is_taken_as_typed(script):
    for key in _keys(script, is_text):
        for text in HOSTILE:
            assert _rewritten(script, f"{key}={text}") == f"++{key}={quoted(text)}", (key, text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_in_quotes_as_a_whole_loses_them(text):
    double = '"' + in_quotes(text.translate(SWAPPED))[1:-1].translate(SWAPPED) + '"'
    for written in (in_quotes(text), double):
        assert _rewritten("report", f"title={written}") == f"++title={quoted(text)}"


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_taken_as_typed_comes_out_of_hydra_as_typed(text):
    assert _parsed(f"++title={quoted(text)}") == [text]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_item_of_every_list_of_texts_is_taken_as_typed(script):
    for key in _keys(script, is_texts):
        for text in HOSTILE:
            expected = f"++{key}=[{quoted(text)},'b']"
            assert _rewritten(script, f"{key}=[{in_quotes(text)}, b]") == expected, (key, text)
            if text == text.strip(" ") and not set(text) & {",", "'", '"'} and text:
                assert _rewritten(script, f"{key}=[{text},b]") == expected, (key, text)


@pytest.mark.parametrize("text", [text for text in HOSTILE if text])
def test_in_a_sweep_commas_separate_and_the_rest_is_taken_as_typed(text):
    assert _parsed(_rewritten("report", f"title={in_quotes(text)},b", sweep=True)) == [text, "b"]
    if text == text.strip(" ") and not set(text) & {",", "'", '"'}:
        assert _parsed(_rewritten("report", f"title=b,{text}", sweep=True)) == ["b", text]


def test_a_sweep_may_go_over_lists():
    written = _rewritten("report", "rows=[a,'b,c'], [ ],[d]", sweep=True)
    assert _parsed(written) == [["a", "b,c"], [], ["d"]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_null_is_no_value_and_never_a_text(script):
    for key in _keys(script, lambda hint: is_text(hint) or is_texts(hint)):
        assert _rewritten(script, f"{key}=null") == f"++{key}=null"
        assert _rewritten(script, f"{key}=null,a", sweep=True) == f"++{key}=null,'a'"
    for key in _keys(script, is_texts):
        assert _rewritten(script, f"{key}=['null',null]") == f"++{key}=['null',null]"
        assert _rewritten(script, f"{key}=[]") == f"++{key}=[]"


@pytest.mark.parametrize("value", ["['a]", "[a,]", "[,a]", "[a,,b]", "['a'b]", '["a]'])
def test_a_list_that_is_not_closed_is_refused(value):
    with pytest.raises(UserError, match="rows must be items between commas"):
        _rewritten("report", f"rows={value}")


@pytest.mark.parametrize("key", sorted(NEW_LINES))
@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("a\\nb", "a\nb"),
        ("\\n", "\n"),
        ("\n", "\n"),
        ("\\\\n", "\\n"),
        ("\\\\\\n", "\\\\n"),
        ("\\t\\", "\\t\\"),
        ("n", "n"),
    ],
)
def test_a_new_line_can_be_typed_in_every_text_of_a_generation(key, typed, text):
    script = "train" if "." in key else "generate"
    if is_text(key_types(script)[key][0]):
        assert _parsed(_rewritten(script, f"{key}={typed}")) == [text]
    if is_texts(key_types(script)[key][0]):
        assert _parsed(_rewritten(script, f"{key}=[{typed},'{typed.rstrip(chr(92))}']")) == [[text, text.rstrip("\\")]]
    assert _parsed(_rewritten("train", f"run_dir={typed}")) == [typed]


@pytest.mark.parametrize(
    "key", ["training.steps", "training.max_grad_norm", "optimizer.betas", "attention.parameters.x"]
)
@pytest.mark.parametrize("value", ["${seed}", "[${seed}]", "{a:${oc.env:HOME}}", "1${seed}"])
@pytest.mark.parametrize("sweep", [False, True])
def test_nothing_on_the_command_line_is_filled_in(key, value, sweep):
    with pytest.raises(UserError, match=r"is filled in only in YAMLs"):
        _rewritten("train", f"{key}={value}", sweep=sweep)


@pytest.mark.parametrize("script", SCRIPTS)
def test_texts_arrive_as_typed_in_the_recipe(script, capsys):
    keys = _keys(script, is_text)
    texts = {key: HOSTILE[(7 * index) % len(HOSTILE)] for index, key in enumerate(keys)}
    found = {}

    def main(config):
        _flatten(OmegaConf.to_container(config, resolve=True), "", found)
        return {}

    needed = {"compare": ["variants=[mha]"], "report": ["rows=[x]"]}.get(script, [])
    code = execute(script, main, [*needed, *(f"{key}={text}" for key, text in texts.items())])
    assert (code, capsys.readouterr().err) == (0, "")
    assert {key: found[key] for key in keys} == texts


def _flatten(value, prefix, found):
    for key, item in value.items():
        found[f"{prefix}{key}"] = item
        if isinstance(item, dict):
            _flatten(item, f"{prefix}{key}.", found)
