import errno

import pytest

from eval.rows import RowStore, only_writer, read_rows
from tests.eval.rows.made import quality, skipped, speed
from zoo.config import UserError


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [speed(64), skipped(128), quality(0)]
    RowStore(tmp_path / "new" / "rows.jsonl").append(rows)

    assert read_rows(tmp_path / "new" / "rows.jsonl") == rows


def test_a_file_is_only_ever_appended_to(tmp_path):
    path = tmp_path / "rows.jsonl"
    store = RowStore(path)
    store.append([speed(64)])
    before = path.read_bytes()

    RowStore(path).append([speed(64, seconds=9.0), quality(1)])

    assert path.read_bytes().startswith(before)
    assert len(path.read_text().splitlines()) == 3


def test_the_newest_row_of_an_identity_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    old, new = skipped(64), speed(64)
    store = RowStore(path)
    store.append([old, speed(128)])
    store.append([new])

    assert store.rows[new.identity] == new
    assert RowStore(path).rows == store.rows
    assert read_rows(path) == [new, speed(128)]


def test_a_line_that_a_killed_writer_left_unfinished_is_dropped(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowStore(path).append([speed(64), speed(128)])
    path.write_bytes(path.read_bytes()[:-40])

    store = RowStore(path)
    store.append([speed(256)])

    assert [row.cell.length for row in read_rows(path)] == [64, 256]


def test_readers_leave_out_a_last_line_that_is_not_finished(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowStore(path).append([speed(64), speed(128)])
    whole = path.read_bytes()

    path.write_bytes(whole[:-40])
    assert read_rows(path) == [speed(64)]
    assert path.read_bytes() == whole[:-40], "reading changes nothing"
    path.write_bytes(b"no rows at all")
    with pytest.raises(UserError, match="line 1 must be a row"):
        read_rows(path)


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(speed(64).model_dump_json().encode() + b"\n\xff\xfe\n")

    with pytest.raises(UserError, match=r"rows\.jsonl: line 2 must be a row; it is no UTF-8 text"):
        read_rows(path)


def test_a_line_separator_within_a_text_ends_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = skipped(64).model_copy(update={"reason": "one\u2028two\x85three"})
    RowStore(path).append([row])

    assert read_rows(path) == [row]


def test_one_process_writes_at_a_time_and_the_next_may_when_it_is_through(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    with only_writer(path) as store:
        store.append([speed(64)])
        with pytest.raises(UserError, match="must go where no other process writes"), only_writer(path):
            raise AssertionError
        assert read_rows(path) == [speed(64)], "readers are let in"
    with only_writer(path) as store:
        store.append([speed(128)])
    assert read_rows(path) == [speed(64), speed(128)]


def test_a_fault_while_writing_alone_is_not_taken_for_one_of_the_file(tmp_path):
    with pytest.raises(FileNotFoundError), only_writer(tmp_path / "rows.jsonl"):
        (tmp_path / "missing").read_bytes()


@pytest.mark.parametrize("line", ["{}", "not JSON", '{"kind": "speed"}', ""])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{speed(64).model_dump_json()}\n{line}\n", encoding="utf-8")

    with pytest.raises(UserError, match=r"rows\.jsonl: line 2 must be a row"):
        RowStore(path)


def test_a_row_of_another_programs_is_refused_by_its_field(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(speed(64).model_dump_json().replace('"kind"', '"sort"') + "\n", encoding="utf-8")

    with pytest.raises(UserError, match="line 1 must be a row; kind: Field required"):
        read_rows(path)


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(UserError, match="must be a file of rows"):
        read_rows(tmp_path / "missing.jsonl")
    with pytest.raises(UserError, match="must go to a file that can be written"):
        RowStore(tmp_path)
    with pytest.raises(UserError, match="must go to a file that can be written"), only_writer(tmp_path):
        raise AssertionError


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = RowStore(tmp_path / "rows.jsonl")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"rows must go to a file that can be written.*No space left on device"):
        store.append([speed(64)])
