import mlx.core as mx
import pytest

from eval.rows import Cell
from eval.speed.builders import hand_inlined
from eval.suites.series import published_series, series
from eval.workloads.layer import layer_setting
from zoo.config import UserError

CELL = Cell(
    suite="test",
    group="test",
    builder="hand_inlined",
    variant="mha_hand_inlined",
    attention=published_series("mha").attention,
    level="layer",
    mode="forward",
    batch_size=3,
    length=17,
    num_heads=5,
    head_dim=6,
    hidden_size=28,
    causal=False,
)


@pytest.mark.parametrize("compiled", [True, False])
def test_the_inlined_code_equals_the_layer_to_the_last_bit(compiled: bool) -> None:
    cell = CELL.model_copy(update={"compiled": compiled})
    subject, setting = hand_inlined.build(cell), layer_setting(cell)
    expected_BLD = setting.layer()(setting.hidden_states(), mask=setting.mask)
    assert mx.array_equal(subject.call(), expected_BLD)
    found = subject.check()
    assert (found.passed, found.max_error, found.tolerance) == (True, 0.0, 0.0)


def test_the_smallest_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = hand_inlined.inlined_layer

    def wrong(num_heads: int, head_dim: int):
        return lambda *arrays: right(num_heads, head_dim)(*arrays) * (1 + 2.0**-20)

    monkeypatch.setattr(hand_inlined, "inlined_layer", wrong)
    assert not hand_inlined.build(CELL).check().passed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": series("mha_manual").attention}, "written out by hand"),
        ({"mode": "forward_backward"}, "modes"),
        ({"causal": True}, "causal"),
    ],
)
def test_what_was_not_written_out_is_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        hand_inlined.build(CELL.model_copy(update=change))
