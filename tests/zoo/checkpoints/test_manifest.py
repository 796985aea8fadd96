import random
import re
import shutil

import pytest

from tests.zoo.checkpoints.saved import save_all
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
