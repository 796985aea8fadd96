"""A deferred package is the same package, only later: its modules come alone, its names at their first use."""

import importlib
import sys
from threading import Thread

import pytest

from zoo.runtime import light_packages

PACKAGE = """
import sys
sys.executions = getattr(sys, "executions", 0) + 1
if getattr(sys, "broken", False):
    raise ImportError("a part is missing")
from . import heavy
from .heavy import named
__all__ = ["named"]
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `weighty` whose own module imports `heavy`, deferred; `light` needs neither."""
    folder = tmp_path / "weighty"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "heavy.py").write_text("named = 'named'")
    (folder / "light.py").write_text("weight = 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "executions", 0, raising=False)
    light_packages.defer("weighty")
    yield sys.modules["weighty"]
    for name in [each for each in sys.modules if each.partition(".")[0] == "weighty"]:
        del sys.modules[name]


def test_a_module_of_it_is_imported_alone(package):
    assert importlib.import_module("weighty.light").weight == 1
    assert package.light.weight == 1
    assert "weighty.heavy" not in sys.modules
    assert sys.executions == 0


def test_its_names_are_there_at_their_first_use_and_it_is_executed_once(package):
    assert (__import__("weighty", fromlist=["named"]).named, package.named, package.heavy.named) == (
        "named",
        "named",
        "named",
    )
    assert importlib.import_module("weighty") is package
    assert sys.executions == 1


def test_a_star_takes_what_it_names(package):
    assert __import__("weighty", fromlist=["*"]) is package
    assert vars(package)["named"] == "named"


def test_a_name_that_it_has_not_is_an_attribute_error_before_and_after(package):
    for _ in range(2):
        with pytest.raises(AttributeError, match="'weighty' has no attribute 'unknown'"):
            package.unknown  # noqa: B018
    assert sys.executions == 1


def test_its_own_answer_to_missing_names_counts(package, tmp_path):
    with (tmp_path / "weighty" / "__init__.py").open("a") as file:
        file.write("def __getattr__(name): return f'made {name}'\n")
    assert package.unknown == "made unknown"
    assert package.another == "made another"


def test_an_error_of_its_own_is_told_each_time_until_it_is_mended(package, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(sys, "broken", True, raising=False)
        for _ in range(2):
            with pytest.raises(ImportError, match="a part is missing"):
                package.named  # noqa: B018
    assert package.named == "named"


def test_threads_wait_for_the_one_that_executes_it(package, tmp_path):
    with (tmp_path / "weighty" / "__init__.py").open("a") as file:
        file.write("import time; time.sleep(0.05); late = 'late'\n")
    found = []
    threads = [Thread(target=lambda: found.append(package.late)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["late"] * 4
    assert sys.executions == 1


def test_a_package_that_is_not_installed_is_left_alone():
    light_packages.defer("no_such_package")
    assert "no_such_package" not in sys.modules


def test_mlx_lm_is_whole_for_whoever_uses_it():
    import mlx_lm
    import mlx_lm.tuner

    assert mlx_lm.load is mlx_lm.utils.load
    assert mlx_lm.generate is sys.modules["mlx_lm.generate"].generate
    assert mlx_lm.tuner.train is mlx_lm.tuner.trainer.train
    assert set(mlx_lm.__all__) <= set(vars(mlx_lm))
