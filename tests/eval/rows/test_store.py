import errno
import math
import os
import zlib

import pytest

from eval.rows import Row, RowStore, only_writer, packed, read_rows, rows_file
from eval.rows.store import merge
from tests.eval.report.random_rows import mutants
from tests.eval.rows_factory import CURVE, altered, quality_row, skipped, speed
from zoo.config import UserError

WRONG = {"passed": False, "checks": "outputs", "tolerance": 1e-4, "max_error": math.nan}
TRAINED = quality_row("mha", 0, 2.5, standard_error=0.01, count=100, curve=CURVE)
LINE = speed(64).model_dump_json().encode()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "rows.jsonl"


def written(path, *lines):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def alone(path):
    return only_writer(path).__enter__()


def test_rows_come_back_as_they_were_written(path):
    separated = skipped(256).model_copy(update={"reason": "one\u2028two\x85three"})
    not_a_number = Row.model_validate({**speed(512).model_dump(), "correctness": WRONG})
    rows = [speed(64), skipped(128), TRAINED, separated, not_a_number]
    RowStore(path).append(rows)
    assert read_rows(path) == rows
    assert rows[-1].correctness.max_error is None


def test_a_file_is_only_ever_appended_to_and_the_newest_row_of_an_identity_counts(path):
    store = RowStore(path)
    store.append([skipped(64), speed(128)])
    before = path.read_bytes()
    store.append([speed(64)])
    assert path.read_bytes().startswith(before)
    assert len(path.read_text().splitlines()) == 3
    assert store.rows[speed(64).identity] == speed(64)
    assert RowStore(path).rows == store.rows
    assert read_rows(path) == [speed(64), speed(128)]


def test_a_line_that_a_killed_writer_left_unfinished_is_dropped_and_left_alone_by_readers(path):
    RowStore(path).append([speed(64), speed(128)])
    path.write_bytes(path.read_bytes()[:-40])
    torn = path.read_bytes()
    assert read_rows(path) == [speed(64)]
    assert path.read_bytes() == torn, "reading changes nothing"
    RowStore(path).append([speed(256)])
    assert read_rows(path) == [speed(64), speed(256)]
    path.write_bytes(b"no rows at all")
    with pytest.raises(UserError, match="line 1 must be JSON"):
        read_rows(path)


def test_one_process_writes_at_a_time_and_the_next_may_when_it_is_through(path):
    with only_writer(path) as store:
        store.append([speed(64)])
        with pytest.raises(UserError, match="must go where no other process writes"), only_writer(path):
            raise AssertionError
        assert read_rows(path) == [speed(64)], "readers are let in"
    # A fault of whoever writes is not taken for one of the file.
    with pytest.raises(FileNotFoundError), only_writer(path):
        (path.parent / "missing").read_bytes()
    with only_writer(path) as store:
        store.append([speed(128)])
    assert read_rows(path) == [speed(64), speed(128)]


@pytest.mark.parametrize("line", ["{}", "not JSON", '{"kind": "speed"}', "", "[" * 100_000, "1" * 5000, "null"])
def test_a_line_that_is_no_row_is_named(path, line):
    with pytest.raises(UserError, match=r"rows\.jsonl: line 2 must be"):
        RowStore(written(path, LINE, line.encode()))


def test_what_cannot_be_read_or_written_is_named_and_never_waited_for(tmp_path):
    with pytest.raises(UserError, match=r"missing\.jsonl must exist"):
        read_rows(tmp_path / "missing.jsonl")
    pipe, device = tmp_path / "pipe", tmp_path / "zeros"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for opened in (read_rows, RowStore, alone):
        for path in (tmp_path, pipe, device):
            with pytest.raises(UserError, match="must be a regular file"):
                opened(path)
    (tmp_path / "file").touch()
    for opened in (RowStore, alone):
        with pytest.raises(UserError, match="must go to a file that can be written"):
            opened(tmp_path / "file" / "rows.jsonl")


@pytest.mark.parametrize("made", [speed(64), skipped(64), TRAINED], ids=["speed", "skipped", "quality"])
def test_a_field_that_is_gone_misplaced_or_something_else_is_one_line_that_names_file_and_line(path, made):
    unlike = (None, True, -1, 0, 1.5, -1e300, 10**400, "", "x" * 2000, [], {}, [[]], {"a": 1})
    lines = mutants(made, unlike)
    said = []
    for line in lines:
        try:
            read_rows(written(path, LINE, line))
        except UserError as error:
            said.append(str(error))
    assert [each for each in said if not each.startswith(f"rows: {path}: line 2 must ") or "\n" in each] == []
    assert max(len(each) for each in said) < 700
    assert len(said) > len(lines) / 2


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b'"median_seconds":', b'"median_seconds":0.0,"median_seconds":', "each key once; got 'median_seconds' twice"),
        (b'"length":64', b'"length":1e999', "must hold finite numbers"),
        (b'"length":64', b'"length":NaN', "must hold finite numbers"),
        (b'"length":64', b'"length":"64"', "cell.length: Input should be a valid integer; got '64'"),
        (b'"length":64', b'"length":0', "greater than or equal to 1; got 0"),
        (b'"attention":null', b'"attention":"{"', "cell.attention: Value error, attention must be JSON"),
        (b'"attention":null', b'"attention":"{\\"num_kv_heads\\": 0}"', "at least 1"),
        (b'"attention":null', b'"attention":"{\\"mechanism\\": \\"\\\\u001b[31m\\"}"', "printable"),
        (
            b'"schema_version":1',
            b'"schema_version":2',
            "schema_version: Input should be less than or equal to 1; got 2",
        ),
        (b'"schema_version":1', b'"schema_version":0', "greater than or equal to 1; got 0"),
        (b'"schema_version":1', b'"schema_version":true', "valid integer; got True"),
        (b'"kind":"speed"', b'"kind":"quality"', "neither both; got {"),
        (b'"kind":"speed"', b'"Kind":"speed"', "line 1 must be a row; kind: Field required"),
        (b'"kind":"speed"', b'"kind":"speed","nats":1', "nats: Extra inputs are not permitted; got 1"),
        (b'"variant":"mha"', b'"variant":"\\ud800"', "Invalid JSON"),
        (b'"variant":"mha"', b'"variant":"\xff"', "line 1 must be a row; it is no UTF-8 text"),
    ],
)
def test_a_mistake_in_a_row_is_named(path, old, new, named):
    assert old in LINE
    with pytest.raises(UserError) as refused:
        read_rows(written(path, LINE.replace(old, new)))
    assert str(refused.value).startswith(f"rows: {path}: line 1 must ")
    assert named in str(refused.value)


def test_a_line_longer_than_any_row_and_a_full_disk_are_one_line(path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = RowStore(path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"rows must go to a file that can be written.*No space left on device"):
        store.append([speed(64)])
    monkeypatch.setattr("eval.rows.store.LIMIT_LINE_BYTES", 1000)
    with pytest.raises(UserError, match="line 1 must be a row; it has more than 1000 bytes"):
        read_rows(written(path, LINE))


def test_rows_in_gzip_are_the_same_and_a_broken_file_is_one_line(tmp_path):
    rows = [speed(64), speed(128)]
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(packed(rows))
    assert read_rows(rows_file(tmp_path)) == rows
    assert packed(rows) == path.read_bytes()
    bomb = zlib.compressobj(9, wbits=31)
    content = b"".join(bomb.compress(bytes(2**20)) for _ in range(257)) + bomb.flush()
    for broken, message in (
        (path.read_bytes()[:-9], "one whole file of gzip"),
        (path.read_bytes() + b"more", "one whole file of gzip"),
        (b"{}\n", "a file of gzip, as its name says"),
        (content, "at most"),
    ):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=message):
            read_rows(path)


@pytest.mark.parametrize("field", ["device", "commit", "mlx"])
def test_one_cell_on_two_machines_or_at_two_commits_is_two_facts(field):
    one, other = (altered(speed(64), "machine", **{field: name}) for name in ("a", "b"))
    assert merge([one], [other]) == [one, other]


def test_one_cell_twice_on_one_machine_is_one_fact_in_its_first_place_and_the_newer_counts_or_the_later_runs():
    old, new, other = speed(64, seconds=1.0), speed(64, seconds=2.0), speed(32)
    assert merge([old, other], [], [new]) == [new, other]
    newest = old.model_copy(update={"recorded_at": "2026-01-02T00:00:00.000+00:00"})
    assert merge([newest], [new]) == merge([new], [newest]) == [newest]
