"""The models of a worker as one: retries, the fallback to the next, and a circuit breaker for each."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from shared.errors import ContextTooLong, ModelRejected, ModelUnavailable
from shared.events import Event
from shared.prices import Price
from shared.usage import NOTHING, Usage
from worker.agent.models.breaker import Breaker, BreakerPolicy
from worker.agent.models.failures import EmptyAnswer, Stalled
from worker.agent.models.port import ModelReply, ModelRequest
from worker.agent.models.usage_on_error import bill, billed

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
    ) -> ModelReply:
        """Call the model once and do not retry.

        ``timeout`` seconds bound the whole call, ``stall_s`` every silence in it; cancelling the call closes its
        connection. Raises TimeoutError, ModelUnavailable (Stalled and EmptyAnswer are two), ModelRejected,
        ContextTooLong; what a failed or cancelled call used is on the error's bill.
        """

    async def close(self) -> None:
        """Close every connection."""


class ChainPolicy(msgspec.Struct, frozen=True):
    """How hard the chain tries; times in seconds.

    ``attempts`` are made of a model that has another one after it, ``last_attempts`` of the last. Delays double from
    ``first_delay_s`` and are jittered down by up to half; a model that wants to be left alone for more than
    ``longest_wait_s`` is left for the next. While a model's breaker is open it is knocked at, and that only where no
    other model is left: one call at a time, of at most ``short_stall_s`` of silence, tells all that wait.
    """

    attempts: int = 3
    last_attempts: int = 5
    first_delay_s: float = 0.5
    longest_delay_s: float = 8.0
    longest_wait_s: float = 30.0
    short_stall_s: float = 10.0
    breaker: BreakerPolicy = BreakerPolicy()


class _Member(msgspec.Struct):
    """One model; ``knock`` is set once the call that tries an open breaker has been answered, or not."""

    link: Link
    breaker: Breaker
    knock: asyncio.Event | None = None


class _Used:
    """What the tries of one call have used so far, answered or not."""

    def __init__(self) -> None:
        self.usage = NOTHING

    def add(self, link: Link, usage: Usage) -> None:
        """Add a try, priced, under the name of its model."""
        if usage == NOTHING:
            return
        priced = {"cost_nanos": link.price.of(usage)} if link.price else {"unpriced_calls": usage.model_calls}
        own = msgspec.structs.replace(usage, **priced)
        self.usage += msgspec.structs.replace(own, models={link.name: own})


class _Call(msgspec.Struct, frozen=True):
    """One call of the chain; ``ends_at`` is on the monotonic clock."""

    request: ModelRequest
    on_text: Callable[[str], None] | None
    ends_at: float
    used: _Used

    def left_s(self) -> float:
        return self.ends_at - time.monotonic()


class Chain:
    """A Model over links in their order of preference; ``call_timeout_s`` bounds each try, beside the whole call's."""

    def __init__(
        self,
        links: Sequence[Link],
        say: Callable[..., None],
        *,
        call_timeout_s: float = 300.0,
        stall_timeout_s: float = 60.0,
        policy: ChainPolicy | None = None,
    ) -> None:
        self._policy = policy or ChainPolicy()
        self._members = [_Member(link, Breaker(self._policy.breaker, time.monotonic)) for link in links]
        self._say = say
        self._call_timeout_s = call_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._short_s = min(self._policy.short_stall_s, stall_timeout_s)

    @property
    def name(self) -> str:
        """The names of the models, as the settings list them."""
        return ",".join(member.link.name for member in self._members)

    async def reply(
        self, request: ModelRequest, on_text: Callable[[str], None] | None = None, *, timeout: float = 300.0
    ) -> ModelReply:
        """Get an answer from the first model that gives one, all tries within ``timeout`` seconds.

        A try that fails midway may have called ``on_text`` already, and the next one calls it from the start of its own
        text: what counts is the reply's text; its usage is that of all tries. Every failed try is said as MODEL_FAILED.
        Raises TimeoutError when time is out or the last model stayed silent, ContextTooLong at once, ModelRejected if
        every model refused, else ModelUnavailable; what was used is on the error's bill.
        """
        call = _Call(request, on_text, time.monotonic() + timeout, _Used())
        try:
            reply = await self._answer(call, timeout)
        except BaseException as error:
            bill(error, call.used.usage)
            raise
        return msgspec.structs.replace(reply, usage=call.used.usage)

    async def close(self) -> None:
        """Close every connection of every model."""
        for member in self._members:
            await member.link.close()

    async def _answer(self, call: _Call, timeout: float) -> ModelReply:
        failures: list[Failure] = []
        members = sorted(self._members, key=lambda member: member.breaker.is_open)
        for position, member in enumerate(members):
            last = position == len(members) - 1
            try:
                return await self._persist(member, call, last=last)
            except (ModelUnavailable, ModelRejected, TimeoutError) as failure:
                failures.append(failure)
            if call.left_s() <= 0:
                raise TimeoutError(f"no model answered in {timeout:g} s: {_words(failures)}") from None
        raise verdict(failures) from None

    async def _persist(self, member: _Member, call: _Call, *, last: bool) -> ModelReply:
        """Try one model until it answers, refuses, or is not worth another try; raise its last failure then."""
        attempt = 0
        while True:
            attempt += 1
            full = member.breaker.admit()
            try:
                return await self._try(member, call, full=full, fresh=attempt == 1)
            except (ModelUnavailable, ModelRejected, TimeoutError) as failure:
                delay_s = self._delay_s(failure, attempt, call.left_s(), last=last, full=full)
                if not last and member.breaker.is_open:
                    delay_s = None
                self._tell(member, call, failure, attempt, delay_s)
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)

    async def _try(self, member: _Member, call: _Call, *, full: bool, fresh: bool) -> ModelReply:
        """Make one call, a full one or a knock, and settle the breaker with what came of it.

        A request that met silence before proves nothing with a second one: it may be what the model hangs on.
        """
        began_at = time.monotonic()
        try:
            if full:
                reply = await self._once(member.link, call, call.on_text, self._stall_timeout_s)
            else:
                reply = await self._knock(member, call)
        except (EmptyAnswer, ModelRejected, ContextTooLong):
            member.breaker.succeeded()
            raise
        except (ModelUnavailable, TimeoutError) as failure:
            timed_out = isinstance(failure, Stalled | TimeoutError)
            if full:
                member.breaker.failed(began_at, timed_out=timed_out, leave_alone_s=_wish_s(failure))
            elif timed_out and fresh and not member.breaker.is_dead:
                member.breaker.silent()
            raise
        except BaseException:
            if full:
                member.breaker.left()
            raise
        member.breaker.succeeded()
        return reply

    async def _knock(self, member: _Member, call: _Call) -> ModelReply:
        """Ask a model whose breaker is open: the first that does tells those behind it, with its first word at best."""
        if member.knock is not None:
            # long enough to hear of its silence, and no longer: it may get bytes for ever and never a word
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * self._short_s + 1.0):
                    await member.knock.wait()
            return await self._short(member, call, call.on_text)
        knock = member.knock = asyncio.Event()

        def heard(text: str) -> None:
            if not knock.is_set():
                member.breaker.succeeded()
                knock.set()
            if call.on_text is not None:
                call.on_text(text)

        try:
            return await self._short(member, call, heard)
        finally:
            knock.set()
            member.knock = None

    async def _short(self, member: _Member, call: _Call, on_text: Callable[[str], None] | None) -> ModelReply:
        """Make a call that is short while the breaker is open. Raises Stalled at once for a dead model."""
        if member.breaker.is_dead:
            raise Stalled(f"{member.link.name} was silent a moment ago and is not asked again yet")
        stall_s = self._short_s if member.breaker.is_open else self._stall_timeout_s
        return await self._once(member.link, call, on_text, stall_s)

    async def _once(self, link: Link, call: _Call, on_text: Callable[[str], None] | None, stall_s: float) -> ModelReply:
        limit_s = max(0.0, min(call.left_s(), self._call_timeout_s))
        try:
            reply = await link.call(call.request, on_text, timeout=limit_s, stall_s=stall_s)
        except BaseException as error:
            call.used.add(link, billed(error))
            raise
        call.used.add(link, reply.usage)
        return reply

    def _delay_s(self, failure: Failure, attempt: int, left_s: float, *, last: bool, full: bool) -> float | None:
        """Return how long to wait before the next try of this model, None for no such try."""
        policy = self._policy
        match failure:
            case ModelRejected() | TimeoutError():
                return None
            case EmptyAnswer():
                attempts = 2
            case Stalled() if not full:
                return None
            case _:
                attempts = policy.last_attempts if last else policy.attempts
        if attempt >= attempts:
            return None
        backoff_s = min(policy.first_delay_s * 2 ** (attempt - 1), policy.longest_delay_s)
        delay_s = max(_wish_s(failure), backoff_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret
        return delay_s if delay_s < min(left_s, policy.longest_wait_s) else None

    def _tell(self, member: _Member, call: _Call, failure: Failure, attempt: int, delay_s: float | None) -> None:
        self._say(
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
