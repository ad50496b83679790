"""Who takes replies, and whether they answer: each host has its own share of exchanges at once.

A host of which an exchange got no answer, and nothing else was heard meanwhile, is silent: from then on one exchange at
a time tries whether it answers again, with growing pauses, and everything else that is for it waits in the outbox.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable

import msgspec
from yarl import URL

from shared.retry import backoff_s

#: exchanges at once with one platform, and with one host of it
PLATFORM_SHARE = 32
HOST_SHARE = 24

#: exchanges at once with a host that has never answered
UNPROVEN_SHARE = 4

FIRST_PROBE_S, LONGEST_PROBE_S = 1.0, 30.0

#: how long what finds its host at its share, or silent, is put off at the least, in seconds
FULL_PAUSE_S, SILENT_PAUSE_S = 0.5, 5.0

#: hosts that are remembered; past it those that answer and are not in use are forgotten
MOST_REMEMBERED = 1_000


class Receiver(msgspec.Struct):
    """What is known of one receiving host; times are the clock's seconds."""

    open: int = 0  #: exchanges that are under way
    answered_at: float = -1.0  #: when it last answered, -1 for never
    failures: int = 0  #: probes in a row without an answer; 0 while it answers
    silent_at: float = 0.0  #: when the last exchange without an answer ended
    probe_at: float = 0.0  #: when a silent host may be tried again

    @property
    def silent(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return self.failures > 0

    def room(self, now: float) -> int:
        """Return how many more exchanges may begin now."""
        if self.silent:
            return 1 if not self.open and self.probe_at <= now else 0
        return (HOST_SHARE if self.answered_at >= 0 else UNPROVEN_SHARE) - self.open


class Exchange(msgspec.Struct, frozen=True):
    """One exchange under way."""

    platform: str
    receiver: str
    began_at: float


class Receivers:
    """Counts the exchanges with every host and remembers which of them are silent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._receivers: dict[str, Receiver] = {}
        self._hosts_of: dict[str, set[str]] = {}
        self._open: Counter[str] = Counter()

    def room(self, platform: str) -> int:
        """Return how many more exchanges of a platform may begin now, as far as is known before its hosts are."""
        room = PLATFORM_SHARE - self._open[platform]
        hosts = self._hosts_of.get(platform, set())
        if len(hosts) == 1:  # as most platforms have: then nothing is leased in vain
            (name,) = hosts
            room = min(room, self._receivers[name].room(self._clock()))
        elif not hosts:
            room = min(room, UNPROVEN_SHARE)
        return max(0, room)

    def open(self, platform: str) -> int:
        """Return how many exchanges of a platform are under way."""
        return self._open[platform]

    def next_probe_s(self) -> float | None:
        """Return the seconds until a silent host is to be tried again, None where none is or one is being tried."""
        waits = [receiver.probe_at for receiver in self._receivers.values() if receiver.silent and not receiver.open]
        return max(0.0, min(waits) - self._clock()) if waits else None

    def join(self, platform: str, url: str) -> Exchange:
        """Count an exchange that begins now, whatever room there is."""
        name = host_of(url)
        self._receivers.setdefault(name, Receiver()).open += 1
        self._hosts_of.setdefault(platform, set()).add(name)
        self._open[platform] += 1
        return Exchange(platform, name, self._clock())

    def begin(self, platform: str, url: str) -> Exchange | float:
        """Count an exchange that begins now; where its host has no room, return the seconds to ask again after."""
        name = host_of(url)
        self._forget_some()
        receiver = self._receivers.get(name, Receiver())
        if receiver.room(self._clock()) <= 0:
            return max(SILENT_PAUSE_S, receiver.probe_at - self._clock()) if receiver.silent else FULL_PAUSE_S
        return self.join(platform, url)

    def end(self, exchange: Exchange, *, answered: bool | None) -> None:
        """Count the end of an exchange; ``answered`` is None where we broke it off ourselves."""
        receiver = self._receivers[exchange.receiver]
        receiver.open -= 1
        self._open[exchange.platform] -= 1
        now = self._clock()
        if answered is None:
            return
        if answered:
            receiver.answered_at, receiver.failures = now, 0
        elif max(receiver.answered_at, receiver.silent_at) <= exchange.began_at:
            receiver.failures += 1
            receiver.silent_at = now
            receiver.probe_at = now + backoff_s(receiver.failures, FIRST_PROBE_S, LONGEST_PROBE_S)

    def _forget_some(self) -> None:
        if len(self._receivers) <= MOST_REMEMBERED:
            return
        self._receivers = {
            name: receiver for name, receiver in self._receivers.items() if receiver.open or receiver.silent
        }
        self._hosts_of = {platform: names & self._receivers.keys() for platform, names in self._hosts_of.items()}


@functools.lru_cache(maxsize=1024)
def host_of(url: str) -> str:
    """Return the scheme, host and port of a url."""
    parts = URL(url, encoded=True)
    return f"{parts.scheme}://{parts.host}:{parts.port}"
