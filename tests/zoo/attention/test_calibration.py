"""The calibration's file: what it says between its points, and when it is not believed."""

import dataclasses
import json
import logging
import os
from pathlib import Path

import pytest

from tests.zoo.attention.planted import NUM_HEADS, calibration, provenance, times, write_own
from zoo.attention.calibration import (
    REMEDY,
    SAME,
    Calibration,
    calibration_path,
    load_calibration,
    read_calibration,
    write_calibration,
)
from zoo.config import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def _seconds(known: Calibration, length: int, *, rows: int = NUM_HEADS, implementation: str = "fused") -> float | None:
    return known.seconds(
        mechanism="softmax", parameters={}, implementation=implementation, phase="training", rows=rows, length=length
    )


def test_what_was_written_is_read() -> None:
    path = write_own(times("softmax", {"fused": {64: 0.5, 256: 2.0}}), times("sinks", {"masked": {64: 0.25}}))
    written = calibration(times("softmax", {"fused": {64: 0.5, 256: 2.0}}), times("sinks", {"masked": {64: 0.25}}))
    found = read_calibration(path)
    assert (found.provenance, found.measurements) == (written.provenance, written.measurements)
    loaded = load_calibration(None)
    assert loaded is not None
    assert loaded.measurements == written.measurements


def test_a_power_law_is_met_between_its_points_and_beyond_them() -> None:
    known = calibration(times("softmax", {"fused": {length: 3e-6 * length**2 for length in (64, 256, 1024)}}))
    for length in (64, 65, 100, 256, 700, 1024, 5000):
        assert _seconds(known, length) == pytest.approx(3e-6 * length**2)


def test_below_the_shortest_length_times_stay() -> None:
    known = calibration(times("softmax", {"fused": {64: 0.5, 256: 2.0}}))
    assert [_seconds(known, length) for length in (1, 40, 64)] == [0.5] * 3


def test_beyond_the_longest_length_no_noise_makes_longer_texts_cheaper() -> None:
    known = calibration(times("softmax", {"fused": {64: 2.0, 128: 1.0}}))
    assert _seconds(known, 1024) == pytest.approx(8.0)


def test_rows_between_those_measured_are_met_and_others_are_in_proportion() -> None:
    one = times("softmax", {"fused": {64: 0.5}}, batch_size=1)
    four = times("softmax", {"fused": {64: 2.0}}, batch_size=4)
    known = calibration(one, four)
    found = {rows: _seconds(known, 64, rows=rows) for rows in (2, 4, 8, 16, 48)}
    assert found == pytest.approx({2: 0.25, 4: 0.5, 8: 1.0, 16: 2.0, 48: 6.0})


def test_the_rows_measured_at_most_lengths_give_the_shape_and_the_others_a_factor() -> None:
    # A jump between 100 and 101, which only the smaller batch was measured across.
    one = times("softmax", {"fused": {64: 0.5, 100: 0.5, 101: 4.0, 1024: 40.0}}, batch_size=1)
    four = times("softmax", {"fused": {64: 1.5, 1024: 160.0}}, batch_size=4)
    known = calibration(one, four)
    assert _seconds(known, 64, rows=16) == pytest.approx(1.5)
    assert _seconds(known, 1024, rows=16) == pytest.approx(160.0)
    below, above = (_seconds(known, length, rows=16) for length in (100, 101))
    assert below is not None
    assert above is not None
    assert above / below == pytest.approx(8.0, rel=0.01)


def test_beyond_the_longest_text_of_a_batch_its_factor_stays() -> None:
    one = times("softmax", {"fused": {64: 0.5, 1024: 40.0}}, batch_size=1)
    four = times("softmax", {"fused": {64: 2.0}}, batch_size=4)
    assert _seconds(calibration(one, four), 1024, rows=16) == pytest.approx(160.0)


def test_what_was_not_measured_has_no_time() -> None:
    known = calibration(times("softmax", {"fused": {64: 0.5}}))
    assert _seconds(known, 64, implementation="tiled") is None


def test_other_parameters_stand_in_only_where_the_own_were_not_measured() -> None:
    measured = times("sliding_window", {"chunked": {64: 0.5}})
    wide = [dataclasses.replace(each, parameters={"window_size": 512}, median_seconds=0.75) for each in measured]
    known = calibration(measured, wide)

    def seconds(window_size: int) -> float | None:
        return known.seconds(
            mechanism="sliding_window",
            parameters={"window_size": window_size},
            implementation="chunked",
            phase="training",
            rows=NUM_HEADS,
            length=64,
        )

    assert (seconds(64), seconds(512)) == (0.5, 0.75)
    assert seconds(96) in (0.5, 0.75)


def test_a_device_without_a_calibration_has_none_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_calibration(None) is None
    assert caplog.records == []


@pytest.mark.parametrize("field", SAME)
def test_another_device_or_version_is_ignored_with_one_warning_that_names_the_command(
    field: str, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = dataclasses.replace(provenance(), **{field: "another"})
    measurements = calibration(times("softmax", {"fused": {64: 0.5}})).measurements
    write_calibration(calibration_path(), Calibration(provenance=foreign, measurements=measurements))
    with caplog.at_level(logging.WARNING):
        assert [load_calibration(None) for _ in range(3)] == [None] * 3
    (record,) = caplog.records
    assert REMEDY in record.getMessage()
    assert f"{field} was 'another'" in record.getMessage()


def test_another_commit_of_the_same_version_is_believed() -> None:
    moved = dataclasses.replace(provenance(), commit="fff", recorded_at="2020-01-01")
    measurements = calibration(times("softmax", {"fused": {64: 0.5}})).measurements
    write_calibration(calibration_path(), Calibration(provenance=moved, measurements=measurements))
    assert load_calibration(None) is not None


def test_a_named_file_is_taken_as_it_is(tmp_path: Path) -> None:
    foreign = dataclasses.replace(provenance(), device="another")
    measurements = calibration(times("softmax", {"fused": {64: 0.5}})).measurements
    write_calibration(tmp_path / "kept.json", Calibration(provenance=foreign, measurements=measurements))
    kept = load_calibration(str(tmp_path / "kept.json"))
    assert kept is not None
    assert kept.provenance.device == "another"


def _spoilt(**changes: object) -> str:
    path = write_own(times("softmax", {"fused": {64: 0.5}}))
    plain = json.loads(path.read_text(encoding="utf-8"))
    plain["measurements"][0].update(changes)
    return json.dumps(plain)


SPOILT = {
    "empty": lambda: "",
    "half": lambda: _spoilt()[:-40],
    "list": lambda: "[]",
    "nested": lambda: "[" * 100_000,
    "no measurements": lambda: json.dumps({**json.loads(_spoilt()), "measurements": []}),
    "unknown key": lambda: _spoilt(colour="red"),
    "unknown phase": lambda: _spoilt(phase="sleep"),
    "no time": lambda: _spoilt(median_seconds=0.0),
    "not a number": lambda: _spoilt(median_seconds=float("nan")),
    "no length": lambda: _spoilt(length=0),
    "endless length": lambda: _spoilt(length=10**400),
    "endless time": lambda: _spoilt(median_seconds=1e300),
    "text for a time": lambda: _spoilt(median_seconds="1"),
    "list of parameters": lambda: _spoilt(parameters=[1]),
    "no provenance": lambda: json.dumps({"measurements": json.loads(_spoilt())["measurements"]}),
    "key twice": lambda: _spoilt().replace('"length"', '"length": 3, "length"'),
    "deep parameters": lambda: _spoilt(parameters=_deep(200)),
    "measurement is a number": lambda: json.dumps({**json.loads(_spoilt()), "measurements": [3]}),
}


def _deep(depth: int) -> dict:
    deep: dict = {}
    for _ in range(depth):
        deep = {"a": deep}
    return deep


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_file_is_one_clear_line_and_no_crash(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = SPOILT[kind]()
    own, named = calibration_path(), tmp_path / "named.json"
    own.parent.mkdir(parents=True, exist_ok=True)
    for path in (own, named):
        path.write_text(text, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert [load_calibration(None) for _ in range(3)] == [None] * 3
    (record,) = caplog.records
    assert REMEDY in record.getMessage()
    assert "\n" not in record.getMessage()
    with pytest.raises(UserError, match=r"attention\.calibration must be a calibration") as refusal:
        load_calibration(str(named))
    assert "\n" not in str(refusal.value)


def test_a_named_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must exist"):
        load_calibration(str(tmp_path / "nothing.json"))


def test_a_named_file_that_cannot_be_read_is_one_line_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"\xff\xfe{}")
    for named in (tmp_path / "pipe", "/dev/zero", tmp_path, tmp_path / "latin", "~nobody-of-this-name/x", "a\0b", ""):
        with pytest.raises(UserError, match=r"attention\.calibration must") as refusal:
            load_calibration(str(named))
        assert "\n" not in str(refusal.value)


def test_times_of_any_steepness_are_numbers() -> None:
    steep = calibration(times("softmax", {"fused": {1: 1e-9, 2: 1e8}, "manual": {1: 1e8, 2: 1e-9}}))
    for implementation in ("fused", "manual"):
        for length in (1, 2, 3, 2**31 - 1):
            for rows in (1, 2**31 - 1):
                found = steep.seconds(
                    mechanism="softmax",
                    parameters={},
                    implementation=implementation,
                    phase="training",
                    rows=rows,
                    length=length,
                )
                assert found is not None
                assert 0 < found < float("inf")
