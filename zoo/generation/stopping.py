"""Stop strings in streamed text: what may already be shown, and where the text ends."""

from collections.abc import Sequence


class StopScanner:
    """Passes text on piece by piece, up to the first stop string.

    The stop string that is complete first wins, and of those complete at one character the longest. So the result
    is the same however the text is cut into pieces. Text that may turn out to be the start of a stop string is held
    back until that is decided.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        """Scans for any of `stop`, non-empty texts; none lets everything pass."""
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """Takes the next piece of text and returns what is now certain to come before any stop string."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        held = next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stop)), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """Returns what was held back, once no more text comes."""
        rest, self._held = self._held, ""
        return rest
