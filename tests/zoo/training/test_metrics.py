import errno
import os
import sys
import types

import pytest

from zoo.config import UserError
from zoo.training.metrics import JsonLinesLogger, WandbLogger, open_loggers, read_metrics


def test_rows_are_read_as_they_were_written(tmp_path):
    logger = JsonLinesLogger(tmp_path / "metrics.jsonl", resumed_step=0)
    logger.log(3, {"train_loss": 0.1 + 0.2, "val_bits_per_byte": None})
    logger.flush()
    logger.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 3, "train_loss": 0.1 + 0.2, "val_bits_per_byte": None}]


def test_a_new_run_begins_with_no_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    JsonLinesLogger(path, resumed_step=0).close()
    assert read_metrics(path) == []


def test_a_resumed_run_keeps_the_rows_up_to_its_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    JsonLinesLogger(path, resumed_step=2).close()
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


SPOILT = [
    b"",
    b"   ",
    b"\0" * 100,
    b'{"step": 2, "train_l',
    b'\xff\xfe{"step": 2}',
    b'{"train_loss": 1.0}',
    b'{"step": "2"}',
    b'{"step": true}',
    b'{"step": 2, "train_loss": "x"}',
    b'{"step": 2, "train_loss": [1]}',
    b'{"step": 2, "train_loss": NaN}',
    b'{"step": 2}{"step": 3}',
    b'{"step": -1}',
    b'{"step": 2, "train_loss": 1e300}',
    b'{"step": 2, "train_loss": -' + b"9" * 400 + b"}",
    b"[2]",
    b"[" * 100_000,
    b"2",
]


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda line: repr(line[:20]))
def test_a_spoilt_line_is_passed_over_and_counted(spoilt, tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + spoilt + b"\n" + spoilt + b'\n{"step": 3, "val_accuracy": null}\n{"step": 4}\n')
    assert [row["step"] for row in read_metrics(path)] == [1, 3, 4]
    assert [record.getMessage() for record in caplog.records] == [
        f"run: 2 lines of {path} must each be one row of values; passed over"
    ]
    JsonLinesLogger(path, resumed_step=3).close()
    caplog.clear()
    assert [row["step"] for row in read_metrics(path)] == [1, 3]
    assert not caplog.records


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics\.jsonl must be a regular file"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_full_disk_is_one_line_and_leaves_the_rows_before(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    logger = JsonLinesLogger(path, resumed_step=0)
    logger.log(1, {"train_loss": 1.0})

    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(logger, "_file", Full())
        with pytest.raises(UserError, match=r"metrics\.jsonl must be writable; got No space left on device$"):
            logger.log(2, {"train_loss": 1.0})
    logger.close()
    assert [row["step"] for row in read_metrics(path)] == [1]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_logger_names_the_command_that_installs_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"pip install -e '\.\[{name}\]'$"):
        open_loggers((name,), tmp_path, resumed_step=0, config={})


def test_tensorboard_reads_back_what_was_logged_and_hides_what_a_kill_undid(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for resumed_step, steps in ((0, (1, 2, 3)), (1, (2,))):
        loggers = open_loggers(("tensorboard",), tmp_path, resumed_step=resumed_step, config={})
        for step in steps:
            for logger in loggers:
                logger.log(step, {"train_loss": float(10 * step + resumed_step), "val_bits_per_byte": None})
        for logger in loggers:
            logger.flush()
            logger.close()
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train_loss")] == [(1, 10.0), (2, 21.0)]


def test_wandb_goes_on_with_the_run_of_the_folder(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values, *, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    module = types.ModuleType("wandb")

    def init(**options):
        calls.append(options)
        return Run()

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("run-7", "run-7", "other"):
        (tmp_path / name).mkdir(exist_ok=True)
        logger = WandbLogger(tmp_path / name, config={"seed": 3})
        logger.log(4, {"train_loss": 1.5})
        logger.flush()
        logger.close()
    first, *rest = calls[:3]
    again, other = calls[3], calls[6]
    assert (first["name"], first["resume"], first["config"]) == ("run-7", "allow", {"seed": 3})
    assert rest == [(4, {"train_loss": 1.5}), "finished"]
    assert first["id"] == again["id"] != other["id"]
