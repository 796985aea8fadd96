import mlx.core as mx
import numpy as np
import pytest

from eval.rows import Cell
from eval.speed.builders import layouts
from eval.suites.series import series
from zoo.config import UserError

CELL = Cell(
    suite="test",
    group="test",
    builder="layouts",
    variant="",
    attention=series("mha").attention,
    level="layer",
    mode="forward",
    length=7,
    num_heads=5,
    head_dim=6,
    hidden_size=28,
    causal=False,
    compiled=False,
)


def cell(subject: str, layout: str, batch_size: int) -> Cell:
    return CELL.model_copy(update={"detail": f"{subject}: {layout}", "batch_size": batch_size})


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("subject", layouts.SUBJECTS)
def test_every_layout_gives_the_same_output(subject: str, batch_size: int) -> None:
    native, *others = (layouts.build(cell(subject, layout, batch_size)) for layout in layouts.LAYOUTS)
    assert native.call().shape == (batch_size, 7, 28)
    for each in (native, *others):
        assert each.check().passed
        assert each.function == native.function
        assert each.work.useful_flops == native.work.useful_flops


def test_the_layouts_are_what_their_names_say() -> None:
    x_BLD = mx.arange(2 * 3 * 4).reshape(2, 3, 4)
    exchanged = np.array(x_BLD).transpose(1, 0, 2)
    native, *others = layouts.LAYOUTS.values()
    assert np.array_equal(np.array(native(x_BLD)), np.array(x_BLD))
    for each in others:
        assert np.array_equal(np.array(each(x_BLD)), exchanged)


def test_batch_and_sequence_mistaken_for_each_other_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dict(layouts.LAYOUTS)
    # Reshaped without having been transposed: the right shape, the tokens of other rows.
    wrong["transposed, reshaped"] = lambda x_BLD: x_BLD.reshape(x_BLD.shape[1], x_BLD.shape[0], x_BLD.shape[2])
    monkeypatch.setattr(layouts, "LAYOUTS", wrong)
    for subject in layouts.SUBJECTS:
        assert not layouts.build(cell(subject, "transposed, reshaped", 3)).check().passed


@pytest.mark.parametrize("detail", ["", "linear", "linear: upside down", "convolution: transposed view"])
def test_unknown_layouts_are_refused(detail: str) -> None:
    with pytest.raises(UserError, match="detail"):
        layouts.build(CELL.model_copy(update={"detail": detail}))
