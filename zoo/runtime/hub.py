"""Models of the Hugging Face Hub, through huggingface_hub: the files that are asked for, of one revision, resumed.

The library keeps every finished file, and throws an unfinished one away when its process ends or the network resets a
connection. Weights have gigabytes, so they are fetched here first: what has come stays beside its place, the next try,
in this process or in another, asks for the rest, and the sum that the Hub states is checked. The library then finds
them where it would have put them itself. Its settings hold (`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`,
`HF_HUB_DISABLE_PROGRESS_BARS`), and progress goes to stderr.
"""

import contextlib
import dataclasses
import fcntl
import fnmatch
import glob
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from urllib.parse import urlparse

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    get_session,
    get_token,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import hf_raise_for_status, tqdm

from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.runtime.hub_reference import HubReference

logger = logging.getLogger(__name__)

# A commit's or a content's SHA-1 or SHA-256 sum: nothing else that a server sends becomes the name of a file.
_SUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256_LENGTH = 64
# How often a connection may break without a byte having come.
_ATTEMPTS = 5
_PAUSE_SECONDS = 1.0
# What a server answers that is only busy.
_PASSING = (408, 429, 500, 502, 503, 504)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """What a model of the Hub consists of.

    Attributes:
        reference: Which model.
        commit: The commit that the revision stands for now; None where the Hub could not be asked.
        names: Its files; empty where it could not be asked.
    """

    reference: HubReference
    commit: str | None = None
    names: tuple[str, ...] = ()


def list_files(reference: HubReference, *, what: str) -> Listing:
    """Asks the Hub for a model's files; what has been downloaded before needs no answer.

    Args:
        reference: Which model.
        what: Whose it is, for messages (for example `checkpoint`).

    Raises:
        UserError: If there is no such model, or no such revision of it.
    """
    if constants.is_offline_mode():
        return Listing(reference=reference)
    with _one_line(reference, what):
        try:
            info = HfApi().model_info(reference.name, revision=reference.revision)
        except httpx2.TransportError:
            # The library looks into its cache, and says so if that is no help.
            return Listing(reference=reference)
    names = tuple(each.rfilename for each in info.siblings or ())
    return Listing(reference=reference, commit=info.sha, names=names)


def download(listing: Listing, *, patterns: Sequence[str], large: Sequence[str] = (), what: str) -> Path:
    """The folder of a model, or the one file that its reference names, in the library's own cache.

    Args:
        listing: Of the model.
        patterns: Of the files that are read; files in folders of the model are not.
        large: Patterns of those that are worth being resumed.
        what: Whose model it is, for messages.

    Raises:
        UserError: If the Hub does not give it, and it was not downloaded before.
    """
    reference = listing.reference
    file = reference.file
    wanted, left_out = (list(patterns), ["*/*"]) if file is None else ([glob.escape(file)], [])
    with _one_line(reference, what):
        for name in listing.names:
            is_large = name == file if file is not None else "/" not in name and _matches(name, large)
            if is_large and listing.commit is not None:
                _fetch_file(reference, name, listing.commit)
        folder = snapshot_download(
            reference.name, revision=reference.revision, allow_patterns=wanted, ignore_patterns=left_out
        )
    path = Path(folder) if file is None else Path(folder, file)
    if not path.exists():
        found = ", ".join(name for name in listing.names if name.endswith(Path(path).suffix)) or "none"
        raise UserError(f"{what}: {reference.name!r} on the Hub must hold {file}; it does not (choices: {found})")
    return path


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _fetch_file(reference: HubReference, name: str, commit: str) -> None:
    """Puts a file where the library looks for it."""
    url = hf_hub_url(reference.name, name, revision=commit)
    about = get_hf_file_metadata(url, retry_on_errors=True)
    if about.etag is None or _SUM.fullmatch(about.etag) is None or about.size is None:
        return
    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=reference.name, repo_type="model"), "blobs")
    _fetch(url, about.location, blobs / about.etag, about.size)


def _fetch(url: str, location: str, blob: Path, size: int) -> None:
    """Fetches the rest of a file, which stays in a part beside its place until it is whole and its sum is right."""
    name = url.rpartition("/")[2]
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{blob.name}.part")
    # A token is for the Hub, not for where it keeps its files.
    token = get_token() if urlparse(location).netloc == urlparse(url).netloc else None
    headers = {"Accept-Encoding": "identity"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    with part.open("a+b") as stream:
        # Ends with the process; whoever waited finds the file in its place.
        fcntl.flock(stream, fcntl.LOCK_EX)
        if blob.exists():
            part.unlink(missing_ok=True)
            return
        if stream.tell() > size:
            stream.truncate(0)
        with tqdm(total=size, initial=stream.tell(), unit="B", unit_scale=True, desc=name[-40:], name=__name__) as bar:
            _complete(location, headers, stream, size, bar)
        # Small files have sums of another kind.
        known = len(blob.name) == _SHA256_LENGTH
        if stream.seek(0, os.SEEK_END) != size or (known and _sum(stream) != blob.name):
            stream.truncate(0)
            raise OSError(f"{name} came with another content than the Hub states, and was thrown away (try again)")
        part.replace(blob)


def _sum(stream: BufferedRandom) -> str:
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()


def _complete(url: str, headers: Mapping[str, str], stream: BufferedRandom, size: int, bar: tqdm) -> None:
    """Appends what is missing, however often the connection breaks, as long as something comes between."""
    attempts = 0
    start = stream.seek(0, os.SEEK_END)
    while start < size:
        reason = "it ended"
        try:
            _append(url, {**headers, "Range": f"bytes={start}-"}, stream, bar)
        except httpx2.HTTPError as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in _PASSING:
                raise
            reason = str(error)
        end = stream.seek(0, os.SEEK_END)
        attempts = 0 if end > start else attempts + 1
        start = end
        if attempts == _ATTEMPTS:
            raise OSError(f"the connection broke {attempts} times at byte {end} of {size} ({reason})")
        if start < size:
            logger.warning("hub: the connection broke (%s); going on at byte %d of %d", reason, end, size)
            time.sleep(_PAUSE_SECONDS * (attempts + 1))


def _append(url: str, headers: Mapping[str, str], stream: BufferedRandom, bar: tqdm) -> None:
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if response.status_code != httpx2.codes.PARTIAL_CONTENT:
            # The server gives whole files only.
            stream.truncate(0)
            bar.reset()
        for chunk in response.iter_bytes():
            stream.write(chunk)
            bar.update(len(chunk))


@contextlib.contextmanager
def _one_line(reference: HubReference, what: str) -> Iterator[None]:
    """Turns whatever keeps the Hub from giving a model into one line."""
    try:
        yield
    except HFValidationError:
        raise UserError(f"{what}: {reference.name!r} must be a folder or a Hub id; there is no such folder") from None
    except RevisionNotFoundError:
        got = shortened(reference.revision)
        raise UserError(f"{what}: {reference.name!r} on the Hub must have the revision; got {got}") from None
    except (httpx2.HTTPError, OSError, ValueError) as error:
        reason = next((line for line in map(str.strip, str(error).splitlines()) if line), type(error).__name__)
        offline = isinstance(error, LocalEntryNotFoundError) and constants.is_offline_mode()
        if offline:
            reason = "HF_HUB_OFFLINE is set, and not all of it was downloaded before"
        raise UserError(
            f"{what}: {reference.name!r} is no folder here, and the Hub did not give it: {reason}"
        ) from None
