"""What senders ask of turns whose claim is not here yet: to end, or to take in words that came later.

The store commits a message and what is asked of its turn, and tells of them in any order. A request is kept until the
turn begins; what is lost with it here is in the store, and found with the next claim.
"""

from __future__ import annotations

#: requests of a kind that are kept; past it the oldest are dropped: those turns are over, or elsewhere
LIMIT = 1000


class EarlyRequests:
    """Owns them, each until it is taken."""

    def __init__(self) -> None:
        self._stops: dict[str, None] = {}
        self._steers: dict[str, None] = {}

    def stop(self, message_id: str) -> None:
        """Keep that a message's turn is to end when it begins."""
        add(self._stops, message_id)

    def steer(self, session: str) -> None:
        """Keep that a session's turn is to take in words when it begins."""
        add(self._steers, session)

    def take_stop(self, message_id: str) -> bool:
        """Tell whether a message's turn is to end, once."""
        return self._stops.pop(message_id, False) is None

    def take_steer(self, session: str) -> bool:
        """Tell whether a session's turn is to take in words, once."""
        return self._steers.pop(session, False) is None


def add(requests: dict[str, None], key: str) -> None:
    """Add a request, and drop the oldest past the limit."""
    requests[key] = None
    if len(requests) > LIMIT:
        del requests[next(iter(requests))]
