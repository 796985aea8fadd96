import json

import datasets
import pandas as pd
import pytest

from eval.rows import Row, RowStore, current_machine
from tests.eval.rows_factory import CURVE, quality_row, skipped, speed

MIXED = [speed(64), skipped(128), quality_row("mha", 0, 2.5, curve=CURVE), quality_row("mha", 1, None)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowStore(path).append(MIXED)
    return path


def test_every_key_is_written_whatever_the_row_and_the_schema_allows_no_other(path):
    schema = Row.model_json_schema()
    assert {frozenset(json.loads(line)) for line in path.read_text().splitlines()} == {frozenset(schema["properties"])}
    assert schema["additionalProperties"] is False


def test_pandas_and_datasets_read_speed_and_quality_rows_together(path, tmp_path):
    frame = pd.read_json(path, lines=True)
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(frame["kind"]) == loaded["kind"] == ["speed", "speed", "quality", "quality"]
    assert list(frame["status"]) == ["ok", "skipped", "ok", "ok"]
    # The fast parser of numbers of pandas is off in the last digits.
    seconds = MIXED[0].timing.samples_seconds
    assert frame["timing"][0]["samples_seconds"] == pytest.approx(seconds, rel=1e-12)
    assert loaded[0]["timing"]["samples_seconds"] == seconds
    assert loaded[2]["quality"]["curve"] == [point.model_dump() for point in CURVE]


def test_a_machine_is_its_own_and_never_a_guess():
    machine = current_machine()
    assert machine == current_machine()
    assert machine.device
    assert "Apple" not in machine.device or machine.backend == "metal"
