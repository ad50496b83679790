"""The circuit breaker of one model: calls learn from each other that it is away, hangs, or is back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from shared.retry import backoff_s


class BreakerPolicy(msgspec.Struct, frozen=True):
    """When a breaker opens, and for how long; times in seconds."""

    #: failures in a row that open it
    failures: int = 5
    #: how long it stays open at first, and at the most: each failed probe doubles it
    cool_off_s: float = 15.0
    longest_cool_off_s: float = 300.0
    #: how long one waits that is away before it is probed, at first and at the most
    first_probe_s: float = 0.5
    longest_probe_s: float = 8.0


class Breaker:
    """What this worker knows of one model.

    It is *open* while calls that have another model should ask that one: after ``failures`` in a row; after one timeout
    if nothing at all succeeded while that call waited; or while it wished to be left alone. After the cool-off one call
    is let through as the probe.

    It is *away* while nothing can be asked of it: its server is not reached, overloaded, or loads. Calls that have no
    other model wait then (``until_back``), and one of them at a time is the probe for all. A call that hangs does not
    make it away, for others may be answered meanwhile.
    """

    def __init__(self, policy: BreakerPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._failures = 0
        self._opened_until: float | None = None
        self._cool_off_s = policy.cool_off_s
        self._succeeded_at = float("-inf")
        self._probing = False
        self._away = 0
        self._probe_at = 0.0
        self._untried_at = 0.0
        self._probed = False
        self._probed_at = 0.0
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """True while calls should go elsewhere; a half-open breaker whose probe is not out yet is not open."""
        if self._opened_until is None:
            return False
        return self._probing or self._clock() < self._opened_until

    @property
    def is_away(self) -> bool:
        """True while nothing can be asked of the model."""
        return self._away > 0

    def admit(self) -> bool:
        """Ask for a call: True where the breaker is closed, or this call becomes the probe (then settle it)."""
        if self.is_open:
            return False
        self._probing = self._opened_until is not None
        return True

    async def until_back(self, left_s: float, *, tried: bool = True) -> None:
        """Return once the model is back, or this call is to find out. Raises TimeoutError.

        One that has not ``tried`` yet may find out sooner: what its server refused others it may answer this one.
        """
        ends_at = self._clock() + left_s
        while self._away:
            now = self._clock()
            if now >= ends_at:
                raise TimeoutError
            probe_at = self._probe_at if tried else min(self._probe_at, self._untried_at)
            if not self._probed and now >= probe_at:
                self._probed, self._probed_at = True, now
                return
            if self._probed and now >= self._probed_at + self._policy.longest_probe_s:
                self._come_back()  # it takes calls again, however long it takes to answer that one
                return
            until = min(ends_at, self._probed_at + self._policy.longest_probe_s if self._probed else probe_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until - now):
                    await self._changed.wait()

    def succeeded(self) -> None:
        """Settle a call whose model answered, be it with a refusal."""
        self._failures = 0
        self._opened_until = None
        self._cool_off_s = self._policy.cool_off_s
        self._succeeded_at = self._clock()
        self._probing = False
        self._come_back()

    def failed(self, began_at: float, *, timed_out: bool, leave_alone_s: float = 0.0) -> None:
        """Settle a call that began then and failed; ``leave_alone_s`` is the model's own wish."""
        self._failures += 1
        dead = timed_out and self._succeeded_at < began_at
        if self._probing:
            self._cool_off_s = min(2 * self._cool_off_s, self._policy.longest_cool_off_s)
        if dead or self._probing or leave_alone_s > self._cool_off_s or self._failures >= self._policy.failures:
            cool_off_s = min(max(self._cool_off_s, leave_alone_s), self._policy.longest_cool_off_s)
            self._opened_until = self._clock() + cool_off_s
        self._probing = False

    def is_gone(self, began_at: float, leave_alone_s: float = 0.0) -> None:
        """Note that a call that began then could not be asked: others wait until a probe tells that it is back."""
        if self._succeeded_at > began_at and not self._away:
            return  # it has answered others since
        if not self._away or self._probed or leave_alone_s:
            self._away += 1
            wait_s = backoff_s(self._away, self._policy.first_probe_s, self._policy.longest_probe_s)
            self._probe_at = max(self._probe_at, self._clock() + max(wait_s, leave_alone_s))
            self._untried_at = self._clock() + max(self._policy.first_probe_s, leave_alone_s)
        self._probed = False
        self._wake()

    def left(self) -> None:
        """Settle a call that was cancelled: it tells nothing, and the next one may be the probe."""
        self._probing = False
        if self._probed:
            self._probed = False
            self._wake()

    def _come_back(self) -> None:
        if self._away:
            self._away, self._probed, self._probe_at, self._untried_at = 0, False, 0.0, 0.0
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
