"""Keeps who changed something, over the API or by a command, and who showed a wrong key: a row, a log line, a count.

It is written after the act, and an act is not undone because the store cannot take its row; the log line is there then.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from cachetools import TTLCache
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.command_acts import CommandActs
from gateway.responses import json_response, list_limit
from shared.errors import StoreError
from shared.events import Event, Events
from shared.store.port import Store
from shared.traces import LETTER_PURGED, LETTER_RETRIED, AuditEntry

#: longest text of a field, characters
MOST_TEXT = 200
#: an address that shows wrong keys gets a row once in this time, and all addresses, which a proxy only names, no more
#: rows than this; each try is counted
REFUSED_AGAIN_S, MOST_REFUSED_ROWS = 60.0, 10

#: how long an act of a command waits for its row at the most
TAKE_S = 1.0

KEY_REFUSED = "key_refused"

#: what is done, by method and route; what is not here is named by both
ACTIONS = {
    ("DELETE", "/v1/sessions/{rest:path}"): "session_deleted",
    ("POST", "/v1/sessions/{rest:path}"): "turn_interrupted",
    ("POST", "/v1/workers/{worker:path}/kill"): "worker_killed",
    ("POST", "/v1/workers/{n:int}/recycle"): "worker_recycled",
    ("POST", "/v1/pairings/{code}/approve"): "pairing_approved",
    ("POST", "/v1/pairings/{sender:path}/revoke"): "pairing_revoked",
    ("POST", "/v1/dead/{id}/retry"): LETTER_RETRIED,
    ("DELETE", "/v1/dead/{id}"): LETTER_PURGED,
    ("POST", "/v1/dead/retry"): "dead_letters_retried",
    ("POST", "/v1/dead/purge"): "dead_letters_purged",
}


class Audit:
    """Writes the audit trail and answers ``GET /v1/audit``."""

    def __init__(self, store: Store, events: Events, data_dir: Path) -> None:
        self._store = store
        self._events = events
        self._commands = CommandActs(data_dir)
        self._taking = asyncio.Lock()
        self._refused: TTLCache[str, bool] = TTLCache(MOST_REFUSED_ROWS + 1, REFUSED_AGAIN_S)

    def routes(self) -> list[Route]:
        """Return the route; whoever mounts it guards it."""
        return [Route("/v1/audit", self.show)]

    async def run(self) -> None:
        """Take what commands did, for ever."""
        while True:
            await self._take()
            await asyncio.sleep(TAKE_S)

    async def _take(self) -> None:
        async with self._taking:
            with suppress(StoreError, OSError):  # it lies there until it is a row
                for entry in await self._commands.take(self._store):
                    self._tell(entry)

    async def show(self, request: Request) -> Response:
        """Answer the newest entries, newest first; ``?limit=`` is how many."""
        await self._take()
        return json_response({"audit": await self._store.audit.latest(list_limit(request))})

    async def done(self, request: Request, route: str, actor: str) -> None:
        """Keep that a request has changed something: what its path names, or what it has noted as its target."""
        action = ACTIONS.get((request.method, route), f"{request.method} {route}")
        named = " ".join(str(value) for value in request.path_params.values())
        target = getattr(request.state, "audit_target", named)
        await self._keep(action, actor, target, origin_of(request))

    async def key_refused(self, request: Request) -> None:
        """Keep that somebody showed a key that is none, or that may not do this."""
        origin = origin_of(request)
        self._refused.expire()
        if origin in self._refused or len(self._refused) >= MOST_REFUSED_ROWS:
            self._events.emit(Event.AUDIT, action=KEY_REFUSED, target=request.url.path[:MOST_TEXT], origin=origin)
            return
        self._refused[origin] = True
        await self._keep(KEY_REFUSED, "", request.url.path, origin)

    async def _keep(self, action: str, actor: str, target: str, origin: str) -> None:
        entry = AuditEntry(time.time(), action, actor, target[:MOST_TEXT], origin)
        self._tell(entry)
        with suppress(StoreError):
            await self._store.audit.add(entry)

    def _tell(self, entry: AuditEntry) -> None:
        self._events.emit(Event.AUDIT, action=entry.action, actor=entry.actor, target=entry.target, origin=entry.origin)


def origin_of(request: Request) -> str:
    """Return the address that a request came from, with the one that a proxy names, which nothing proves."""
    address = request.client.host if request.client else ""
    named = request.headers.get("x-forwarded-for", "")[:MOST_TEXT]
    return f"{address} for {named}" if named else address
