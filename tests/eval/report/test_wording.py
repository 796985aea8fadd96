"""Numbers keep their meaning in few digits."""

import pytest

from eval.report.wording import interval, num_bytes, number, open_interval, percent, plain, seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (1.0, "1.00"),
        (0.9234, "0.923"),
        (12.345, "12.3"),
        (12345.6, "12,346"),
        (1e-9, "1.00e-09"),
    ],
)
def test_numbers_keep_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_intervals_are_shown_only_where_they_exist() -> None:
    assert interval(1.5, 1.4, 1.6) == "1.50 [1.40, 1.60]"
    assert interval(1.5, None, None) == "1.50"


def test_an_interval_of_a_time_shares_the_times_unit() -> None:
    assert seconds(0.0015, 0.0009, 0.0021) == "1.50 [0.900, 2.10] ms"
    assert seconds(None) == "–"


@pytest.mark.parametrize(("value", "text"), [(512, "512 B"), (65536, "64.0 KiB"), (3 * 2**30, "3.00 GiB"), (None, "–")])
def test_sizes_are_in_binary_units(value: int | None, text: str) -> None:
    assert num_bytes(value) == text


def test_shares_and_anything_else() -> None:
    assert percent(0.125) == "12.5 %"
    assert [plain(each) for each in (True, None, ["a", 1], 2.0)] == ["yes", "–", "a, 1", "2.00"]


def test_small_numbers_keep_their_digits() -> None:
    assert [number(value) for value in (0.00044, 0.0123, 0.162, 0.5, 1.0, 331.4)] == [
        "0.000440",
        "0.0123",
        "0.162",
        "0.500",
        "1.00",
        "331",
    ]


def test_an_open_end_is_told() -> None:
    assert open_interval(310.4, None, ".0f") == "[310, …]"
    assert open_interval(None, None, ".0f") == ""
