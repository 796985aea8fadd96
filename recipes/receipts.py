"""What this user has trained on: a receipt for each description of data, in the user's own cache.

A checkpoint names the data that it was trained on: files, or a data set on the Hub. Anybody can write a checkpoint, so
what it names is opened unasked only if this user has trained on data of the very same description here, content
included. `train.py` leaves the receipt, `evaluate.py` looks for it. It also says from which folder the files were
found, and in which cache their tokens are.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config import UserError
from zoo.config.files import read_json_as, replace_file
from zoo.runtime.cache import default_cache_dir

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Receipt:
    """How data was opened for a training.

    Attributes:
        folder: The working folder, which relative paths begin from.
        cache_dir: The cache that was chosen, or None for the user's.
    """

    folder: str
    cache_dir: str | None = None


def leave_receipt(data: Mapping[str, Any], *, cache_dir: str | None) -> None:
    """Notes that this user trains on data; without a cache that can be written, evaluations will ask.

    Args:
        data: Its description as checkpoints hold it.
        cache_dir: The cache that was chosen, or None for the user's.
    """
    try:
        path = _path(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(dataclasses.asdict(Receipt(folder=str(Path.cwd()), cache_dir=cache_dir))))
    except (OSError, UserError) as error:
        logger.warning("the cache cannot note that this data was trained on (%s): evaluate.py will ask", error)


def find_receipt(data: Mapping[str, Any]) -> Receipt | None:
    """The receipt of data, or None if this user has not trained on it here, or the receipt is damaged.

    Args:
        data: Its description as a checkpoint holds it.
    """
    try:
        path = _path(data)
        if not path.is_file():
            return None
    except (OSError, UserError):
        return None
    try:
        return read_json_as(Receipt, path, what="the receipt of a training")
    except UserError as error:
        logger.warning("cache: %s; it is as if this data had not been trained on here", error)
        return None


def _path(data: Mapping[str, Any]) -> Path:
    text = json.dumps(data, sort_keys=True)
    return default_cache_dir() / "trained" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
