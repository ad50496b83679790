"""Turns the deltas of a turn's steps into one growing text that never takes back what was shown.

Steps are set apart by a blank line. When a turn begins again in another worker, its steps stream their text again:
what was shown already is not shown twice.
"""

from __future__ import annotations

GAP = "\n\n"


class StreamedText:
    """The text shown so far of a turn that streams."""

    def __init__(self) -> None:
        self._step = 0
        self._shown = ""  # of the step that streams now
        self._seen = ""  # of it, by this execution of the turn
        self._anything = False

    def begin_again(self) -> None:
        """Take note that the turn starts, or starts again."""
        self._seen = ""

    def add(self, step: int, text: str) -> str:
        """Take a delta and return what of it is to be shown."""
        gap = ""
        if step != self._step:
            gap = GAP if self._anything else ""
            self._step, self._shown, self._seen = step, "", ""
        self._seen += text
        new = self._unshown(self._seen)
        return gap + new if new else ""

    def put(self, text: str) -> str:
        """Take a text that is no step's, and return it as it is to be shown."""
        gap = GAP if self._anything else ""
        self._step, self._shown, self._seen, self._anything = 0, "", "", True
        return gap + text

    def rest(self, final: str) -> str:
        """Return what of the turn's final text has not been shown."""
        return self._unshown(final)

    def _unshown(self, text: str) -> str:
        """Return how ``text`` goes on after what was shown of its step, or all of it where it went another way."""
        if self._shown.startswith(text):
            return ""
        new = text[len(self._shown) :] if text.startswith(self._shown) else GAP + text
        self._shown = text
        self._anything = True
        return new
