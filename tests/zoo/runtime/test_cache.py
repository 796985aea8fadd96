from pathlib import Path

import pytest

from zoo.config import UserError
from zoo.runtime.cache import default_cache_dir


def test_the_users_choice_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZOO_CACHE", raising=False)
    assert default_cache_dir() == tmp_path / ".cache" / "attention_zoo"
    monkeypatch.setenv("ZOO_CACHE", "~/elsewhere")
    assert default_cache_dir() == tmp_path / "elsewhere"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("ZOO_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(UserError, match="ZOO_CACHE must name a folder"):
        default_cache_dir()
