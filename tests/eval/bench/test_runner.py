"""Groups in real worker processes: faults become rows, budgets hold, and a run goes on where another one stopped."""

import dataclasses
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from eval.bench import Group, MeasureOptions, runner
from eval.bench.process import Task, Worker
from eval.bench.records import MEMORY_NOT_MEASURED
from eval.bench.runner import TIME_BUDGET, is_finished, is_group_finished, measure
from eval.bench.worker import measure_memory, time_cells
from eval.rows import Cell, Row, RowStore, read_rows
from tests.eval.bench.planted import listen
from tests.eval.rows_factory import MACHINE, altered, noisy, planted, planted_group, speed_row, untimed_row

# A null call, a matrix product, a copy.
NUM_DEVICE_ROWS = 3
OPTIONS = MeasureOptions(workloads="tests.eval.bench.planted", rounds=5, sample_seconds=1e-4)


def _measure(groups: list[Group], path: Path, options: MeasureOptions = OPTIONS) -> dict[str, Row]:
    """Rows by variant, the device's own left out."""
    store = RowStore(path)
    measure(groups, store=store, options=options)
    return {row.cell.variant: row for row in store.rows.values() if row.cell.suite != "device"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one group in an empty folder."""
    path = tmp_path_factory.mktemp("first") / "rows.jsonl"
    _measure([planted_group("adds", "adds too", memory=True)], path)
    return path


@pytest.fixture
def path(first: Path, tmp_path: Path) -> Path:
    """Where a run finds the device's own limits, and does not measure them again."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(first.read_bytes().splitlines(keepends=True)[:NUM_DEVICE_ROWS]))
    return path


@pytest.mark.slow
def test_faults_become_rows_the_others_are_timed_and_what_was_killed_once_but_lives_alone_is_not_blamed(
    path: Path, tmp_path: Path
) -> None:
    statuses = {
        "adds": "ok",
        "sleeps": "ok",
        "is_killed_once": "ok",
        "exits": "crashed",
        "is_killed": "out_of_memory",
        "aborts_in_check": "crashed",
        "hangs": "crashed",
        "raises": "crashed",
        "refuses": "unavailable",
        "no_memory": "out_of_memory",
        "wrong": "incorrect",
        "large": "skipped",
    }
    cells = [cell.model_copy(update={"detail": str(tmp_path / "killed")}) for cell in planted_group(*statuses).cells]
    options = dataclasses.replace(OPTIONS, step_seconds=3.0, available_bytes=1)
    rows = _measure([Group(cells=tuple(cells))], path, options)
    assert {variant: row.status for variant, row in rows.items()} == {**statuses, "adds (A/A)": "ok"}
    for row in rows.values():
        assert (row.timing is None) == (row.status != "ok") == (row.reason is not None)
    assert rows["large"].reason == "too large"
    assert "exit code 3" in rows["exits"].reason
    assert rows["hangs"].reason == "took longer than 3 s over one step while it was called, and was stopped"
    assert rows["refuses"].reason == "attention must be causal here; got False"
    # It sleeps for two milliseconds, which no addition of a mebibyte takes.
    assert rows["sleeps"].timing.median_seconds >= 0.002
    assert rows["sleeps"].comparison.baseline == "adds"
    assert rows["adds (A/A)"].comparison.same_function
    assert (tmp_path / "killed").exists()
    assert len({row.timing.rounds_id for row in rows.values() if row.timing}) == 1


def test_every_row_is_one_line_with_equally_many_samples_and_a_peak_that_repeats(first: Path) -> None:
    rows = read_rows(first)
    device, own = ["null call", "matrix product", "copy"], ["adds", "adds too", "adds (A/A)"]
    assert [row.cell.variant for row in rows] == device + own
    for row in rows[len(device) :]:
        assert len(row.timing.samples_seconds) == OPTIONS.rounds
        assert row.timing.warmup_calls >= 10
        assert min(row.timing.median_seconds, row.timing.first_call_seconds, row.work.peak_flops_per_second) > 0
        assert row.machine.mlx is not None
    one, other, control = (row.memory for row in rows[len(device) :])
    # One mebibyte in, one out.
    assert (one.peak_bytes, other.peak_bytes) == pytest.approx((2 * 2**20, one.peak_bytes), rel=0.01)
    assert (one.cache_bytes, one.analytic_cache_bytes, one.analytic_bytes) == (20, 20, 2 * 2**20)
    assert control.peak_bytes is None


def test_a_run_measures_what_there_was_no_time_for_and_groups_that_grew_and_nothing_that_is_finished(
    path: Path,
) -> None:
    group = planted_group("adds", "wrong", "refuses", group="first", control=False)
    late = _measure([group], path, dataclasses.replace(OPTIONS, budget_seconds=1e-9))
    assert {row.status for row in late.values()} == {"skipped"}
    assert all(row.reason.startswith(TIME_BUDGET) for row in late.values())
    old = _measure([group], path)
    statuses = {"adds": "ok", "wrong": "incorrect", "refuses": "unavailable"}
    assert {variant: row.status for variant, row in old.items()} == statuses
    before = path.read_bytes()
    _measure([group], path)
    assert path.read_bytes() == before
    # As a whole, for its rows pair by round.
    grown = planted_group("adds", "adds too", group="first", control=False)
    assert _measure([grown], path)["adds"].recorded_at > old["adds"].recorded_at
    before = path.read_bytes()
    _measure([grown, planted_group("adds", group="second", control=False)], path)
    (added,) = path.read_bytes().removeprefix(before).splitlines()
    assert b'"group":"second"' in added


def test_a_group_that_is_interrupted_leaves_no_rows_and_no_process(path: Path) -> None:
    store = RowStore(path)
    groups = [planted_group("adds", group="done", control=False), planted_group("hangs", group="lost", control=False)]
    begun: list[float] = []

    def stop_in_the_last_group() -> bool:
        return bool(begun) and time.monotonic() > begun[0] + 1.0

    def progress(done: int, total: int, name: str) -> None:
        if done == total - 1:
            begun.append(time.monotonic())

    measure(groups, store=store, options=OPTIONS, progress=progress, should_stop=stop_in_the_last_group)
    assert {row.cell.group for row in store.rows.values()} == {"device", "done"}
    assert multiprocessing.active_children() == []


def test_a_worker_ends_when_its_listener_is_killed(tmp_path: Path) -> None:
    beats = tmp_path / "beats"
    cell = planted("beats").model_copy(update={"detail": str(beats)})
    options = dataclasses.replace(OPTIONS, rounds=10**6)
    listener = multiprocessing.get_context("spawn").Process(target=listen, args=(cell, options))
    listener.start()
    _wait_until(lambda: beats.is_file() and beats.stat().st_size > 20)
    listener.kill()
    listener.join()

    def is_silent() -> bool:
        before = beats.stat().st_size
        time.sleep(0.5)
        return beats.stat().st_size == before

    _wait_until(is_silent)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _cannot_start(monkeypatch: pytest.MonkeyPatch, which: Task) -> None:
    """Workers for one task end in their imports."""

    def start(task: Task, cells: Sequence[Cell], options: MeasureOptions) -> Worker:
        missing = dataclasses.replace(options, workloads="tests.eval.bench.missing")
        return Worker(task, cells, missing if task is which else options)

    monkeypatch.setattr(runner, "Worker", start)


def test_a_budget_shortens_the_rounds_and_a_memory_process_that_dies_at_its_start_costs_the_peak_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cannot_start(monkeypatch, measure_memory)
    tight = dataclasses.replace(OPTIONS, rounds=1000, budget_seconds=0.05, sample_seconds=0.002)
    (row,) = _measure([planted_group("sleeps", memory=True, control=False)], path, tight).values()
    assert row.status == "ok"
    assert 5 <= len(row.timing.samples_seconds) < 1000
    assert row.memory.peak_bytes is None
    (flag,) = [flag for flag in row.flags if flag.startswith(MEMORY_NOT_MEASURED)]
    assert "before it was at any cell" in flag


def test_a_fault_before_any_cell_is_ours(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cannot_start(monkeypatch, time_cells)
    with pytest.raises(RuntimeError, match="before it was at any cell"):
        _measure([planted_group("adds")], path)


GROUP = planted_group("base", "other")
CELLS = GROUP.recorded_cells


def _timed(cell: Cell, rounds_id: str | None = "one") -> Row:
    return altered(speed_row(cell, noisy(0.01, rounds=3)), "timing", rounds_id=rounds_id)


def _is_finished(*rows: Row, group: Group = GROUP, refusal=lambda cell: None) -> bool:
    return is_group_finished(group, {row.identity: row for row in rows}, MACHINE, refusal)


MACHINES = {"device", "backend", "mlx", "blas", "blas_threads", "native", "cores"}


@pytest.mark.parametrize("field", [*sorted(MACHINES), "commit", "attention_zoo", "python"])
@pytest.mark.parametrize("status", ["ok", "unavailable", "skipped", "crashed", "out_of_memory", "incorrect"])
def test_a_row_is_of_one_machine_whatever_the_commit_but_faults_are_tried_again_with_other_code(
    field: str, status: str
) -> None:
    row = _timed(CELLS[0]) if status == "ok" else untimed_row(CELLS[0], status=status)
    assert is_finished(row, MACHINE)
    elsewhere = MACHINE.model_copy(update={field: 7 if field in ("cores", "blas_threads") else "another"})
    mended = status in ("crashed", "out_of_memory", "incorrect") and field in ("commit", "attention_zoo")
    assert is_finished(row, elsewhere) is not (field in MACHINES or mended)


def test_a_group_is_finished_if_all_its_times_are_of_the_same_rounds() -> None:
    first, *others = map(_timed, CELLS)
    assert _is_finished(first, *others)
    assert _is_finished(untimed_row(CELLS[0], status="crashed"), *others)
    for again in ([], [_timed(CELLS[0], "another")], [_timed(CELLS[0], None)]):
        assert not _is_finished(*again, *others)


def test_what_was_left_out_or_did_not_fit_is_unfinished_once_it_is_asked_for_or_fits() -> None:
    by_default = dataclasses.replace(GROUP, skipped={CELLS[1].identity: "far too slow by default"})
    rows = [untimed_row(cell) if cell == CELLS[1] else _timed(cell) for cell in CELLS]
    assert _is_finished(*rows, group=by_default)
    assert not _is_finished(*rows)
    assert _is_finished(*map(untimed_row, CELLS), refusal=lambda cell: "does not fit")
    # A control is the baseline under another name.
    rows = [*map(_timed, CELLS[:-1]), untimed_row(CELLS[-1])]
    assert not _is_finished(*rows, refusal=lambda cell: None if cell == GROUP.baseline else "does not fit")
