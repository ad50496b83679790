"""The models of a worker as one: retries, the fallback to the next, and a circuit breaker for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from shared.errors import ContextTooLong, ModelRejected, ModelUnavailable
from shared.events import Emit, Event
from shared.prices import Price
from shared.retry import backoff_s
from shared.usage import NOTHING, Usage
from worker.agent.context.repair import role_of
from worker.agent.models.breaker import Breaker, BreakerPolicy
from worker.agent.models.failures import (
    BrokenOff,
    EmptyAnswer,
    MalformedAnswer,
    Misconfigured,
    ProviderAway,
    Stalled,
)
from worker.agent.models.port import LENGTH, CallWatch, ModelReply, ModelRequest

#: what is left of a call's time when a try that ran out of it tells nothing of the model, in seconds
TOO_SHORT_S = 0.05

Failure = ModelUnavailable | ModelRejected | TimeoutError


class Link(Protocol):
    """One model of the chain; without a ``price`` what its calls cost is not known."""

    name: str
    price: Price | None

    async def call(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        stall_s: float = 60.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        """Call the model once and do not retry.

        ``timeout`` seconds bound the call, ``stall_s`` every silence in it; waiting for one of the places that a server
        has for calls at once counts as neither. Cancelling the call closes its connection. Raises TimeoutError,
        ModelUnavailable (see worker.agent.models.failures), ModelRejected, ContextTooLong; what it used, answered or
        not, is told to ``watch.spend``.
        """

    async def close(self) -> None:
        """Close every connection."""


class ChainPolicy(msgspec.Struct, frozen=True):
    """How hard the chain tries; times in seconds."""

    #: tries of a model that has another one after it
    attempts: int = 3
    #: tries of the last model whose failure may pass by itself
    last_attempts: int = 5
    #: tries of a model whose answer broke off: its provider may charge for each
    paid_attempts: int = 3
    #: tries of a model whose answer is malformed, empty or stalls midway: it is likely to be so again
    odd_attempts: int = 2
    #: delays double between these, and are jittered down by up to half
    first_delay_s: float = 0.5
    longest_delay_s: float = 8.0
    #: a model that wants to be left alone for longer is left for the next one, where there is one
    longest_wait_s: float = 30.0
    breaker: BreakerPolicy = BreakerPolicy()


class _Member(msgspec.Struct):
    """One model of the chain, and what is known of it; timeouts are its own where it has some."""

    link: Link
    breaker: Breaker
    call_timeout_s: float
    stall_timeout_s: float


class _Try(CallWatch):
    """Watches one try for the call it belongs to."""

    def __init__(self, call: _Call, member: _Member) -> None:
        super().__init__()
        self._call = call
        self._member = member
        self.began = False

    def heard(self, text: str) -> None:
        """Pass text on; the first of it tells everybody that the model is back."""
        if not self.began:
            self.began = self._call.told = True
            self._member.breaker.succeeded()
        if self._call.on_text is not None:
            self._call.on_text(text)

    def spend(self, usage: Usage) -> None:
        """Count what the try has used, priced, under the name of its model."""
        if usage == NOTHING:
            return
        share = self._priced(usage)
        super().spend(share)
        self._call.used += share
        self._call.watch.spend(share)

    def sent(self, usage: Usage) -> None:
        """Pass on what the call has used if this try is cut off."""
        self._call.watch.sent(self._call.used + self._priced(usage))

    def heard_of(self) -> None:
        """Pass on that some of an answer has come."""
        self._call.watch.heard_of()

    def _priced(self, usage: Usage) -> Usage:
        link = self._member.link
        priced = {"cost_nanos": link.price.of(usage)} if link.price else {"unpriced_calls": usage.model_calls}
        own = msgspec.structs.replace(usage, **priced)
        return msgspec.structs.replace(own, models={link.name: own})

    def restarted(self) -> None:
        """Pass on that the text told so far is void."""
        self._call.watch.restarted()


class _Call(msgspec.Struct):
    """One call of the chain."""

    request: ModelRequest
    on_text: Callable[[str], None] | None
    #: when its time is out, on the monotonic clock
    ends_at: float
    watch: CallWatch
    #: whether text was told that no answer was made of yet
    told: bool = False
    #: what its tries have used so far
    used: Usage = NOTHING

    def left_s(self) -> float:
        return self.ends_at - time.monotonic()


class Chain:
    """A Model over links in their order of preference; ``call_timeout_s`` bounds each try, beside the whole call's.

    ``limits`` holds what holds instead for single models, by name: seconds of a call, and of a silence in it.
    """

    def __init__(
        self,
        links: Sequence[Link],
        emit: Emit,
        *,
        call_timeout_s: float = 300.0,
        stall_timeout_s: float = 60.0,
        limits: dict[str, tuple[float | None, float | None]] | None = None,
        policy: ChainPolicy | None = None,
    ) -> None:
        self._policy = policy or ChainPolicy()
        self._emit = emit
        self._members = []
        for link in links:
            own_call_s, own_stall_s = (limits or {}).get(link.name, (None, None))
            breaker = Breaker(self._policy.breaker, time.monotonic)
            self._members.append(_Member(link, breaker, own_call_s or call_timeout_s, own_stall_s or stall_timeout_s))

    @property
    def name(self) -> str:
        """The names of the models, as the settings list them."""
        return ",".join(member.link.name for member in self._members)

    async def reply(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        """Get an answer from the first model that gives one, all tries within ``timeout`` seconds.

        A try that fails midway may have called ``on_text`` already: ``watch.restarted`` is called before the next one
        begins from the start. Where the last model is away the call waits for it until its time is out
        (``watch.waiting``). Every failed try is said as MODEL_FAILED. Raises TimeoutError when time is out or the last
        model stayed silent, ContextTooLong at once, ModelRejected if every model refused, else ModelUnavailable.
        """
        call = _Call(request, on_text, time.monotonic() + timeout, watch or CallWatch())
        reply = await self._answer(call, timeout)
        return msgspec.structs.replace(reply, usage=call.used)

    async def close(self) -> None:
        """Close every connection of every model."""
        for member in self._members:
            await member.link.close()

    async def _answer(self, call: _Call, timeout: float) -> ModelReply:
        failures: list[Failure] = []
        members = sorted(self._members, key=lambda member: member.breaker.is_open or member.breaker.is_away)
        for position, member in enumerate(members):
            last = position == len(members) - 1
            try:
                return await self._persist(member, call, last=last)
            except (ModelUnavailable, ModelRejected, TimeoutError) as failure:
                failures.append(failure)
            if call.left_s() <= 0 and not isinstance(failures[-1], ModelUnavailable):
                raise TimeoutError(f"no model answered in {timeout:g} s: {_words(failures)}") from None
        raise verdict(failures) from None

    async def _persist(self, member: _Member, call: _Call, *, last: bool) -> ModelReply:
        """Try one model until it answers, refuses, or is not worth another try; raise its last failure then."""
        attempt = 0
        failure: Failure = ProviderAway(f"{member.link.name} is away")
        while True:
            if last and member.breaker.is_away:
                call.watch.waiting(member.link.name, failure)
                try:
                    await member.breaker.until_back(call.left_s(), tried=attempt > 0)
                except TimeoutError:
                    raise failure from None
            attempt += 1
            try:
                return await self._try(member, call)
            except (ModelUnavailable, ModelRejected, TimeoutError) as failed:
                if attempt > 1 and isinstance(failed, TimeoutError) and call.left_s() < TOO_SHORT_S:
                    raise failure from None  # it tells more than that there was no time left to try again
                failure = failed
            delay_s = self._delay_s(failure, attempt, call, member, last=last)
            if not last and (member.breaker.is_open or member.breaker.is_away):
                delay_s = None
            self._tell(member, call, failure, attempt, delay_s)
            if delay_s is None:
                raise failure
            if last and isinstance(failure, Stalled | ProviderAway):
                call.watch.waiting(member.link.name, failure)
            await asyncio.sleep(delay_s)

    async def _try(self, member: _Member, call: _Call) -> ModelReply:
        """Make one call, and settle the breaker with what came of it."""
        breaker = member.breaker
        began_at = time.monotonic()
        admitted = breaker.admit()
        try:
            reply = await self._once(member, call)
        except (EmptyAnswer, MalformedAnswer, ModelRejected, ContextTooLong):
            breaker.succeeded()
            raise
        except (ModelUnavailable, TimeoutError) as failure:
            if admitted:
                timed_out = isinstance(failure, Stalled | TimeoutError)
                breaker.failed(began_at, timed_out=timed_out, leave_alone_s=_wish_s(failure))
            if isinstance(failure, ProviderAway):
                breaker.is_gone(began_at, _wish_s(failure))
            else:
                breaker.left()
            raise
        except BaseException:
            breaker.left()
            raise
        breaker.succeeded()
        return reply

    async def _once(self, member: _Member, call: _Call) -> ModelReply:
        if call.told:
            call.told = False
            call.watch.restarted()
        watch = _Try(call, member)
        limit_s = max(0.0, min(call.left_s(), member.call_timeout_s))
        try:
            async with asyncio.timeout(max(0.0, call.left_s()) + 0.1) as whole:
                return await member.link.call(
                    call.request, watch.heard, timeout=limit_s, stall_s=member.stall_timeout_s, watch=watch
                )
        except TimeoutError:
            if whole.expired():
                raise TimeoutError(f"{member.link.name} had no place for one more call at once") from None
            raise

    def _delay_s(self, failure: Failure, attempt: int, call: _Call, member: _Member, *, last: bool) -> float | None:
        """Return how long to wait before the next try of this model, None for no such try."""
        policy, left_s, wish_s = self._policy, call.left_s(), _wish_s(failure)
        pause_s = max(wish_s, backoff_s(attempt, policy.first_delay_s, policy.longest_delay_s))
        match failure:
            case ModelRejected() | TimeoutError():
                return None
            case ProviderAway() if last:  # as long as the call may last; while it is away the breaker keeps the time
                pause_s = wish_s if member.breaker.is_away else pause_s
                return pause_s if pause_s < left_s else None
            case EmptyAnswer(finish=finish) if finish == LENGTH or role_of(call.request.messages[-1]) == "tool":
                return None  # the turn asks in other words
            case Stalled() if not last:
                return None
            case EmptyAnswer() | MalformedAnswer() | Stalled(began=True):
                attempts = policy.odd_attempts
            case BrokenOff():
                attempts = policy.paid_attempts
            case Stalled() if last:
                return 0.0 if left_s > policy.first_delay_s else None
            case _:
                attempts = policy.last_attempts if last else policy.attempts
        if attempt >= attempts:
            return None
        return pause_s if pause_s < min(left_s, policy.longest_wait_s) else None

    def _tell(self, member: _Member, call: _Call, failure: Failure, attempt: int, delay_s: float | None) -> None:
        self._emit(
            Event.MODEL_FAILED,
            model=member.link.name,
            session=call.request.session,
            problem=str(failure),
            attempt=attempt,
            retry_in_s=None if delay_s is None else round(delay_s, 3),
        )


def verdict(failures: Sequence[Failure]) -> Failure:
    """Return what the failures of all models come to: the most telling kind, with the words of each."""
    if len(failures) == 1 and not isinstance(failures[0], Stalled):
        return failures[0]
    words = _words(failures)
    if all(isinstance(failure, Misconfigured) for failure in failures):
        return Misconfigured(words)
    if all(isinstance(failure, ModelRejected) for failure in failures):
        return ModelRejected(words)
    if isinstance(failures[-1], Stalled | TimeoutError):
        return TimeoutError(words)
    wishes = [failure.retry_after_s for failure in failures if isinstance(failure, ModelUnavailable)]
    return ModelUnavailable(words, min((wish for wish in wishes if wish is not None), default=None))


def _words(failures: Sequence[Failure]) -> str:
    return "; ".join(str(failure) for failure in failures)


def _wish_s(failure: Failure) -> float:
    return (failure.retry_after_s or 0.0) if isinstance(failure, ModelUnavailable) else 0.0
