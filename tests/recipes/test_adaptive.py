"""`attention=adaptive` on the command line: it trains, says what it ignores, and refuses in one line."""

from pathlib import Path

import pytest

from tests.recipes.tiny_train import Train
from tests.zoo.attention.planted import times, write_own
from zoo.attention.calibration import calibration_path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def _loss(train: Train, run_dir: Path, *more: str) -> float:
    result = train("attention=adaptive", f"run_dir={run_dir}", *more)
    assert (result["attention"], result["steps"]) == ("adaptive", 6)
    return float(result["train_loss"])


def test_it_trains_as_the_plain_variant_does_whatever_was_measured(train: Train, tmp_path: Path) -> None:
    plain = float(train("attention=mha", f"run_dir={tmp_path / 'mha'}")["train_loss"])
    for name in ("manual", "tiled"):
        write_own(times("softmax", {name: {64: 0.5}}), times("softmax", {name: {64: 0.5}}, phase="forward"))
        # The same function, but for rounding, which six steps do not make large.
        assert _loss(train, tmp_path / name) == pytest.approx(plain, abs=1e-3)


def test_it_crosses_only_if_allowed_and_a_window_then_trains_another_model(train: Train, tmp_path: Path) -> None:
    write_own(times("softmax", {"fused": {64: 9.0}}), times("sliding_window", {"masked": {64: 0.5}}))
    crossing = ("attention.allow_mechanisms=[sliding_window]", "attention.parameters.window_size=3")
    plain = _loss(train, tmp_path / "plain")
    crossed = _loss(train, tmp_path / "crossed", *crossing)
    window = train("attention=swa_masked", "attention.window_size=3", f"run_dir={tmp_path / 'swa'}")["train_loss"]
    assert crossed == pytest.approx(window, abs=1e-3)
    assert abs(crossed - plain) > 1e-3


def test_a_spoilt_calibration_is_told_and_a_spoilt_named_one_is_refused_in_one_line(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (calibration_path(), tmp_path / "named.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{", encoding="utf-8")
    _loss(train, tmp_path / "run", "model.num_layers=2")
    assert [record.getMessage().count("suite=calibrate") for record in caplog.records].count(1) == 1
    code, result, errors = train.attempt(
        "attention=adaptive", f"attention.calibration={tmp_path / 'named.json'}", f"run_dir={tmp_path / 'other'}"
    )
    assert (code, result) == (2, None)
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: attention.calibration must be a calibration")
