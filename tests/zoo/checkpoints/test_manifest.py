import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path

import pytest

from tests.zoo.checkpoints.saved import save_all
from zoo.checkpoints import VerifiedFiles, load_checkpoint
from zoo.checkpoints.manifest import MANIFEST, verify_manifest
from zoo.config import UserError


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    return save_all(tmp_path_factory.mktemp("checkpoints") / "one")


@pytest.fixture
def folder(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "copy")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(folder):
    with pytest.raises(UserError) as caught:
        verify_manifest(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_part_is_listed_and_an_intact_checkpoint_passes(folder):
    assert names(folder) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "training_state.json",
        "zoo_tokenizer.json",
    ]
    verify_manifest(folder)


def test_one_flipped_bit_anywhere_is_found_and_its_file_named(folder):
    generator = random.Random(0)
    for name in names(folder):
        path = folder / name
        content = path.read_bytes()
        # Every byte of the manifest, which guards the others, and a sample of each other file.
        everywhere = range(len(content))
        places = (
            everywhere
            if name == MANIFEST
            else [0, len(content) - 1, *generator.sample(everywhere, min(20, len(content)))]
        )
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 1 << generator.randrange(8)
            path.write_bytes(damaged)
            assert str(path) in refusal(folder)
        path.write_bytes(content)
    verify_manifest(folder)


def test_a_truncated_file_is_found_and_named(folder):
    for name in names(folder):
        path = folder / name
        content = path.read_bytes()
        for length in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            message = refusal(folder)
            assert str(path) in message
            assert name == MANIFEST or f"must have {len(content)} bytes; got {length}" in message
        path.write_bytes(content)


def test_a_missing_file_is_found_and_named(folder):
    for name in names(folder):
        path = folder / name
        content = path.read_bytes()
        path.unlink()
        assert re.search(re.escape(str(path)), refusal(folder))
        path.write_bytes(content)


def test_files_that_are_not_listed_are_no_business_of_the_manifest(folder):
    (folder / "notes.txt").write_text("mine")
    verify_manifest(folder)


def seal(folder, files):
    """A manifest as a stranger would write it: every sum is right."""
    text = json.dumps(files, sort_keys=True).encode()
    content = {"files": files, "sha256_of_files": hashlib.sha256(text).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def entry(path):
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def listed(folder):
    return json.loads((folder / MANIFEST).read_text())["files"]


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../outside", "a/../../outside", "./config.json", "", "a\0b", "\ud800"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(name, folder):
    (folder.parent / "outside").write_text("a secret")
    seal(folder, {**listed(folder), name: entry(folder.parent / "outside")})
    assert re.search(r"must name files (inside itself|that there can be); got ", refusal(folder))


def test_links_may_lead_inside_the_folder_and_no_further(folder):
    (folder / "inner").symlink_to("config.json")
    seal(folder, {**listed(folder), "inner": entry(folder / "config.json")})
    verify_manifest(folder)
    (folder.parent / "outside").write_text("a secret")
    (folder / "outer").symlink_to("../outside")
    (folder / "circle").symlink_to("circle")
    for name in ("outer", "circle"):
        seal(folder, {**listed(folder), name: entry(folder.parent / "outside")})
        assert name in refusal(folder)


def test_a_download_of_the_hub_holds_links_to_its_own_cache(intact, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "c0", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(intact, blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", path.name))
    verify_manifest(snapshot)
    shutil.copytree(intact, tmp_path / "elsewhere")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(tmp_path / "elsewhere" / "config.json")
    assert "it is a link out of it" in refusal(snapshot)


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
@pytest.mark.parametrize("name", ["notes", MANIFEST])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(kind, name, folder):
    files = {**listed(folder), name: {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}}
    if name == MANIFEST:
        (folder / MANIFEST).unlink()
    else:
        seal(folder, files)
    if kind == "a pipe":
        os.mkfifo(folder / name)
    elif kind == "a folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to("/dev/zero")
    assert str(folder / name) in refusal(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"files": 3}',
        "[" * 100_000,
        '{"files": {}, "files": {}}',
        '{"files": {"x": NaN}}',
        "\udcff",
    ],
)
def test_a_manifest_that_is_none_is_refused(text, folder):
    (folder / MANIFEST).write_text(text, errors="surrogateescape")
    assert str(folder / MANIFEST) in refusal(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        None,
        [],
        {},
        {"bytes": 1},
        {"bytes": "1", "sha256": "0"},
        {"bytes": True, "sha256": "0"},
        {"bytes": -1, "sha256": "0"},
        {"bytes": 1, "sha256": 0},
        {"bytes": 1, "sha256": "0", "more": 1},
    ],
)
def test_an_entry_of_another_form_is_refused_by_name(wrong, folder):
    seal(folder, {**listed(folder), "config.json": wrong})
    assert re.search(rf"{re.escape(str(folder / MANIFEST))}: 'config.json'", refusal(folder))


def test_a_manifest_without_end_is_refused(folder):
    seal(folder, {f"{index}": entry(folder / "config.json") for index in range(1000)})
    assert "must list at most 200 files; got 1000" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("rest", ["all others", "nothing", "another case"])
def test_a_file_that_is_not_listed_is_not_loaded(name, rest, folder):
    files = listed(folder)
    others = {key: value for key, value in files.items() if key != name}
    if rest == "another case":
        others[name.upper()] = files[name]
        shutil.copy(folder / name, folder / name.upper())
    seal(folder, {} if rest == "nothing" else others)
    with pytest.raises(
        UserError, match=rf"manifest\.json must list (config\.json|{re.escape(name)}); it lists "
    ) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_files_stay_readable_when_their_run_drops_them(folder):
    with VerifiedFiles(folder) as files:
        content = (folder / "config.json").read_bytes()
        shutil.rmtree(folder)
        assert files.stream("config.json").read() == content
