"""Rows to store: one speed row of each status, and quality rows."""

from eval.rows import Cell, CurvePoint, Quality, Row
from tests.eval.rows_factory import MACHINE, RECORDED_AT, noisy, speed_row, untimed_row


def cell(length: int) -> Cell:
    return Cell(suite="s", group=f"L={length}", builder="op", variant="mha", level="op", mode="forward", length=length)


def speed(length: int, seconds: float = 0.25) -> Row:
    return speed_row(cell(length), noisy(seconds, rounds=3), baseline=("mha_manual", noisy(2 * seconds, rounds=3)))


def skipped(length: int) -> Row:
    return untimed_row(cell(length), reason="128 MiB do not fit")


def quality(seed: int, value: float | None = 2.5) -> Row:
    measured = Quality(
        task="language",
        metric="bits_per_byte",
        value=value,
        standard_error=0.01,
        count=100,
        variant="mha",
        attention='{"mechanism": "softmax"}',
        model="gpt_tiny",
        data="stdlib",
        regime="equal_tokens",
        seed=seed,
        curve=[CurvePoint(tokens=10, seconds=0.5, value=3.0), CurvePoint(tokens=20, seconds=1.0, value=2.5)],
    )
    return Row(
        kind="quality",
        identity=f"quality-{seed}",
        status="ok",
        recorded_at=RECORDED_AT,
        machine=MACHINE,
        quality=measured,
    )
