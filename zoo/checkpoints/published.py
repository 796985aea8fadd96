"""Checkpoints by name: on this machine, in the cache, or on the Hub, and what of the Hub's is read here."""

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.checkpoints import smollm
from zoo.config import UserError
from zoo.runtime.hub_reference import HubReference

if TYPE_CHECKING:
    from zoo.runtime.hub import Listing

# The card, which says the license; configs, tokenizers, and weights: those of other libraries, and ours with all that
# their manifest lists.
_READ = ("README.md", "*.json", "*.txt", "*.jinja", "tokenizer.model", "model*.safetensors", "optimizer.safetensors")
_LARGE = ("*.safetensors",)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def locate(path_or_hub_id: str | Path) -> Path:
    """The folder or file that `checkpoint=` names: what exists under that path, else a name.

    Args:
        path_or_hub_id: A path; `smollm`, which `make smollm` has put into the cache; or a model of the Hub,
            `owner/name`, with `@` and a branch, tag or commit behind it if not the newest is meant, or one GGUF file of
            it, `owner/name/file.gguf`.

    Raises:
        UserError: If there is no such thing.
    """
    path = Path(path_or_hub_id)
    try:
        if path.exists():
            return path
    except OSError as error:
        raise UserError(f"checkpoint: {path} must be readable; {error.strerror}") from None
    return smollm.find() if str(path_or_hub_id) == smollm.NAME else fetch(str(path_or_hub_id))


def fetch(text: str) -> Path:
    """The folder, or the GGUF file, that a text such as `owner/name@revision` or `owner/name/file.gguf` stands for.

    Raises:
        UserError: If it cannot stand for a model of the Hub, the Hub does not give it, or it holds no weights that are
            read here.
    """
    # It imports huggingface_hub.
    from zoo.runtime.hub import download, list_files

    reference = HubReference.parse(text)
    if reference is None:
        raise UserError(f"checkpoint: {text!r} must be a folder or a Hub id; there is no such folder")
    listing = list_files(reference, what="checkpoint")
    if reference.file is None:
        _require_weights(listing)
    return download(listing, patterns=_READ, large=_LARGE, what="checkpoint")


def _require_weights(listing: "Listing") -> None:
    """Refuses a model without weights that are read here; nothing of it needs to be downloaded for that."""
    names = [name for name in listing.names if "/" not in name]
    if not names or any(name.endswith(".safetensors") for name in names):
        return
    what = f"checkpoint: {listing.reference.name!r} on the Hub must hold its weights as safetensors"
    files = [name for name in listing.names if name.endswith(".gguf")]
    if files:
        choices = ", ".join(f"{listing.reference.name}/{name}" for name in files)
        raise UserError(f"{what}, or one of its GGUF files be named (choices: {choices})")
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise UserError(f"{what}; it holds {pickles[0]}, a pickle, and opening it would run code")
    raise UserError(f"{what}; it holds none")
