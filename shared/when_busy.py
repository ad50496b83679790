"""What becomes of a message whose session is busy: the mode, and which sessions have which."""

from __future__ import annotations

import enum

import msgspec


class WhenBusy(enum.StrEnum):
    """What a new message does while an earlier one of its session waits or runs."""

    ENQUEUE = "enqueue"  #: waits for its turn
    INTERRUPT = "interrupt"  #: ends the running turn, then has its own
    STEER = "steer"  #: joins the running turn at its next step
    REJECT = "reject"  #: is turned away, and its sender told


class BusyRules(msgspec.Struct, frozen=True):
    """The mode of every session: ``narrowed`` by its key or whole parts of its beginning, else ``default``."""

    default: WhenBusy = WhenBusy.ENQUEUE
    narrowed: dict[str, WhenBusy] = {}

    def mode(self, session: str, user: str = "") -> WhenBusy:  # noqa: ARG002 - these hold for everybody
        """Return what a sender's messages do: the mode of the longest part of the session's key that has one."""
        part = session
        while part:
            if found := self.narrowed.get(part):
                return found
            part = part.rpartition(":")[0]
        return self.default
