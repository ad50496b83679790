"""The summary of a conversation that no store keeps: held in memory, and good for the history it was made of alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from shared.messages import Summary


class SummaryMemory:
    """Holds the last summary, and a digest of what it covers: of a history that was changed it tells nothing."""

    def __init__(self) -> None:
        self._summary: Summary | None = None
        self._digest = b""

    def keep(self, summary: Summary, transcript: Sequence[bytes]) -> None:
        """Hold the summary of this transcript instead of the last one."""
        self._summary = summary
        self._digest = _digest(transcript[: summary.covers])

    def find(self, transcript: Sequence[bytes]) -> Summary | None:
        """Return the summary if the transcript begins with the messages it was made of."""
        summary = self._summary
        if summary is None or len(transcript) < summary.covers:
            return None
        return summary if _digest(transcript[: summary.covers]) == self._digest else None


def _digest(messages: Sequence[bytes]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for message in messages:
        found.update(len(message).to_bytes(8, "big"))
        found.update(message)
    return found.digest()
