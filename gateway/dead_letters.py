"""The routes of dead letters: ``GET /v1/dead``, and retry and purge of one, or of all that fit a filter.

A filter is ``kind`` (message, model, reply), ``platform``, ``q``: what the words, the session, the sender or the error
hold, and ``older``: seconds since it died, at the least. It comes as the query of a GET, which goes through them a page
at a time, and as the JSON body of ``POST /v1/dead/retry`` and ``/purge``, which may name ``ids`` too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dead_filter import DeadFilter, fitting
from gateway.intake import Wakeable
from gateway.responses import Refused, json_response, list_limit, read_body
from gateway.session_names import titles_entry
from gateway.turn_broadcast import TurnBroadcast
from shared.errors import NotFound
from shared.store.port import Store
from shared.traces import DeadLetter, DeadMark

#: letters that one bulk request acts on at the most; who has more asks again
BULK_LIMIT = 10_000
BODY_LIMIT_BYTES = 1_048_576
#: letters that a bulk request acts on at once
AT_ONCE = 100


class DeadLetters:
    """Answers for the dead letters; what is retried wakes the pool and delivery."""

    def __init__(self, store: Store, broadcast: TurnBroadcast, pool: Wakeable, delivery: Wakeable) -> None:
        self._store = store
        self._broadcast = broadcast
        self._pool = pool
        self._delivery = delivery

    def routes(self) -> list[Route]:
        """Return the routes; whoever mounts them guards them."""
        return [
            Route("/v1/dead", self.show),
            Route("/v1/dead/retry", self.retry_all, methods=["POST"]),
            Route("/v1/dead/purge", self.purge_all, methods=["POST"]),
            Route("/v1/dead/{id}", self.purge, methods=["DELETE"]),
            Route("/v1/dead/{id}/retry", self.retry, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Answer a page of the dead letters that fit, newest first.

        Where there are more, ``next`` is what ``?after=`` takes for the page behind it, and ``total`` how many there
        are, unless a filter by more than the kind would have to look at all of them for that.
        """
        given = dict(request.query_params)
        after, limit = place_of(given.pop("after", None)), list_limit(request)
        given.pop("limit", None)
        wanted = filter_of(given)
        page: list[DeadLetter] = []
        mark: DeadMark | None = None
        async for place, letter in fitting(self._store, wanted, after, limit + 1):
            if len(page) == limit:
                more = {"next": mark_text(mark)} | await self._total(wanted)
                return json_response({"dead": page} | await self._titles(page) | more)
            page.append(letter)
            mark = place
        return json_response({"dead": page} | await self._titles(page))

    async def _titles(self, letters: list[DeadLetter]) -> dict[str, dict[str, str]]:
        return await titles_entry(self._store, [letter.session for letter in letters])

    async def _total(self, wanted: DeadFilter) -> dict[str, int]:
        if wanted != DeadFilter(kind=wanted.kind):
            return {}
        counts = (await self._store.inbox.backlog()).dead_by_kind
        return {"total": counts.get(wanted.kind, 0) if wanted.kind else sum(counts.values())}

    async def retry(self, request: Request) -> Response:
        """Let a message run again, or a reply be sent again."""
        message_id = request.path_params["id"]
        await self._retry(message_id)
        return json_response({"id": message_id, "state": "waiting"})

    async def purge(self, request: Request) -> Response:
        """Remove a dead letter for good."""
        message_id = request.path_params["id"]
        await self._purge(message_id)
        return json_response({"id": message_id, "state": "purged"})

    async def retry_all(self, request: Request) -> Response:
        """Retry every dead letter that fits."""
        return await self._each(request, self._retry, "waiting")

    async def purge_all(self, request: Request) -> Response:
        """Purge every dead letter that fits."""
        return await self._each(request, self._purge, "purged")

    async def _each(self, request: Request, act: Callable[[str], Awaitable[None]], state: str) -> Response:
        body = await read_body(request, BODY_LIMIT_BYTES)
        wanted = filter_of(body or b"{}")
        if wanted.ids is not None and wanted == DeadFilter(ids=wanted.ids):
            ids = list(wanted.ids)
        else:
            ids = [letter.id async for _, letter in fitting(self._store, wanted, None, BULK_LIMIT)]
        done: list[str] = []
        for start in range(0, len(ids), AT_ONCE):  # those of one moment share their commits
            some = ids[start : start + AT_ONCE]
            ends = await asyncio.gather(*map(act, some), return_exceptions=True)
            for message_id, error in zip(some, ends, strict=True):
                if error is None:
                    done.append(message_id)
                elif not isinstance(error, NotFound):  # another request was faster, or it never was one
                    raise error
        request.state.audit_target = f"{len(done)} letters that fit {(body or b'{}').decode()}"
        return json_response({"state": state, "count": len(done), "ids": done})

    async def _retry(self, message_id: str) -> None:
        await self._store.inbox.retry_dead(message_id)
        self._pool.wake()
        self._delivery.wake()
        self._broadcast.tell("dead", message=message_id, state="waiting")

    async def _purge(self, message_id: str) -> None:
        await self._store.inbox.purge_dead(message_id)
        self._broadcast.tell("dead", message=message_id, state="purged")


def place_of(text: str | None) -> DeadMark | None:
    """Read the place that a page begins behind, None for the first one. Raises Refused."""
    if text is None:
        return None
    dead_at, seq, message_id, session = (text.split(",", 3) + [""] * 3)[:4]
    try:
        place = (float(dead_at), session, int(seq), message_id)
    except ValueError:
        place = (math.inf, "", 0, "")
    if not math.isfinite(place[0]) or not 0 <= place[2] < 2**63 or "\0" in text:
        raise Refused(400, "after has to be the next of an earlier page", param="after")
    return place


def mark_text(place: DeadMark | None) -> str:
    """Write a place as ``?after=`` takes it."""
    dead_at, session, seq, message_id = place or (0.0, "", 0, "")
    return f"{dead_at!r},{seq},{message_id},{session}"


def filter_of(given: bytes | dict[str, str]) -> DeadFilter:
    """Read a filter from a JSON body or a query. Raises Refused."""
    try:
        if isinstance(given, bytes):
            return msgspec.json.decode(given, type=DeadFilter)
        return msgspec.convert(given, DeadFilter, strict=False)
    except msgspec.MsgspecError as error:
        raise Refused(400, f"no such filter: {error}; kind is message, model or reply, older is in seconds") from None
