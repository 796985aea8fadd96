"""Whole commands inside this process: overrides and files of a run that anybody may have touched."""

import contextlib
import functools
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from recipes import compare, evaluate, generate, report, train, variants
from recipes.app import execute
from tests.fuzz.hostile import NUMBERS, TEXTS, as_json, changed, damaged, value
from tests.fuzz.subject import MustRefuseError, Subject
from tests.recipes.tiny_train import TINY
from tests.zoo.data.listed import SOURCE
from zoo.config import UserError

MAINS: dict[str, Any] = {"train": train.main, "generate": generate.main, "evaluate": evaluate.main}
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def command(name: str, main: Any, arguments: list[str]) -> str:
    """Runs a command.

    Returns:
        Its stdout.

    Raises:
        UserError: It was refused as the contract says; carries the line.
        MustRefuseError: It was refused in another way.
    """
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = execute(name, main, arguments)
    last = errors.getvalue().strip().splitlines()[-1:] or [""]
    if code == 0:
        json.loads(output.getvalue().splitlines()[-1])
        return output.getvalue()
    if code != 2 or not last[0].startswith("error: ") or "Traceback" in errors.getvalue():
        raise MustRefuseError(f"exit {code}: {last[0][:300]!r}")
    if any(ord(character) < 32 or ord(character) == 127 for character in last[0]):
        raise MustRefuseError(f"a control character in the error line: {last[0][:300]!r}")
    raise UserError(last[0])


class Overrides(Subject):
    """`train.py` with overrides that nobody should type."""

    name = "overrides"
    share = 1.2

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.corpus = _corpus(folder)
        self.keys = _keys("train", "optimizer=adamw", "tokenizer=bytes", "data=text", "attention=mha")

    def attempt(self, rng: random.Random, folder: Path) -> None:
        typed = []
        for _ in range(rng.choice((1, 1, 2))):
            key, usual = rng.choice(self.keys) if rng.random() < 0.95 else (rng.choice(TEXTS[:60]), None)
            if rng.random() < 0.4:
                typed.append(f"{key}={_plausible(rng, usual)}")
                continue
            mark = rng.choice(("", "", "", "", "", "+", "++", "~"))
            typed.append(f"{mark}{key}={_typed(rng)}" if rng.random() < 0.97 else f"{mark}{key}")
        quick = ["training.steps=1", "training.eval_batches=1", "training.sample_tokens=0"]
        fixed = [*TINY, "data=text", f"data.path={self.corpus}", f"data.cache_dir={self.folder}/cache", *quick]
        command("train", train.main, [*fixed, f"run_dir={folder}/run", *(each.replace("\0", "") for each in typed)])


class RunFiles(Subject):
    """A finished run whose files were touched, then resumed, evaluated, generated from and listed."""

    name = "run_files"
    share = 0.8

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        corpus = _corpus(folder)
        self.common = ["data=text", f"data.path={corpus}", f"data.cache_dir={folder}/cache", "training.sample_tokens=0"]
        command("train", train.main, [*TINY, *self.common, "training.steps=2", f"run_dir={folder}/run"])

    def attempt(self, rng: random.Random, folder: Path) -> None:
        run = folder / "run"
        shutil.copytree(self.folder / "run", run, symlinks=rng.random() < 0.8)
        file = rng.choice(
            [path for path in run.iterdir() if path.is_file() and path.suffix in (".yaml", ".json", ".jsonl")]
        )
        before = file.read_bytes()
        if file.suffix == ".json" and rng.random() < 0.6:
            file.write_bytes(as_json(rng, changed(rng, json.loads(before))))
        elif file.suffix == ".yaml" and rng.random() < 0.6:
            file.write_bytes(_yaml(changed(rng, yaml.safe_load(before))))
        else:
            file.write_bytes(damaged(rng, before))
        action = rng.randrange(3)
        if action == 0:
            resumed = [*TINY, *self.common, "training.steps=3", f"run_dir={run}", "resume=auto"]
            command("train", train.main, resumed)
        elif action == 1:
            told = [f"checkpoint={run}", f"run_dir={folder}/evaluation", "max_batches=1", "compile=false"]
            command("evaluate", evaluate.main, told)
        else:
            command("generate", generate.main, [f"checkpoint={run}", "prompt=a", "max_tokens=2"])


class OtherCommands(Subject):
    """The other commands with overrides that nobody should type; none of them gets as far as its work."""

    name = "other_commands"
    share = 0.5

    def attempt(self, rng: random.Random, folder: Path) -> None:
        name, main = rng.choice(
            [
                ("generate", generate.main),
                ("evaluate", evaluate.main),
                ("report", report.main),
                ("variants", variants.main),
                ("compare", compare.main),
            ]
        )
        key, usual = rng.choice(_keys(name) or [("nothing", None)])
        # Nothing is there to work on, so that whatever is accepted ends at once.
        nowhere = {"generate": ["prompt=a"], "compare": ["variants=[nothing]"], "report": [f"out={folder}/out"]}
        ready = ["checkpoint=" + str(folder / "nothing")] if name in ("generate", "evaluate") else []
        typed = f"{key}={_typed(rng) if rng.random() < 0.7 else _plausible(rng, usual)}".replace("\0", "")
        place = [f"run_dir={folder}/run"] if name in ("evaluate", "compare") and not key.startswith("run_dir") else []
        command(name, main, [*ready, *nowhere.get(name, []), *place, typed])


def _corpus(folder: Path) -> Path:
    """Two files of text."""
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text(SOURCE)
    (corpus / "b.txt").write_text(SOURCE[::-1])
    return corpus


def _typed(rng: random.Random) -> str:
    """A value as somebody may type it."""
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(TEXTS)
    if kind < 0.8:
        number = rng.choice(NUMBERS)
        return "9" * 400 if isinstance(number, int) and number > 10**100 else str(number)
    plain = value(rng)
    try:
        return json.dumps(plain)
    except (ValueError, RecursionError):
        return "[" * 300 + "]" * 300


def _plausible(rng: random.Random, usual: Any) -> str:
    """Another value of the type that a key has, of a size that a small machine can do."""
    if isinstance(usual, bool):
        return rng.choice(("true", "false"))
    if isinstance(usual, (int, float)):
        return rng.choice(("1", "2", "3", "4", "24", "0.5", "0.01"))
    if isinstance(usual, list):
        return rng.choice(("[]", "[a]", "null"))
    return rng.choice(("null", "auto", "cpu", "float32", "mha", "a b", "1"))


def _yaml(tree: Any) -> bytes:
    try:
        return yaml.safe_dump(tree).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError, yaml.YAMLError):
        return b"a: " + b"[" * 2000


@functools.cache
def _keys(name: str, *chosen: str) -> list[tuple[str, Any]]:
    """Keys and values of a command, nested ones with their dots; without those of a run that is long on purpose."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        plain = OmegaConf.to_container(compose(name, overrides=list(chosen)), resolve=False)
    groups = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    found = []

    def walk(tree: Any, path: str) -> None:
        if path:
            found.append((path, tree))
        if isinstance(tree, dict):
            for key, item in tree.items():
                walk(item, f"{path}.{key}" if path else str(key))

    walk(plain, "")
    # Compiling a step costs a C++ compiler's time, again for every setting.
    left_out = {"training.steps", "training.compile", "run_dir", "out", "pictures", "pages", *groups}
    return [(key, value) for key, value in found if key not in left_out]
