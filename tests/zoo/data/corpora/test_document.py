"""Which documents are held out."""

import dataclasses
from collections.abc import Iterator

import pytest

from zoo.config import UserError
from zoo.data.corpora import Document, documents_of
from zoo.data.corpora.document import split_of


@dataclasses.dataclass
class Listed:
    """A corpus that is a list."""

    listed: list[Document]
    validation_field: str | None = None
    validation_fraction: float = 0.05

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


def test_copies_of_the_document_that_is_held_out_are_held_out_with_it():
    texts = ["a", " ", "a", "b", "a"]
    expected = [(" ", "train"), ("b", "train"), *[("a", "validation")] * 3]
    assert found(*map(document, texts)) == expected
    # The hash keeps copies together by itself.
    chosen = [*map(document, texts), document("c", "validation")]
    assert sorted(found(*chosen)) == sorted((each.text, each.split) for each in chosen)


def test_several_documents_of_one_text_are_refused():
    with pytest.raises(
        UserError, match=r"^data\.path must hold more than one text; all of its 3 documents are the same$"
    ):
        found(document("a"), document(" "), document("a"), document("a"))


def test_behind_a_long_document_a_short_one_is_held_out():
    parts = [document("a", complete=False), document("b"), document("c"), document("d")]
    assert found(*parts) == [("a", "train"), ("b", "train"), ("d", "train"), ("c", "validation")]


def test_documents_without_text_are_no_documents():
    assert found(document(""), document("a", "validation"), document("", "validation")) == [("a", "validation")]


def test_a_long_documents_last_part_counts_even_if_it_is_empty():
    parts = [document("a", complete=False), document(""), document("b", "validation")]
    assert found(*parts) == [(each.text, each.split) for each in parts]


def test_parts_of_a_long_first_document_stay_together():
    parts = [document("a", complete=False), document("b"), document("c"), document("d", "validation")]
    assert found(*parts) == [(each.text, each.split) for each in parts]


def halves(*documents: Document, fraction: float = 0.05, field: str | None = None) -> list[list[tuple[str, bool]]]:
    """Texts and whether they end a document, of either split."""
    corpus = Listed(list(documents), validation_field=field, validation_fraction=fraction)
    found = list(documents_of(corpus))
    return [[(each.text, each.complete) for each in found if each.split == split] for split in ("train", "validation")]


LINES = [f"line {number:02}\n" for number in range(50)]


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(
    ("text", "fraction", "place"),
    [
        ("".join(LINES), 0.05, 47 * 8),
        ("".join(LINES), 0.5, 25 * 8),
        ("".join(LINES), 0.9, 5 * 8),
        ("first line\nand the second\n", 0.05, 11),
        ("one paragraph\nof lines\n\nand one of\ntwo lines\n", 0.05, 24),
        ("a b" * 1001, 0.05, 3 * 950 + 2),
        ("x" * 1000, 0.05, 950),
        ("\n" * 60 + "x" * 40 + "\n" * 900, 0.05, 95),
        ("x" * 20 + "\n" * 20, 0.05, 19),
        ("\n" * 100 + "ab", 0.6, 101),
        ("title\n" + "x" * 9994, 0.05, 9500),
    ],
)
def test_of_a_corpus_of_one_document_its_end_is_held_out(text, fraction, place, split):
    train, validation = halves(document(text, split), fraction=fraction)
    assert (train, validation) == ([(text[:place], True)], [(text[place:], True)])
    assert train[0][0].strip()
    assert validation[0][0].strip()


@pytest.mark.parametrize("size", [1, 7, 100, 379, 1000])
def test_the_cut_of_a_document_in_parts_is_that_of_its_text(size):
    text = "".join(LINES) + " \n" * 9
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    listed = [document(part, complete=False) for part in parts[:-1]] + [document(parts[-1])]
    train, validation = halves(document("  "), *listed, document(" \n"))
    blank = [("  ", True), (" \n", True)]
    whole = [each for each in train if each not in blank]
    assert "".join(part for part, _ in whole + validation) == text
    assert [complete for _, complete in whole] == [False] * (len(whole) - 1) + [True]
    assert [complete for _, complete in validation] == [False] * (len(validation) - 1) + [True]
    assert 0.02 * 400 <= len("".join(part for part, _ in validation).rstrip()) <= 0.1 * 400


@pytest.mark.parametrize("documents", [["x" * 40, "y"], ["x" * 40, " ", "y"], ["y", "x" * 40]])
def test_a_document_with_another_one_beside_it_stays_whole(documents):
    train, validation = halves(*map(document, documents))
    assert sorted(text for text, _ in train + validation) == sorted(documents)
    assert all(any(text.strip() for text, _ in side) for side in (train, validation))


def test_nothing_is_held_out_of_a_corpus_that_has_its_validation_elsewhere():
    assert halves(document("x" * 40), field="data.validation_path") == [[("x" * 40, True)], []]
