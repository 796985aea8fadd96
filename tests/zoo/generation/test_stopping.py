"""Stop strings do not depend on how the text is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.generation.stopping import StopScanner


def scan(pieces, stop):
    scanner = StopScanner(stop)
    return [scanner.feed(piece) for piece in pieces], scanner


def wanted(text, stop):
    """The text up to the stop string that is complete first, tried character by character."""
    for end in range(len(text) + 1):
        ending = [word for word in stop if text[:end].endswith(word)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(
    pieces=st.lists(st.text("abc\n", max_size=5), max_size=9),
    stop=st.lists(st.text("abc\n", min_size=1, max_size=4), max_size=3),
)
def test_text_ends_before_the_first_complete_stop_string_however_it_is_cut(pieces, stop):
    shown, scanner = scan(pieces, stop)
    stopped = scanner.stopped
    assert ("".join(shown) + scanner.finish(), stopped) == wanted("".join(pieces), stop)


@given(
    pieces=st.lists(st.text("abc", max_size=5), max_size=9),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_what_is_shown_can_never_be_part_of_a_stop_string(pieces, stop):
    for end in range(len(pieces) + 1):
        shown, scanner = scan(pieces[:end], stop)
        whole = "".join(pieces[:end])
        if not scanner.stopped:
            rest = whole[len("".join(shown)) :]
            assert rest == "" or any(word.startswith(rest) for word in stop)


@pytest.mark.parametrize(
    ("pieces", "stop", "shown"),
    [
        (["one", " two"], [], ["one", " two"]),
        (["on", "e t", "wo"], ["e two"], ["on", "", ""]),
        (["on", "e t", "oo"], ["e two"], ["on", "", "e too"]),
        (["x--", "-", "y"], ["---"], ["x", "", ""]),
        (["--", "-y"], ["---", "--"], ["", ""]),
        (["a\n", "\nb"], ["\n\n"], ["a", ""]),
    ],
)
def test_only_the_possible_start_of_a_stop_string_is_held_back(pieces, stop, shown):
    assert scan(pieces, stop)[0] == shown
