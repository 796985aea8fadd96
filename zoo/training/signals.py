"""SIGINT, SIGTERM and SIGHUP as a wish to stop: the step in progress is finished and saved first."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """While entered, the first signal to stop only sets `name`; a second one acts as usual."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only; elsewhere there is nothing to take over.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # Under nohup a closed terminal is no reason to stop.
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def requested(self) -> bool:
        """Whether to stop; a signal that came during the last computation counts."""
        # Python runs handlers between two of its own instructions, at the latest when a function is called.
        return self.name is not None

    def _request(self, number: int, _frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Calls a handler for these signals inside, each time; an ignored one stays ignored."""
    # Python delivers signals to the main thread only; and under nohup a closed terminal is no reason to stop.
    is_main = threading.current_thread() is threading.main_thread()
    taken = [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN] if is_main else []
    before = {number: signal.signal(number, handler) for number in taken}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
