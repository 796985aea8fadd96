from matplotlib.image import imread

from zoo.training.figures import draw_loss_curve


def test_the_curve_is_a_picture_that_shows_the_rows(tmp_path):
    rows = [{"step": step, "train_loss": 5.0 - step} for step in range(1, 4)] + [{"step": 3, "val_loss": 2.5}]
    draw_loss_curve(rows, tmp_path / "loss.png", title="a model")
    draw_loss_curve([], tmp_path / "empty.png", title="a model")
    drawn, empty = imread(tmp_path / "loss.png"), imread(tmp_path / "empty.png")
    assert drawn.ndim == 3
    assert drawn.shape[0] > 300
    assert drawn.std() > empty.std() > 0
