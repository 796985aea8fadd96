"""What is chosen: the least of the planted times, at their lengths and between them; else a rule of thumb."""

import pytest

from tests.zoo.attention.planted import NUM_HEADS, calibration, member, times
from zoo.attention import mechanism, mechanism_names
from zoo.attention.calibration import Phase
from zoo.attention.choice import Chooser, has_a_choice
from zoo.attention.mechanism import NATIVE
from zoo.attention.uncalibrated import MAX_DENSE_SCORE_BYTES, uncalibrated_choice
from zoo.runtime.backend import Backend

CHOOSABLE = [name for name in mechanism_names() if has_a_choice(mechanism(name))]
DEVICES: list[Backend] = ["cpu", "metal", "cuda"]


def _chosen(chooser: Chooser, length: int, *, phase: Phase = "training", rows: int = NUM_HEADS) -> str:
    return chooser.choose(phase=phase, rows=rows, length=length, causal=True)[1]


def _uncompiled(name: str) -> tuple[str, ...]:
    """Those that need no compiled kernels."""
    return tuple(each for each in member(name).implementations(causal=True) if each != NATIVE)


@pytest.mark.parametrize("name", CHOOSABLE)
def test_the_least_planted_time_is_chosen_for_every_phase_batch_and_length(name: str) -> None:
    configured = member(name)
    implementations = configured.implementations(causal=True)
    assert len(implementations) > 1
    phases: list[Phase] = ["forward", "training", "decode"]
    # Each setting has another winner than the one before it.
    settings = [(phase, batch, length) for phase in phases for batch in (1, 4) for length in (64, 256, 1024)]
    planted, winners = [], {}
    for turn, (phase, batch, length) in enumerate(settings):
        winner = implementations[turn % len(implementations)]
        winners[phase, batch, length] = winner
        seconds = {each: {length: 0.5 if each == winner else 1.0 + turn} for each in implementations}
        planted.append(times(name, seconds, phase=phase, batch_size=batch))
    chooser = Chooser([configured], calibration(*planted))
    for (phase, batch, length), winner in winners.items():
        assert _chosen(chooser, length, phase=phase, rows=batch * NUM_HEADS) == winner


def test_between_lengths_the_choice_changes_where_the_times_cross() -> None:
    # 1e-3 L and 1e-5 L^2 cross at 100, which lies between the measured lengths.
    linear = {length: 1e-3 * length for length in (16, 512)}
    square = {length: 1e-5 * length**2 for length in (16, 512)}
    chooser = Chooser([member("softmax")], calibration(times("softmax", {"manual": square, "tiled": linear})))
    assert [_chosen(chooser, length) for length in (16, 60, 99, 101, 300, 512)] == ["manual"] * 3 + ["tiled"] * 3


def test_equal_times_go_to_the_default() -> None:
    same = {64: 0.5, 256: 2.0}
    chooser = Chooser(
        [member("softmax")], calibration(times("softmax", {"tiled": same, "manual": same, "fused": same}))
    )
    assert _chosen(chooser, 100) == "fused"


def test_an_encoder_gets_only_what_looks_both_ways() -> None:
    planted = calibration(times("linear", {"chunked": {64: 9.0}, "cumsum": {64: 0.5}}))
    chooser = Chooser([member("linear")], planted)
    assert chooser.choose(phase="training", rows=NUM_HEADS, length=64, causal=True) == ("linear", "cumsum")
    assert chooser.choose(phase="training", rows=NUM_HEADS, length=64, causal=False) == ("linear", "chunked")


def test_another_name_of_the_same_op_is_no_choice() -> None:
    assert _uncompiled("softmax") == ("fused", "manual", "tiled")
    assert "masked" in member("sliding_window").implementations(causal=True)


def test_an_implementation_without_a_time_is_not_chosen_while_another_has_one() -> None:
    chooser = Chooser([member("softmax")], calibration(times("softmax", {"manual": {64: 9.0}})))
    assert _chosen(chooser, 64) == "manual"


def test_the_length_alone_decides_the_mechanism() -> None:
    window = times("sliding_window", {"chunked": {16: 2.0, 64: 2.0}})
    full = times("softmax", {"fused": {16: 1.0, 64: 4.0}})
    # The other phases and batches say the opposite; they are not asked.
    opposite = [
        *times("sliding_window", {"chunked": {16: 1.0, 64: 9.0}}, phase="forward"),
        *times("softmax", {"fused": {16: 9.0, 64: 1.0}}, phase="forward"),
    ]
    chooser = Chooser([member("softmax"), member("sliding_window")], calibration(window, full, opposite))
    phases: list[Phase] = ["forward", "training", "decode"]
    for length, expected in ((16, "softmax"), (31, "softmax"), (33, "sliding_window"), (64, "sliding_window")):
        found = {
            chooser.choose(phase=phase, rows=rows, length=length, causal=True)[0]
            for phase in phases
            for rows in (1, 4, 64)
        }
        assert found == {expected}


def test_without_times_of_both_no_mechanism_is_crossed_to() -> None:
    members = [member("softmax"), member("sliding_window")]
    for known in (None, calibration(times("sliding_window", {"chunked": {64: 0.5}}))):
        chooser = Chooser(members, known)
        assert {chooser.mechanism(length) for length in (1, 64, 4096)} == {"softmax"}


@pytest.mark.parametrize("name", CHOOSABLE)
@pytest.mark.parametrize("device", DEVICES)
def test_a_rule_of_thumb_names_an_implementation_that_there_is(name: str, device: Backend) -> None:
    implementations = member(name).implementations(causal=True)
    phases: list[Phase] = ["forward", "training", "decode"]
    for phase in phases:
        for length in (1, 64, 129, 1024, 100_000):
            found = uncalibrated_choice(implementations, phase=phase, rows=8, length=length, device=device)
            assert found in implementations
            slow = {"gather_slices", "gather_index", "recurrent", "cumsum"}
            assert found not in slow


@pytest.mark.parametrize("device", ["metal", "cuda"])
def test_on_a_gpu_softmax_is_fused_until_training_would_need_too_many_scores(device: Backend) -> None:
    names = _uncompiled("softmax")
    length = 2048
    most = MAX_DENSE_SCORE_BYTES // (4 * length**2)
    found = [
        uncalibrated_choice(names, phase=phase, rows=rows, length=length, device=device)
        for phase, rows in (("training", most), ("training", most + 1), ("forward", most + 1))
    ]
    assert found == ["fused", "tiled", "fused"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_long_window_skips_what_it_hides(device: Backend) -> None:
    names = _uncompiled("sliding_window")
    found = uncalibrated_choice(names, phase="training", rows=8, length=1024, device=device)
    assert found == "chunked"


@pytest.mark.parametrize("phase", ["forward", "training", "decode"])
@pytest.mark.parametrize("name", ["softmax", "sliding_window"])
def test_compiled_kernels_are_taken_on_a_processor_where_they_can_be_had(name: str, phase: Phase) -> None:
    names = (*_uncompiled(name), NATIVE)
    for length in (1, 64, 4096):
        assert uncalibrated_choice(names, phase=phase, rows=8, length=length, device="cpu") == NATIVE
        assert uncalibrated_choice(names, phase=phase, rows=8, length=length, device="metal") != NATIVE
