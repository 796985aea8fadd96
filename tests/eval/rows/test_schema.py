import json

import datasets
import pandas as pd
import pytest

from eval.rows import RowStore, current_machine, json_schema
from tests.eval.rows_factory import CURVE, quality_row, skipped, speed

MIXED = [speed(64), skipped(128), quality_row("mha", 0, 2.5, curve=CURVE), quality_row("mha", 1, None)]
KINDS = ["speed", "speed", "quality", "quality"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowStore(path).append(MIXED)
    return path


def test_every_key_is_written_whatever_the_row_and_the_schema_allows_no_other(path):
    schema = json_schema()
    assert {frozenset(json.loads(line)) for line in path.read_text().splitlines()} == {frozenset(schema["properties"])}
    assert schema["additionalProperties"] is False


def test_pandas_reads_speed_and_quality_rows_together(path):
    frame = pd.read_json(path, lines=True)
    assert list(frame["kind"]) == KINDS
    assert list(frame["status"]) == ["ok", "skipped", "ok", "ok"]
    # Its fast parser of numbers is off in the last digits.
    assert frame["timing"][0]["samples_seconds"] == pytest.approx(MIXED[0].timing.samples_seconds, rel=1e-12)


def test_datasets_reads_speed_and_quality_rows_together(path, tmp_path):
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["kind"] == KINDS
    assert loaded[0]["timing"]["samples_seconds"] == MIXED[0].timing.samples_seconds
    assert loaded[2]["quality"]["curve"] == [point.model_dump() for point in CURVE]


def test_a_machine_is_its_own_and_never_a_guess():
    machine = current_machine()
    assert machine == current_machine()
    assert machine.device
    assert "Apple" not in machine.device or machine.backend == "metal"
