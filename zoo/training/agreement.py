"""What processes that train together know alike: whether one of them was asked to stop, and the time by one clock."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from zoo.runtime.processes import Processes


class Agreement:
    """Whether the run is to stop, and its seconds, as all processes know them since they last agreed.

    Attributes:
        stops: Whether any of them was asked to stop.
        seconds: Of the run, by the clock of the process that leads.
        clock: Seconds of the run so far, by this process's clock.
    """

    def __init__(self, processes: Processes, *, asked: Callable[[], bool], clock: Callable[[], float]) -> None:
        """Takes what this process knows: whether it was asked to stop, and its clock."""
        self._processes, self._asked, self.clock = processes, asked, clock
        self.stops, self.seconds = False, 0.0

    def renew(self) -> None:
        """Asks all; every process does so at the same points of a run."""
        self.seconds, stops = self._processes.sums(*self._own())
        self.stops = stops > 0

    def sent(self) -> mx.array:
        """The same as part of a step's computation: an exchange of its own would wait once more for the slowest."""
        return self._processes.sum_arrays(mx.array(self._own()))

    def received(self, sent: mx.array) -> None:
        """Takes what was sent with a step that is computed; of a single process, what it knows by now."""
        if self._processes.size == 1:
            self.renew()
            return
        self.seconds, stops = cast(list[float], sent.tolist())
        self.stops = stops > 0

    def _own(self) -> tuple[float, float]:
        return self.clock() if self._processes.leads else 0.0, float(self._asked())
