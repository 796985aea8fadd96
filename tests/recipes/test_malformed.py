"""What is malformed, on the command line or in a YAML of one's own, is one line of printable characters."""

import pytest

from recipes.app import execute
from zoo.attention import catalog
from zoo.config import UserError

LONG = 5000
OVERRIDES = {
    "nothing before the equals sign": "=1",
    "nothing at all": "=",
    "only signs": "++",
    "a tilde alone": "~",
    "two tildes": "~~a",
    "no equals sign": "training.steps",
    "a key of other letters": "ключ=3",
    "a key with a space": "a b=3",
    "a key with an escape": "a\x1b[31mb=3",
    "a null character": "run_dir=a\0b",
    "a key with an empty part": "training..steps=3",
    "a key that begins with a dot": ".a=3",
    "a long key": "a" * LONG + "=3",
    "a deep key": "a." * LONG + "a=3",
    "half a surrogate pair": "run_dir=\udcff",
    "a key of half a surrogate pair": "\udcff=3",
    "a number of thousands of digits": f"training.steps={'9' * LONG}",
    "more characters than anybody means": f"optimizer.betas=[{'1,' * 20_000}1]",
    "deep brackets": f"training.steps={'[' * LONG}",
    "balanced deep brackets": f"training.steps={'[' * 100}{']' * 100}",
    "a function that is none": "training.steps=foo(1)",
    "a function of a wrong argument": "training.steps=int(x)",
    "an escape in a number": "training.steps=\x1b[31m5",
    "a new line in a number": "training.steps=\n5",
    "a path for a name": "attention=../model/gpt_tiny",
    "an absolute path for a name": "attention=/etc/passwd",
    "a long name": f"attention={'a' * LONG}",
    "an escape in a name": "attention=m\x1bha",
    "a mapping for a name": "model={a:1}",
    "a flag that Hydra would trip over": "--shell-completion",
    "another one": "--experimental-rerun=x",
    "a third one": "--resolve",
    "a folder that is none": "--config-dir=/dev/null",
    "a folder of a long name": f"--config-dir={'a' * LONG}",
    "a folder of a null character": "--config-dir=a\0b",
    "a folder that is not there": "--config-path=missing",
    "a YAML that is not there": "--config-name=missing",
}


def refused(arguments, capsys, main=lambda _: {}):
    code = execute("train", main, arguments)
    shown = capsys.readouterr()
    (line,) = shown.err.split("\n")[:-1]
    assert (code, shown.out) == (2, ""), line
    assert line.startswith("error: ")
    assert line.isprintable()
    assert len(line) < 3100
    return line


@pytest.mark.parametrize("override", OVERRIDES.values(), ids=OVERRIDES)
def test_a_malformed_override_is_one_line(override, capsys):
    refused([override], capsys)


@pytest.mark.parametrize("key", ["training.steps.x", "training.steps.x.y", "model.num_layers.0"])
def test_a_key_below_a_value_reaches_the_recipe_as_a_mapping(key, capsys):
    sections = []

    def main(config):
        sections.append(config[key.partition(".")[0]])
        return {}

    assert execute("train", main, [f"{key}=3"]) == 0
    assert capsys.readouterr().err == ""
    assert dict(sections[0])[key.split(".")[1]] != 3


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + index)}: &{chr(98 + index)} [{','.join(['*' + chr(97 + index)] * 10)}]\n" for index in range(9)
)
YAMLS = {
    "syntax": b"mechanism: [",
    "UTF-16": "mechanism: softmax\n".encode("utf-16"),
    "Latin-1": "# caf\xe9\nmechanism: softmax\n".encode("latin-1"),
    "an alias bomb": BOMB.encode(),
    "an alias of itself": b"&a [*a]",
    "an object of Python": b"mechanism: !!python/object/apply:os.system ['true']",
    "a list": b"- a\n",
    "a key twice": b"mechanism: softmax\nmechanism: linear\n",
    "no key": b"~: 2\n",
    "a null character": b"mechanism: so\0ft",
    "an interpolation that is not closed": b"mechanism: ${\n",
    "an interpolation of itself": b"mechanism: ${.mechanism}\n",
    "defaults that are none": b"defaults: 3\n",
    "defaults that hold themselves": b"defaults: [own]\n",
    "an attention that is a number": b"# @package _global_\nattention: 3\n",
    "settings of Hydra": b"# @package _global_\nhydra: 3\n",
    "another name": b"name: ../other\nmechanism: softmax\n",
    "itself as its layers": b"layer_pattern: [own]\n",
}


@pytest.mark.parametrize("content", YAMLS.values(), ids=YAMLS)
def test_a_malformed_yaml_of_ones_own_is_one_line(content, tmp_path, capsys):
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "own.yaml").write_bytes(content)
    refused([f"--config-dir={tmp_path}", "attention=own"], capsys)


@pytest.mark.parametrize("content", [YAMLS["syntax"], YAMLS["UTF-16"], YAMLS["an alias bomb"], b"- a\n", b""])
def test_a_malformed_yaml_among_the_shipped_ones_is_named(content, tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_bytes(content)
    monkeypatch.setattr(catalog, "SHIPPED_VARIANTS", tmp_path)
    with pytest.raises(UserError, match=r"own\.yaml must"):
        catalog.variant("own")


def test_a_hybrid_of_itself_ends(tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_text("layer_pattern: [own]", encoding="utf-8")
    monkeypatch.setattr(catalog, "SHIPPED_VARIANTS", tmp_path)
    with pytest.raises(UserError, match="layer_pattern"):
        catalog.variant("own")


def test_a_temporary_folder_that_cannot_be_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert refused(["--multirun"], capsys).startswith("error: TMPDIR must name a folder that can be written")
