"""Which documents are held out."""

import dataclasses
from collections.abc import Iterator

import pytest

from zoo.data.corpora import Document, documents_of
from zoo.data.corpora.document import split_of


@dataclasses.dataclass
class Listed:
    """A corpus that is a list."""

    listed: list[Document]

    def fingerprint(self) -> str:
        return repr(self.listed)

    def documents(self) -> Iterator[Document]:
        return iter(self.listed)


def document(text: str, split: str = "train", *, complete: bool = True) -> Document:
    return Document(text=text, source=f"of {text}", split=split, complete=complete)


def found(*documents: Document) -> list[tuple[str, str]]:
    return [(each.text, each.split) for each in documents_of(Listed(list(documents)))]


@pytest.mark.parametrize("fraction", [0.03, 0.2, 0.71])
def test_the_held_out_share_is_the_fraction(fraction):
    splits = [split_of(f"document {index}", fraction) for index in range(4001)]
    # Four standard deviations of a binomial.
    assert splits.count("validation") / 4001 == pytest.approx(
        fraction, abs=4 * (fraction * (1 - fraction) / 4001) ** 0.5
    )


def test_a_larger_fraction_holds_out_the_same_documents_and_more():
    few, many = ({key for key in map(str, range(301)) if split_of(key, each) == "validation"} for each in (0.1, 0.3))
    assert few < many


def test_the_first_document_is_held_out_if_the_hash_holds_out_none():
    assert found(document("a"), document("b"), document("c")) == [("b", "train"), ("c", "train"), ("a", "validation")]


def test_the_hash_is_left_alone_if_it_holds_out_any():
    in_order = [document("a"), document("b"), document("c", "validation"), document("d")]
    assert sorted(found(*in_order)) == [("a", "train"), ("b", "train"), ("c", "validation"), ("d", "train")]


def test_no_document_is_lost_or_doubled_wherever_the_held_out_one_stands():
    for place in range(5):
        documents = [document(str(index), "validation" if index == place else "train") for index in range(5)]
        assert sorted(found(*documents)) == [(each.text, each.split) for each in documents]


def test_documents_without_text_are_no_documents():
    assert found(document(""), document("a", "validation"), document("", "validation")) == [("a", "validation")]


def test_a_long_documents_last_part_counts_even_if_it_is_empty():
    parts = [document("a", complete=False), document("", complete=False), document("b", "validation")]
    assert found(*parts) == [(each.text, each.split) for each in parts]


def test_parts_of_a_long_first_document_stay_together():
    parts = [document("a", complete=False), document("b"), document("c"), document("d", "validation")]
    assert found(*parts) == [(each.text, each.split) for each in parts]
