"""The loss curve of a run, drawn from its metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_loss_curve(rows: Sequence[dict[str, Any]], path: Path, *, title: str) -> None:
    """Draws training and validation loss against the step.

    Args:
        rows: Of `metrics.jsonl`.
        path: A PNG file.
        title: What was trained.
    """
    # Here, for it takes longer to import than all of the project, and most of what trains or measures draws nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # The object interface and not pyplot: no window, no global state.
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label, style in (("train_loss", "training", "-"), ("val_loss", "validation", "o-")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, style, label=label, markersize=4, linewidth=1.4)
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(path, dpi=120)
