"""`--help` is short and complete: what a script does, every choice, every key with its default and its meaning."""

import dataclasses

import pytest

from recipes.app import CONFIGS, execute
from recipes.keys import is_section, recipe_classes
from zoo.config.files import read_yaml_mapping
from zoo.data.synthetic import SYNTHETIC_TASKS

SCRIPTS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_key_every_choice_and_the_way_to_see_all(script, flag, capsys):
    def main(_):
        raise AssertionError("help runs nothing")

    assert execute(script, main, [flag, "seed=3"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert shown.err == ""
    assert len(lines) < 70
    assert max(map(len, lines)) <= 120
    assert f"python scripts/{script}.py" in shown.out
    assert "--cfg job" in shown.out
    keys = {line.split("=")[0].strip(): line for line in lines if line.startswith("  ") and "=" in line}
    for recipe in recipe_classes(script):
        for field in dataclasses.fields(recipe):
            if not is_section(field.name) and not dataclasses.is_dataclass(field.type):
                assert field.name in keys
    for group in {line.split("=")[0].strip() for line in lines} & {path.name for path in CONFIGS.iterdir()}:
        for choice in (CONFIGS / group).glob("*.yaml"):
            is_task = script == "finetune" and choice.stem in SYNTHETIC_TASKS
            assert is_task or choice.stem in shown.out
    for key, line in keys.items():
        assert line.split("=", 1)[1].split(" ", 1)[1:], f"{key} has no meaning"


def test_the_defaults_are_those_of_the_yamls(capsys):
    execute("train", lambda _: {}, ["--help"])
    shown = capsys.readouterr().out
    for key, value in read_yaml_mapping(CONFIGS / "training" / "default.yaml", what="training").items():
        assert f"  training.{key}={'null' if value is None else str(value).lower()} " in shown
