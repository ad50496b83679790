"""The routes of dead letters: ``GET /v1/dead``, and retry and purge of one, or of all that fit a filter.

A filter is ``kind`` (message, model, reply), ``platform``, and ``older``: seconds since it died, at the least. It comes
as the query of a GET, and as the JSON body of ``POST /v1/dead/retry`` and ``/purge``, which may name ``ids`` too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.intake import Wakeable
from gateway.responses import LIST_LIMIT, Refused, json_response, read_body
from gateway.turn_broadcast import TurnBroadcast
from shared.errors import NotFound
from shared.messages import DeadKind
from shared.store.port import Store
from shared.traces import DeadLetter

#: letters that one bulk request acts on at the most; who has more asks again
BULK_LIMIT = 10_000
BODY_LIMIT_BYTES = 1_048_576


class DeadFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters are meant; what is not given does not matter."""

    kind: DeadKind | None = None
    platform: str | None = None
    #: seconds since it died, at the least
    older: float = 0.0
    ids: frozenset[str] | None = None

    def fits(self, letter: DeadLetter, now: float) -> bool:
        """Tell whether a letter is meant."""
        return (
            self.kind in {None, letter.kind}
            and self.platform in {None, letter.platform}
            and letter.dead_at <= now - self.older
            and (self.ids is None or letter.id in self.ids)
        )


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
        """Answer the dead letters that fit, newest first."""
        wanted = filter_of(dict(request.query_params))
        letters = await self._fitting(wanted, LIST_LIMIT if wanted == DeadFilter() else BULK_LIMIT)
        return json_response({"dead": letters[:LIST_LIMIT]})

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
        done = []
        for letter in await self._fitting(filter_of(body or b"{}"), BULK_LIMIT):
            try:
                await act(letter.id)
            except NotFound:
                continue  # another request was faster
            done.append(letter.id)
        return json_response({"state": state, "count": len(done), "ids": done})

    async def _retry(self, message_id: str) -> None:
        await self._store.inbox.retry_dead(message_id)
        self._pool.wake()
        self._delivery.wake()
        self._broadcast.tell("dead", message=message_id, state="waiting")

    async def _purge(self, message_id: str) -> None:
        await self._store.inbox.purge_dead(message_id)
        self._broadcast.tell("dead", message=message_id, state="purged")

    async def _fitting(self, wanted: DeadFilter, limit: int) -> list[DeadLetter]:
        now = time.time()
        return [letter for letter in await self._store.inbox.dead(limit) if wanted.fits(letter, now)]


def filter_of(given: bytes | dict[str, str]) -> DeadFilter:
    """Read a filter from a JSON body or a query. Raises Refused."""
    try:
        if isinstance(given, bytes):
            return msgspec.json.decode(given, type=DeadFilter)
        return msgspec.convert(given, DeadFilter, strict=False)
    except msgspec.MsgspecError as error:
        raise Refused(400, f"no such filter: {error}; kind is message, model or reply, older is in seconds") from None
