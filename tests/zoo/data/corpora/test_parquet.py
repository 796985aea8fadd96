"""Parquet files as a corpus."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo.config import UserError
from zoo.data.corpora import ParquetConfig


def write(path: Path, **columns: pa.Array | list) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def texts(path: Path, field: str = "text") -> list[str]:
    return [each.text for each in ParquetConfig(path=str(path), field=field).open().documents()]


def test_rows_come_in_order_of_files(tmp_path):
    write(tmp_path / "b.parquet", text=["four"])
    write(tmp_path / "a.parquet", n=[1, 2, 3], text=["one", "größer", ""])
    assert texts(tmp_path) == ["one", "größer", "", "four"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_every_kind_of_text_column_is_read(tmp_path, kind):
    write(tmp_path / "a.parquet", story=pa.array(["x", "y", "x"], kind))
    assert texts(tmp_path / "a.parquet", "story") == ["x", "y", "x"]


def test_a_missing_column_is_refused_by_file_with_the_choices(tmp_path):
    path = write(tmp_path / "a.parquet", txt=["x"], id=[1])
    with pytest.raises(UserError, match=r"a\.parquet: data\.field .* got 'text' \(choices: id, txt\)"):
        texts(path)


@pytest.mark.parametrize(("column", "got"), [(["x", "y", None], "None"), ([1, 2, 3], "1")])
def test_what_is_no_text_is_refused_by_file_and_row(tmp_path, column, got):
    path = write(tmp_path / "a.parquet", text=column)
    with pytest.raises(UserError, match=rf"a\.parquet\[[02]\]: field 'text' must hold a text; got {got}"):
        texts(path)


def test_a_damaged_file_is_refused_by_name(tmp_path):
    path = write(tmp_path / "a.parquet", text=[f"text {index}" for index in range(99)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"a\.parquet must be a readable Parquet file; ") as raised:
        texts(path)
    assert "\n" not in str(raised.value)


def test_texts_that_are_no_unicode_are_refused_by_name(tmp_path):
    broken = pa.array([b"x", b"\xff\xfe"], pa.binary()).view(pa.string())
    path = write(tmp_path / "a.parquet", text=broken)
    with pytest.raises(UserError, match=r"a\.parquet: column 'text' must be UTF-8"):
        texts(path)


def with_footer(content: bytes, size: int) -> bytes:
    return content[:-8] + size.to_bytes(4, "little") + content[-4:]


@pytest.mark.parametrize("size", [0, 1, 2**16, 2**31 - 1, 2**32 - 1])
def test_a_footer_of_another_size_is_refused_by_name(tmp_path, size):
    path = write(tmp_path / "a.parquet", text=["x", "y"])
    path.write_bytes(with_footer(path.read_bytes(), size))
    with pytest.raises(UserError, match=r"a\.parquet must be a readable Parquet file; ") as raised:
        texts(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**62], pa.timestamp("us")),
        pa.array([[["x"]]]),
        pa.array([{"text": "x"}]),
        pa.array([b"x"]),
        pa.array([None], pa.null()),
        pa.array([None], pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_a_column_of_anything_but_text_is_one_line(tmp_path, column):
    path = write(tmp_path / "a.parquet", text=column)
    with pytest.raises(UserError, match=r"a\.parquet") as raised:
        texts(path)
    assert "\n" not in str(raised.value)


def test_two_columns_of_one_name_are_refused(tmp_path):
    pq.write_table(pa.table([["x"], ["y"]], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: must have one column 'text'; it has 2"):
        texts(tmp_path / "a.parquet")


def test_a_column_called_like_a_path_is_that_column(tmp_path):
    write(tmp_path / "a.parquet", **{"a.b": ["x"], "a": pa.array([{"b": "y"}])})
    assert texts(tmp_path / "a.parquet", "a.b") == ["x"]
