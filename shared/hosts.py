"""The structs of a cluster: what each host tells with its beat, and what it is told.

A host renews its lease with one beat a second; every claim of it is live while that lease is. A host that could not
renew in time has to end its turns by its own monotonic clock, counted from the last beat it has sent.
"""

from __future__ import annotations

import msgspec

#: removals that one beat is told at most; what is left over comes with the next
REMOVALS_LIMIT = 1000


class Beat(msgspec.Struct, frozen=True):
    """What a host tells of itself."""

    #: its id: a name and a random part, new with every start
    host: str
    #: whether it accepts messages and sends replies
    gateway: bool = False
    #: how many workers it has, 0 for a gateway alone
    workers: int = 0
    #: where other hosts reach it by HTTP, empty if they do not
    address: str = ""
    #: what is shown of it to who asks, opaque to the store
    snapshot: bytes = b""
    #: what every other host is told of it, opaque to the store
    brief: bytes = b""
    #: it has heard of every removal up to this time, in unix seconds of the store's clock
    heard_until: float = 0.0


class LiveHost(msgspec.Struct, frozen=True):
    """A host whose lease has not ended."""

    host: str
    gateway: bool
    workers: int
    address: str
    #: empty in what a beat tells
    snapshot: bytes
    brief: bytes
    #: when it joined, in unix seconds
    joined_at: float


class StopRequest(msgspec.Struct, frozen=True):
    """A turn that a host runs and is to end."""

    session: str
    #: the message whose turn it is
    message_id: str
    #: what its sender is told
    text: str


class ChatOwner(msgspec.Struct, frozen=True):
    """The gateway that sends to a chat, as one of those sees it that share a database."""

    #: its id, empty for the one that asks
    host: str = ""
    #: whether every other gateway sees it so by now
    sure: bool = True
    #: when the one that asks took the chat over from another, on the monotonic clock; None where it had it before
    since_mono: float | None = None


class Removal(msgspec.Struct, frozen=True):
    """A session that was removed."""

    session: str
    #: unix seconds of the store's clock
    at: float


class HostNews(msgspec.Struct, frozen=True):
    """What a host learns with its beat; nothing of it is only in a signal, so that a lost one costs a second."""

    #: whether its lease had ended before this beat: its claims may be others' now, and ``Claims.held`` tells
    lapsed: bool
    #: all live hosts, in the order of their ids
    hosts: tuple[LiveHost, ...]
    #: turns of this host that are to end
    stops: tuple[StopRequest, ...]
    #: sessions whose turn runs on this host and which a message waits to join
    steers: tuple[str, ...]
    #: the waiting messages of all sessions
    waiting: int
    #: sessions that were removed since ``Beat.heard_until``, oldest first; REMOVALS_LIMIT at most
    removals: tuple[Removal, ...] = ()

    def place(self, host: str, *, gateways: bool = False) -> tuple[int, int]:
        """Return a host's number among those that work, or those that accept, from 0, and how many there are."""
        peers = [one.host for one in self.hosts if (one.gateway if gateways else one.workers)]
        return (peers.index(host) if host in peers else 0), len(peers)
