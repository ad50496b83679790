"""The rates at which a platform takes requests, by chat and by app, shared by everything that sends there.

A final answer books its place in its chat: the first moment at which the chat's rates allow it. The app's rates are
booked by nobody: where they are full, what is due waits in the outbox, which knows whose turn it is among senders, and
is leased as places come free (gateway/delivery.py). Life signs and edits are courtesies: they go now or not at all, and
only where they leave room for a final answer. What a platform's own answer asks for (a
Retry-After) goes before all of it; where a platform limits its methods apart, what it asks of a courtesy is about that
courtesy's method alone. It is memory of this process alone. Where several gateways share a database, each chat is
one's alone, which keeps the chat's rates, and an app's rates are parted among all of them; where an app has fewer
requests in a span than there are gateways, one of them sends all that goes to it.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from gateway.platforms.port import Chat, Rate
from shared.hosts import ChatOwner

#: a span is taken to be longer by this factor: requests do not travel equally fast
SPAN_MARGIN = 1.05

#: requests that fill a rate go evenly: a pause is this part of an even one, and at least so many seconds
PACE, LEAST_PACE_S = 0.9, 0.01

#: chats and bookings that are remembered before those that are over are forgotten
MOST_REMEMBERED = 10_000

#: how long a booking waits for whoever made it, in seconds
BOOKING_KEPT_S = 600.0

#: how long after a chat was taken over the gateway before may still send there, in seconds: until all know of it
HANDOVER_S = 3.0

#: the part of a rate that the gateway before is taken to have used up when a chat is taken over
USED_BEFORE = 0.5

#: for how long a place that comes free in an app that was full is a final answer's alone, in seconds
ANSWERS_FIRST_S = 0.05

#: what finds its app full asks again after this time at the least, in seconds
LEAST_WAIT_S = 0.001


#: tells how many gateways share a rate
Gateways = Callable[[], int]


class Peers(Protocol):
    """What is known of the gateways that send by the same accounts."""

    @property
    def gateways(self) -> int:
        """How many there are, this one among them."""

    @property
    def joined_mono(self) -> float | None:
        """When this one joined others, None where there were none."""

    def chat_owner(self, platform: str, chat: str) -> ChatOwner:
        """Return the gateway that sends to a chat, or with no chat to all of a platform."""


class NoPeers:
    """The peers of a gateway that sends alone."""

    gateways = 1
    joined_mono: float | None = None

    def chat_owner(self, platform: str, chat: str) -> ChatOwner:  # noqa: ARG002 - it sends to all of them
        """Return that this one sends."""
        return ChatOwner()


class RateWindow:
    """The requests that count against one rate: those of its last span, and those that are booked."""

    def __init__(self, rate: Rate, gateways: Gateways) -> None:
        self._rate = rate
        self._gateways = gateways
        self._span_s = rate.per_s * SPAN_MARGIN
        self._sent: list[float] = []  #: moments of requests, in order
        self._at: list[float] = []  #: the same, and those that are booked

    def first_free(self, at: float, *, before_bookings: bool = False) -> float:
        """Return the first moment from ``at`` on at which one more request breaks the rate nowhere.

        With ``before_bookings`` what is booked does not count: it will make room itself.
        """
        moments = self._sent if before_bookings else self._at
        while (blocker := self._blocker(moments, at)) is not None:
            at = max(blocker + self._span_s, at + 1e-6)
        return at

    def take_over(self, at: float) -> None:
        """Count what another may have sent until then."""
        for _ in range(max(1, int(self._count * USED_BEFORE))):
            self.add(at)

    def room(self, now: float) -> int:
        """Return how many requests may go now, without a pause that others would wait for.

        Half of a span's may go in one go, the others go evenly over it: a next one never waits for a whole span.
        """
        self.forget(now)
        used = len(self._at)
        if used < (at_once := self._count // 2):
            return at_once - used
        if used and now < self._at[-1] + max(self._pace_s, LEAST_PACE_S):
            return 0
        return max(0, min(self._count - used, max(1, int(2 * LEAST_PACE_S / self._pace_s))))

    def next_room(self, now: float) -> float:
        """Return the moment from ``now`` on at which there is room again."""
        if self.room(now):
            return now
        paced = self._at[-1] + max(self._pace_s, LEAST_PACE_S) if self._at else now
        return max(self.first_free(now), paced)

    def leaves_room(self, now: float) -> bool:
        """Tell whether a courtesy now leaves room for a final answer; none is left where one is booked already."""
        self.forget(now)
        if self._at and self._at[-1] > now:
            return False
        count = self._count
        kept = max(1, count // 4) if count > 1 else 0
        return len(self._at) < count - kept

    def add(self, at: float) -> None:
        """Count a request."""
        bisect.insort(self._sent, at)
        self.book(at)

    def book(self, at: float) -> None:
        """Count a request that may be sent at a moment."""
        bisect.insort(self._at, at)

    def drop(self, at: float) -> None:
        """Take a booking back."""
        index = bisect.bisect_left(self._at, at)
        if index < len(self._at) and self._at[index] == at:
            del self._at[index]

    def forget(self, now: float) -> bool:
        """Forget what counts no more; tell whether nothing is left."""
        for moments in (self._sent, self._at):
            del moments[: bisect.bisect_right(moments, now - self._span_s)]
        return not self._at

    @property
    def _count(self) -> int:
        """This gateway's part of the requests of a span; of fewer than there are gateways, one of them has all."""
        return self._rate.count // max(1, self._gateways()) or self._rate.count

    @property
    def _pace_s(self) -> float:
        """The seconds between requests that go evenly: a little less than there are, as each goes a little late."""
        return self._span_s / self._count * PACE

    def _blocker(self, moments: list[float], at: float) -> float | None:
        """Return the earliest request of a full span that one at this moment would lie in."""
        count, index = self._count, bisect.bisect_right(moments, at)
        for first in range(max(0, index - count), index + 1):
            last = first + count - 1
            if last >= len(moments):
                return None
            span_begins, span_ends = min(moments[first], at), max(moments[last], at)
            if span_ends - span_begins < self._span_s:
                return moments[first]
        return None


class RateLimits:
    """What one chat, or one app, may send."""

    def __init__(self, rates: Iterable[Rate], gateways: Gateways) -> None:
        self.windows = [RateWindow(rate, gateways) for rate in rates]
        self._held_until: dict[str, float] = {}  #: by method, "" for every one
        self._taken_over_mono: float | None = None
        self._answers_until = 0.0  #: until when what comes free is a final answer's

    def hold(self, now: float, for_s: float, method: str) -> None:
        """Send nothing, or nothing by one method, for some seconds."""
        self._held_until = {held: until for held, until in self._held_until.items() if until > now}
        self._held_until[method] = max(self._held_until.get(method, 0.0), now + for_s)

    def take_over(self, since_mono: float | None) -> None:
        """Send nothing until the gateway before sends no more, and count what it may have sent; once a moment."""
        if since_mono is not None and since_mono != self._taken_over_mono:
            self._taken_over_mono = since_mono
            until = since_mono + HANDOVER_S
            self._held_until[""] = max(self._held_until.get("", 0.0), until)
            for window in self.windows:
                window.take_over(until)

    def held_until(self, method: str = "") -> float:
        """Return the moment from which on a method may be used."""
        return max(self._held_until.get("", 0.0), self._held_until.get(method, 0.0))

    def first_free(self, at: float, method: str = "", *, before_bookings: bool = False) -> float:
        """Return the first moment from ``at`` on that suits every rate and the platform's own wish."""
        at = max(at, self.held_until(method))
        while True:
            frees = [window.first_free(at, before_bookings=before_bookings) for window in self.windows]
            if (later := max(frees, default=at)) <= at:
                return at
            at = later

    def room(self, now: float, most: int) -> int:
        """Return how many requests may go now, up to ``most``; where none may, the next place is an answer's."""
        if self.held_until() > now:
            return 0
        room = min((window.room(now) for window in self.windows), default=most)
        if not room:
            self._answers_until = self.next_room(now) + ANSWERS_FIRST_S
        return min(room, most)

    def next_room(self, now: float) -> float:
        """Return the moment from ``now`` on at which there is room again."""
        return max(now, self.held_until(), *(window.next_room(now) for window in self.windows))

    def leaves_room(self, now: float, method: str) -> bool:
        """Tell whether a courtesy now leaves room for a final answer."""
        if max(self.held_until(method), self._answers_until) > now:
            return False
        return all(window.leaves_room(now) for window in self.windows)

    def add(self, now: float) -> None:
        """Count a request, and forget what counts no more."""
        for window in self.windows:
            window.forget(now)
            window.add(now)

    def book(self, at: float) -> None:
        """Count a request that may be sent at a moment."""
        for window in self.windows:
            window.book(at)

    def drop(self, at: float) -> None:
        """Take a booking back."""
        for window in self.windows:
            window.drop(at)

    def is_over(self, now: float) -> bool:
        """Tell whether nothing of it is worth remembering."""
        return max(self._held_until.values(), default=0.0) <= now and all(window.forget(now) for window in self.windows)


class Governor:
    """Owns the limits of all platforms; ``clock`` tells seconds that only grow.

    ``peers`` tells which gateways send by the same accounts; their moments are the clock's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, peers: Peers | None = None) -> None:
        self._clock = clock
        self.peers: Peers = peers or NoPeers()
        self._apps: dict[str, RateLimits] = {}
        self._chats: dict[tuple[str, str], RateLimits] = {}
        self._booked: dict[str, float] = {}

    def owner(self, app: str, app_rates: tuple[Rate, ...], chat: Chat) -> ChatOwner:
        """Return the gateway that sends to a chat: no other one may, where there is a rate that one alone can keep."""
        if self._is_undivided(app_rates):
            return self.peers.chat_owner(app, "")
        return self.peers.chat_owner(app, chat.key) if chat.rates else ChatOwner()

    def book(self, app: str, app_rates: tuple[Rate, ...], chat: Chat, key: str, method: str = "") -> float:
        """Book a final answer, named ``key`` and sent by ``method``; return the seconds until it may go, 0 for now.

        Whoever waited that long asks again under the same key, and sends once the answer is 0.
        """
        now = self._clock()
        of_app, of_chat = self._limits_of(app, app_rates, chat, self.owner(app, app_rates, chat))
        booked = self._booked.pop(key, None)
        if booked is not None:
            of_chat.drop(booked)
        has_waited = booked is not None and booked <= now
        at = of_chat.first_free(now, method, before_bookings=has_waited)
        app_at = of_app.first_free(now, method)
        if at > now or (app_at > now and has_waited):
            of_chat.book(at)
            self._booked[key] = at
        elif app_at <= now:
            of_chat.add(now)
            of_app.add(now)
        self._forget_what_is_over(now)
        return max(at - now, max(app_at - now, LEAST_WAIT_S) if app_at > now else 0.0)

    def count(self, app: str, app_rates: tuple[Rate, ...], chat: Chat) -> None:
        """Count a request that goes now, whatever the rates allow: it ends what an earlier one began."""
        now = self._clock()
        for limits in self._limits_of(app, app_rates, chat, self.owner(app, app_rates, chat)):
            limits.add(now)

    def allow_courtesy(self, app: str, app_rates: tuple[Rate, ...], chat: Chat, method: str = "") -> bool:
        """Tell whether a life sign or an edit may be sent now by a method, and count it if so."""
        now = self._clock()
        owner = self.owner(app, app_rates, chat)
        if owner.host or not owner.sure:
            return False
        all_limits = self._limits_of(app, app_rates, chat, owner)
        if not all(limits.leaves_room(now, method) for limits in all_limits):
            return False
        for limits in all_limits:
            limits.add(now)
        self._forget_what_is_over(now)
        return True

    def hold(self, app: str, chat: Chat | None, for_s: float, method: str = "") -> None:
        """Send nothing to a chat for some seconds, or nothing of the app where it is None: the platform asked.

        Where a ``method`` is named, the others go on.
        """
        limits = self._app(app, ()) if chat is None else self._chat(app, chat)
        limits.hold(self._clock(), for_s, method)

    def room(self, app: str, app_rates: tuple[Rate, ...], most: int) -> int:
        """Return how many requests of an app may go now, as far as its own rates go, up to ``most``."""
        return self._app(app, app_rates).room(self._clock(), most)

    def full_s(self, app: str, app_rates: tuple[Rate, ...]) -> float:
        """Return the seconds until anything of an app may be sent, 0 for now."""
        now = self._clock()
        return self._app(app, app_rates).next_room(now) - now

    def _limits_of(
        self, app: str, app_rates: tuple[Rate, ...], chat: Chat, owner: ChatOwner
    ) -> tuple[RateLimits, RateLimits]:
        of_app, of_chat = self._app(app, app_rates), self._chat(app, chat)
        of_chat.take_over(owner.since_mono)
        if self._is_undivided(app_rates):
            of_app.take_over(owner.since_mono)
        return of_app, of_chat

    def _is_undivided(self, app_rates: tuple[Rate, ...]) -> bool:
        """Tell whether one gateway has all of an app's rates: there are fewer requests in a span than gateways."""
        gateways = self.peers.gateways
        return any(rate.count < gateways for rate in app_rates)

    def _app(self, app: str, rates: tuple[Rate, ...]) -> RateLimits:
        found = self._apps.get(app)
        if found is None:
            found = self._apps[app] = RateLimits(rates, self._gateways_now)
            found.take_over(self.peers.joined_mono)
        elif rates and not found.windows:
            found.windows = [RateWindow(rate, self._gateways_now) for rate in rates]  # a hold came first
        return found

    def _chat(self, app: str, chat: Chat) -> RateLimits:
        found = self._chats.get((app, chat.key))
        if found is None:
            found = self._chats[(app, chat.key)] = RateLimits(chat.rates, _one_gateway)
        return found

    def _gateways_now(self) -> int:
        return self.peers.gateways

    def _forget_what_is_over(self, now: float) -> None:
        if len(self._chats) > MOST_REMEMBERED:
            self._chats = {key: limits for key, limits in self._chats.items() if not limits.is_over(now)}
        if len(self._booked) > MOST_REMEMBERED:
            self._booked = {key: at for key, at in self._booked.items() if at > now - BOOKING_KEPT_S}


def _one_gateway() -> int:
    return 1
