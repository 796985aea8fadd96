"""Progress for people: a bar on stderr with loss, speed and memory."""

import sys

from tqdm import tqdm

from zoo.training.metrics import Values


class ProgressBar:
    """Shows the latest values of a run beside the number of steps done."""

    def __init__(self, *, steps: int, resumed_step: int) -> None:
        """Draws the bar.

        Args:
            steps: Length of the run.
            resumed_step: Where it goes on from; 0 for a new run.
        """
        self._bar = tqdm(
            total=steps, initial=resumed_step, unit="step", file=sys.stderr, dynamic_ncols=True, mininterval=0.5
        )
        self._shown: dict[str, str] = {}

    def show(self, values: Values) -> None:
        """Shows measured values until newer ones come."""
        formats = {
            "attention_loss": ("attention", "{:.3g}"),
            "kl_loss": ("kl", "{:.3f}"),
            "train_loss": ("loss", "{:.3f}"),
            "tokens_per_second": ("tok/s", "{:,.0f}"),
            "val_loss": ("val", "{:.3f}"),
            "val_bits_per_byte": ("bpb", "{:.3f}"),
            "val_accuracy": ("acc", "{:.3f}"),
        }
        for key, (name, form) in formats.items():
            value = values.get(key)
            if value is not None:
                self._shown[name] = form.format(value)
        memory = values.get("peak_memory_bytes")
        if memory is not None:
            self._shown["mem"] = f"{memory / 1e6:,.0f} MB"
        self._bar.set_postfix(self._shown, refresh=False)

    def advance(self, step: int) -> None:
        """Moves the bar to the number of steps done."""
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
