"""A package outside the repository adds a mechanism by entry point, and it trains; a broken one harms nothing."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipes.app import execute
from zoo.attention import catalog, mechanism, registry, variant_from_mapping
from zoo.config import UserError

ROOT = Path(__file__).resolve().parents[3]

MODULE = '''"""Every second key, from a package of its own."""

from typing import Any

from zoo.attention.pattern import PatternConfig


def allowed(query_index: Any, key_index: Any, config: PatternConfig) -> Any:
    """Keys an even distance away."""
    return (query_index - key_index) % 2 == 0
'''
BROKEN = {
    "raises": "raise RuntimeError('broken\\n\\x1b[31m')",
    "imports": "import a_package_that_is_missing",
    "syntax": "def (",
    "exits": "import sys; sys.exit(3)",
    "interrupts": "raise KeyboardInterrupt",
    "base": "class Odd(BaseException): pass\nraise Odd",
    "generator": "raise GeneratorExit",
    "nothing": "x = 1",
    "number": "MECHANISM = 3",
    "other_name": "from zoo.attention import mechanism\nMECHANISM = mechanism('softmax')",
    "wrong_pattern": "def allowed(a): return a",
    "raising_pattern": "def allowed(q, k, c): raise ValueError('no')",
    "no_config": (
        "import dataclasses\nfrom zoo.attention import registry\nfrom zoo.attention.variants import softmax\n"
        "MECHANISM = dataclasses.replace(softmax.MECHANISM, name='no_config', config=int)"
    ),
    "no_capabilities": (
        "import dataclasses\nfrom zoo.attention.variants import softmax\n"
        "MECHANISM = dataclasses.replace(softmax.MECHANISM, name='no_capabilities', capabilities=lambda *_: None)"
    ),
}


def _install(folder: Path, entry_points: dict[str, str], *, package: str = "every-second") -> None:
    """Lays the package out as pip leaves it: the module, and metadata with its entry points."""
    folder.mkdir(exist_ok=True)
    (folder / "every_second.py").write_text(MODULE, encoding="utf-8")
    metadata = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    lines = "\n".join(f"{name} = {target}" for name, target in entry_points.items())
    (metadata / "entry_points.txt").write_text(f"[attention_zoo.mechanisms]\n{lines}\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are found in, for this test alone."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    _forget()
    yield folder
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    importlib.invalidate_caches()
    registry._find_all.cache_clear()
    catalog.attention_names.cache_clear()


def test_a_package_outside_adds_a_mechanism_that_trains(tmp_path: Path, text_corpus: Path) -> None:
    package = tmp_path / "site"
    _install(package, {"every_second": "every_second"})
    arguments = (
        "attention=every_second",
        "training.steps=3",
        "training.sequence_length=33",
        "training.batch_size=2",
        "training.eval_batches=1",
        "training.sample_tokens=0",
        # Compiling costs a C++ compiler's time.
        "training.compile=false",
        "model.num_layers=1",
        "data=text",
        f"data.path={text_corpus}",
        "tokenizer=bytes",
        f"run_dir={tmp_path / 'run'}",
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])}
    command = [sys.executable, "scripts/train.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["attention"], result["steps"]) == ("every_second", 3)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_is_left_out_with_one_line_that_names_it(
    name: str, site: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    (site / f"broken_{name}.py").write_text(f"print('loud')\n{BROKEN[name]}\n", encoding="utf-8")
    _install(site, {name: f"broken_{name}", "every_second": "every_second"}, package="odd-package")
    assert registry.external_mechanism_names() == ("every_second",)
    assert name not in catalog.attention_names()
    assert "every_second" in catalog.attention_names()
    (record,) = caplog.records
    assert "'odd-package'" in record.getMessage()
    assert record.getMessage().isprintable()
    assert capfd.readouterr().out == ""
    with pytest.raises(UserError, match="'odd-package'"):
        variant_from_mapping(catalog.variant_mapping(name))


@pytest.mark.parametrize("target", ["a_module_that_is_missing", "every_second:missing", "not a module!", "a:b:c", "os"])
def test_an_entry_point_that_leads_nowhere_is_left_out(
    target: str, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _install(site, {"odd": target})
    assert "softmax" in registry.mechanism_names()
    assert "odd" not in registry.mechanism_names()
    assert "'every-second'" in caplog.text


@pytest.mark.parametrize("name", ["softmax", "sliding_window", "mha", "../mha", "a b", "a,b"])
def test_a_name_that_is_taken_or_is_none_stays_what_it_is(
    name: str, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = dict(registry.mechanisms())
    _forget()
    _install(site, {name: "every_second"})
    assert registry.mechanisms() == before
    assert registry.external_mechanism_names() == ()
    (record,) = caplog.records
    assert "'every-second'" in record.getMessage()


def test_two_packages_with_one_name_are_both_left_out_and_named(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    _install(site, {"every_second": "every_second"}, package="first-package")
    _install(site, {"every_second": "every_second"}, package="second-package")
    with pytest.raises(UserError, match=r"of package '(first|second)-package' and of '(first|second)-package'"):
        mechanism("every_second")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("content", ["[attention_zoo.mechanisms]\nno equals sign\n", "\xff\xfe", "[", "=", "\0"])
def test_malformed_metadata_of_any_package_harms_nothing(content: str, site: Path) -> None:
    _install(site, {"odd": "every_second"}, package="odd-package")
    (site / "odd_package-1.0.dist-info" / "entry_points.txt").write_bytes(content.encode("latin-1"))
    _install(site, {"every_second": "every_second"})
    assert registry.external_mechanism_names() == ("every_second",)


def test_a_broken_package_takes_no_command_down(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "broken.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    _install(site, {"broken": "broken"}, package="odd-package")
    assert execute("train", lambda config: {"attention": config.attention.mechanism}, ["attention=mha"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"attention": "softmax"}

    def build(config: object) -> dict[str, object]:
        variant_from_mapping(dict(config.attention))
        return {}

    assert execute("train", build, ["attention=broken"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: attention.mechanism must be one that works; mechanism 'broken' of package 'odd-")


def test_ctrl_c_in_a_foreign_import_is_an_interruption(site: Path) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(10**6): pass\n"
    (site / "slow.py").write_text(code, encoding="utf-8")
    _install(site, {"slow": "slow"})
    with pytest.raises(KeyboardInterrupt):
        registry.mechanisms()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
