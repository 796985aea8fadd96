"""Every cell once a round, in an order of the round's own, for as long as there is time."""

import itertools

from eval.speed.protocol import MIN_ROUNDS
from eval.speed.rounds import BLOCK, Pace, orders, run_rounds


def _first(count: int, *, seed: str) -> list[list[str]]:
    return list(itertools.islice(orders("abcd", seed=seed), count))


def test_the_order_is_another_in_each_round_and_repeats_with_the_seed() -> None:
    rounds = _first(20, seed="0 group")
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len({tuple(order) for order in rounds}) > 10
    assert rounds == _first(20, seed="0 group")
    assert rounds != _first(20, seed="0 other group")


def test_no_cell_is_always_ahead_of_another() -> None:
    ahead = sum(order.index("a") < order.index("b") for order in _first(200, seed="0 group"))
    assert 70 < ahead < 130


def _run(pace: Pace, taken: list[str], blocks: list[int], *, failing: str | None = None) -> int:
    names = list("abc")

    def take(name: str) -> None:
        taken.append(name)
        if name == failing and taken.count(name) == 2:
            names.remove(name)

    return run_rounds(lambda: names, take, pace=pace, seed="0", between_blocks=blocks.append)


def test_all_are_built_anew_between_blocks_and_not_after_the_last() -> None:
    taken: list[str] = []
    blocks: list[int] = []
    assert _run(Pace(rounds=3 * BLOCK, seconds=None, started=0.0), taken, blocks) == 3 * BLOCK
    assert blocks == [BLOCK, 2 * BLOCK]
    assert all(sorted(taken[at : at + 3]) == list("abc") for at in range(0, len(taken), 3))


def test_a_cell_that_failed_is_out_and_the_others_go_on() -> None:
    taken: list[str] = []
    _run(Pace(rounds=6, seconds=None, started=0.0), taken, [], failing="b")
    assert [taken.count(name) for name in "abc"] == [6, 2, 6]


def test_rounds_fit_the_time_but_are_at_least_five() -> None:
    def rounds_in(seconds: float) -> int:
        now = [100.0]

        def clock() -> float:
            return now[0]

        pace = Pace(rounds=20, seconds=seconds, started=97.0, clock=clock)

        def take(_: str) -> None:
            now[0] += 1.0

        return run_rounds(lambda: ["a"], take, pace=pace, seed="0", between_blocks=lambda _: None)

    # Three of the seconds were spent before the first round.
    assert rounds_in(15.0) == 12
    assert rounds_in(0.0) == MIN_ROUNDS
    assert rounds_in(1000.0) == 20
