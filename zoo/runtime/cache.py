"""Where prepared corpora, tokenizers and libraries are kept between runs."""

import os
from pathlib import Path

from zoo.config import UserError
from zoo.config.files import typed_path


def default_cache_dir() -> Path:
    """The folder that the environment variable ZOO_CACHE names, else `~/.cache/attention_zoo`.

    Raises:
        UserError: If neither is there, because the user has no home folder.
    """
    chosen = os.environ.get("ZOO_CACHE")
    if chosen:
        return typed_path(chosen, what="ZOO_CACHE")
    try:
        return Path.home() / ".cache" / "attention_zoo"
    except RuntimeError:
        raise UserError("ZOO_CACHE must name a folder, since this user has no home folder; got nothing") from None
