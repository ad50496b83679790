"""What hosts tell each other at once. Nothing is only in a signal: one that is lost costs a second, till the next look.

send(host, signal) ── joined for 10 ms ──▶ the database's notifications ──▶ received() on that host
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec


class SignalKind(enum.StrEnum):
    """What a signal is about."""

    WORK = "work"  #: a session is ready: look for claims
    DUE = "due"  #: a reply is due: look for it
    STOP = "stop"  #: end the turn of this message
    FORGET = "forget"  #: this session was removed: nothing of it may stay in memory or in files
    STEER = "steer"  #: a message waits to join this session's turn
    STARTED = "started"  #: the message's turn begins; with a step: the text of that begins again
    TEXT = "text"  #: more of an answer that somebody reads while it is written
    TOOL = "tool"  #: the turn calls the tool that ``text`` names
    SAID = "said"  #: the tool ``name`` tells how far it is
    AWAY = "away"  #: the turn waits for the model ``name``, for the reason in ``text``
    TODO = "todo"  #: the turn changed the session's todo list; empty where that is too large for a signal
    PAGE = "page"  #: pages are told the event ``name``, whose fields are the JSON in ``text``
    FETCH = "fetch"  #: fetch the file that ``text`` names, of the platform ``name``, and keep what came of it
    KILL = "kill"  #: kill the worker whose number is in ``text``
    ENDED = "ended"  #: the turn ended as ``text`` says: read the message's answer


class Signal(msgspec.Struct, frozen=True, omit_defaults=True):
    """One signal."""

    kind: SignalKind
    session: str = ""
    message_id: str = ""
    #: the step of the turn that the text belongs to
    step: int = 0
    text: str = ""
    name: str = ""
    #: how many characters of the step's text come before this one's
    offset: int = 0


class Signals(Protocol):
    """The signals of one host."""

    @property
    def connected(self) -> bool:
        """Whether signals come and go now; without them everything is found by looking."""

    async def start(self, host: str) -> None:
        """Begin to receive what is sent to this host."""

    def send(self, host: str, signal: Signal) -> None:
        """Send a signal to a host, without waiting."""

    def received(self) -> AsyncIterator[Signal]:
        """Give the signals sent to this host, as they come, for ever."""

    async def close(self) -> None:
        """Receive no more."""


class LocalSignals:
    """The Signals of a host that is alone: what it sends to itself."""

    def __init__(self) -> None:
        self.connected = False
        self._host = ""
        self._queue: asyncio.Queue[Signal] = asyncio.Queue()

    async def start(self, host: str) -> None:
        """Begin to receive what is sent to this host."""
        self._host, self.connected = host, True

    def send(self, host: str, signal: Signal) -> None:
        """Send a signal; there is no other host that could get it."""
        if self.connected and host == self._host:
            self._queue.put_nowait(signal)

    async def received(self) -> AsyncIterator[Signal]:
        """Give the signals sent to this host, as they come, for ever."""
        while True:
            yield await self._queue.get()

    async def close(self) -> None:
        """Receive no more."""
        self.connected = False
