import json
import subprocess
from pathlib import Path

import mlx.core as mx
import pytest

from zoo.runtime import versions


def test_a_description_survives_json_and_names_no_folder() -> None:
    text = json.dumps(versions.describe())
    assert json.loads(text) == versions.describe()
    for folder in {Path.home(), Path.cwd(), versions.CHECKOUT} - {Path("/")}:
        assert str(folder) not in text


def test_a_description_says_what_computed() -> None:
    described = versions.describe()
    assert described["versions"]["mlx"] == mx.__version__
    assert described["blas"]["name"]
    assert described["cores"] >= 1
    assert described["device"] == versions.device_label()


def test_a_cpu_is_labelled_with_its_cores_and_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions.mx, "device_info", lambda: {"device_name": "AMD EPYC"})
    monkeypatch.setattr(versions, "backend", lambda: "cpu")
    monkeypatch.setattr(versions.platform, "system", lambda: "Linux")
    monkeypatch.setattr(versions, "usable_cores", lambda: 2)
    assert versions.device_label() == "AMD EPYC, 2 cores, Linux CPU"
    monkeypatch.setattr(versions, "usable_cores", lambda: 1)
    assert versions.device_label() == "AMD EPYC, 1 core, Linux CPU"


@pytest.mark.parametrize(("kind", "label"), [("metal", "Apple M4 Max, Metal"), ("cuda", "Apple M4 Max, CUDA")])
def test_a_gpu_is_labelled_with_its_back_end(kind: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions.mx, "device_info", lambda: {"device_name": "Apple M4 Max"})
    monkeypatch.setattr(versions, "backend", lambda: kind)
    assert versions.device_label() == label


def test_the_commit_is_that_of_the_checkout_as_a_process_found_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert versions.checkout_state(tmp_path) == (None, None)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    (tmp_path / "file").write_text("one")
    for command in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    head = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    monkeypatch.setattr(versions, "CHECKOUT", tmp_path)
    described = versions.describe()
    assert (described["commit"], described["uncommitted_changes"]) == (head.stdout.strip(), False)
    (tmp_path / "file").write_text("two")
    assert versions.checkout_state(tmp_path) == (head.stdout.strip(), True)
    assert versions.describe() == described


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CEILING_DIRECTORIES"])
def test_variables_of_git_name_no_other_repository(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for name in ("own", "other"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "file").write_text(name)
        for command in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", name]):
            subprocess.run(["git", "-C", folder, *command], check=True)
    before = versions.checkout_state(tmp_path / "own")
    other = tmp_path / "other"
    monkeypatch.setenv(
        variable, str({"GIT_DIR": other / ".git", "GIT_INDEX_FILE": other / ".git" / "index"}.get(variable, other))
    )
    assert versions.checkout_state(tmp_path / "own") == before
    assert before[0] is not None
    assert before[1] is False


@pytest.mark.parametrize("script", ["exit 128", "kill -9 $$", "sleep 60", "printf '\\377'; exit 1"])
def test_a_git_that_refuses_or_hangs_is_no_commit(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setattr(versions, "_GIT_SECONDS", 0.2)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert versions.checkout_state(tmp_path) == (None, None)


def test_a_machine_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions.checkout_state(tmp_path) == (None, None)


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert versions.package_version("attention-zoo-does-not-exist") is None
