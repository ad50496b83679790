"""The circuit breaker of one model: after its calls failed again and again, others stop paying for the next one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class BreakerPolicy(msgspec.Struct, frozen=True):
    """When a breaker opens, and for how long; times in seconds."""

    failures: int = 5
    cool_off_s: float = 15.0
    longest_cool_off_s: float = 300.0


class Breaker:
    """Counts the consecutive failures of one model in this worker.

    closed -> open: ``failures`` in a row; or one timeout, if nothing at all succeeded while that call waited; or a
    wish to be left alone for long. open -> half open: after the cool-off one call is let through as the probe.
    Any success closes it; a failed probe opens it for twice as long. An open one may be asked shortly (it may be the
    only model there is); one that is silent then, too, counts as dead for a cool-off and is not asked at all.
    """

    def __init__(self, policy: BreakerPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._failures = 0
        self._opened_until: float | None = None
        self._cool_off_s = policy.cool_off_s
        self._succeeded_at = float("-inf")
        self._probing = False
        self._dead_until = float("-inf")

    @property
    def is_dead(self) -> bool:
        """True while even a short call is in vain."""
        return self._clock() < self._dead_until

    @property
    def is_open(self) -> bool:
        """True while calls should go elsewhere; a half-open breaker whose probe is not out yet is not open."""
        if self._opened_until is None:
            return False
        return self._probing or self._clock() < self._opened_until

    def admit(self) -> bool:
        """Ask for a full call: True where the breaker is closed, or this call becomes the probe (then settle it)."""
        if self.is_open:
            return False
        self._probing = self._opened_until is not None
        return True

    def succeeded(self) -> None:
        """Settle a call whose model answered, be it with a refusal."""
        self._failures = 0
        self._opened_until = None
        self._cool_off_s = self._policy.cool_off_s
        self._succeeded_at = self._clock()
        self._probing = False
        self._dead_until = float("-inf")

    def failed(self, began_at: float, *, timed_out: bool, leave_alone_s: float = 0.0) -> None:
        """Settle an admitted call that began then and failed; ``leave_alone_s`` is the model's own wish."""
        self._failures += 1
        dead = timed_out and self._succeeded_at < began_at
        if self._probing:
            self._cool_off_s = min(2 * self._cool_off_s, self._policy.longest_cool_off_s)
        if dead or self._probing or leave_alone_s > self._cool_off_s or self._failures >= self._policy.failures:
            cool_off_s = min(max(self._cool_off_s, leave_alone_s), self._policy.longest_cool_off_s)
            self._opened_until = self._clock() + cool_off_s
        self._probing = False

    def silent(self) -> None:
        """Note that a short call got no word either."""
        self._dead_until = self._clock() + self._cool_off_s

    def left(self) -> None:
        """Settle an admitted call that was cancelled: it tells nothing."""
        self._probing = False
