"""A corpus that is a list of texts, for tests of what is made of a corpus."""

import dataclasses
from collections.abc import Iterator, Sequence

from zoo.data.corpora import Document


@dataclasses.dataclass(frozen=True)
class ListedCorpus:
    """Texts to learn from, then texts held out."""

    train: Sequence[str]
    validation: Sequence[str] = ("held out",)

    validation_fraction = 0.05
    validation_field = "data.validation_path"

    def fingerprint(self) -> str:
        return repr((self.train, self.validation))

    def documents(self) -> Iterator[Document]:
        for number, text in enumerate(self.train):
            yield Document(text=text, source=f"train {number}", split="train")
        for number, text in enumerate(self.validation):
            yield Document(text=text, source=f"validation {number}", split="validation")


SOURCE = '''
def area(width: float, height: float) -> float:
    """Returns the area; größer wird's nimmer."""
    if width < 0 or height < 0:
        raise ValueError(f"sides must not be negative; got {width}, {height}")
\treturn width * height\r\n
'''
