"""What all corpora have in common: the part of `configs/data/*.yaml` that does not depend on where texts come from."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal

from zoo.config import require, to_mapping
from zoo.data.corpora.document import Corpus

Packing = Literal["stream", "documents"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(abc.ABC):
    """A corpus and how its tokens become rows.

    Attributes:
        corpus: Name of the corpus, as in `configs/data/<corpus>.yaml`.
        validation_fraction: Share of the documents that is held out, chosen by hash.
        packing: "stream": rows are windows over all documents, one after another with an end token between;
            "documents": a row holds one document, padded on the right, and a long document takes several rows.
        mask_documents: Whether tokens of a packed row attend only inside their own document.
        cache_dir: Folder for tokenizers and token shards; None for ZOO_CACHE or `~/.cache/attention_zoo`.
    """

    corpus: ClassVar[str]

    validation_fraction: float = 0.05
    packing: Packing = "stream"
    mask_documents: bool = False
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        require(
            0 < self.validation_fraction < 1, "validation_fraction", "lie between 0 and 1", self.validation_fraction
        )

    @abc.abstractmethod
    def open(self) -> Corpus:
        """Opens the corpus.

        Raises:
            UserError: If it does not exist.
        """

    def as_mapping(self) -> dict[str, Any]:
        """The plain mapping from which `data_config_from_mapping` builds an equal config."""
        return {"corpus": self.corpus, **to_mapping(self)}
