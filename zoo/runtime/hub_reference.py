"""What names a model of the Hugging Face Hub, by itself: the library that asks the Hub takes long to import."""

import dataclasses
import re

# `owner/name`, or one of the first models' bare names; a file of it; a branch, a tag or a commit.
_REFERENCE = re.compile(
    r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?P<file>(?:/[^/@]+)*/[^/@]+\.gguf)?(?:@(?P<revision>[\w./-]+))?"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubReference:
    """What a text such as `owner/name@revision` or `owner/name/file.gguf` stands for.

    Attributes:
        name: Of the model.
        file: One file of it, or None for those of its folder.
        revision: Branch, tag or commit; None for the newest.
    """

    name: str
    file: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "HubReference | None":
        """The reference, or None if a text cannot be one."""
        found = _REFERENCE.fullmatch(text)
        if found is None or ".." in text:
            return None
        file = found["file"]
        return cls(name=found["name"], file=None if file is None else file[1:], revision=found["revision"])
