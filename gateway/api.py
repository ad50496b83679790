"""The JSON routes under ``/v1`` but the completions: sessions, messages, workers and pairings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.call_history import CallHistory
from gateway.pairings import Pairings
from gateway.responses import Refused, json_response, list_limit
from gateway.running_turns import RunningTurns
from gateway.session_names import titles_entry
from gateway.trace_text import trace_message
from gateway.turn_broadcast import TurnBroadcast
from gateway.worker_table import turn_list, worker_table
from shared.budgets import Account, Budgets, Spend
from shared.errors import NotFound
from shared.profiles import Profiles
from shared.redaction import Redaction
from shared.session_files import log_line, session_log_path
from shared.session_segments import has_log, log_pieces, remove_log
from shared.store.port import Store
from shared.traces import SessionQuery
from shared.usage import usage_entry
from worker.pool import Pool

SESSIONS = "/v1/sessions/"
TURNS_LIMIT = 100
ACTIONS = frozenset({"log", "interrupt"})


class Api:
    """Answers for the store and the pool; ``log_dir`` is where the session logs of one host lie."""

    def __init__(
        self,
        store: Store,
        pool: Pool,
        broadcast: TurnBroadcast,
        log_dir: Path,
        redaction: Redaction,
        budgets: Budgets,
        pairings: Pairings,
        profiles: Profiles,
        calls: CallHistory,
    ) -> None:
        self._store = store
        self._pool = pool
        self._turns = RunningTurns(store, pool)
        self._broadcast = broadcast
        self._log_dir = log_dir
        self._redaction = redaction
        self._budgets = budgets
        self._pairings = pairings
        self._profiles = profiles
        self._calls = calls

    def routes(self) -> list[Route]:
        """Return the routes; whoever mounts them guards them."""
        return [
            Route("/v1/sessions", self.list_sessions),
            Route(SESSIONS + "{rest:path}", self.session, methods=["GET", "POST", "DELETE"]),
            Route("/v1/messages/{id}", self.message),
            Route("/v1/budgets", self.budgets),
            Route("/v1/workers", self.workers),
            Route("/v1/turns", self.turns),
            Route("/v1/workers/{worker:path}/kill", self.kill_worker, methods=["POST"]),
            Route("/v1/workers/{n:int}/recycle", self.recycle_worker, methods=["POST"]),
            Route("/v1/pairings", self.pairings),
            Route("/v1/pairings/{code}/approve", self.approve, methods=["POST"]),
            Route("/v1/pairings/{sender:path}/revoke", self.revoke, methods=["POST"]),
        ]

    async def list_sessions(self, request: Request) -> Response:
        """Answer a page of sessions, latest first; ``next`` is what ``?after=`` takes for the page behind it."""
        found = await self._store.sessions.page(session_query(request))
        following = f"{found.after[0]!r},{found.after[1]}" if found.after else None
        return json_response({"sessions": found.sessions, "next": following})

    async def session(self, request: Request) -> Response:
        """Answer what concerns one session: itself, its log, an interrupt, its end."""
        key, action = session_and_action(request)
        wanted = request.query_params
        show = partial(
            self._show,
            last=last_wanted(request),
            earlier=wanted.get("earlier") == "1",
            times=wanted.get("times") == "1",
        )
        doors: dict[tuple[str, str], Callable[[str], Awaitable[Response]]] = {
            ("GET", ""): show,
            ("HEAD", ""): show,
            ("DELETE", ""): self._delete,
            ("GET", "log"): self._log,
            ("HEAD", "log"): self._log,
            ("POST", "interrupt"): self._interrupt,
        }
        door = doors.get((request.method, action))
        if door is None:
            allowed = ", ".join(method for method, served in doors if served == action)
            raise HTTPException(405, headers={"Allow": allowed})
        return await door(await self._store.sessions.resolve(key))

    async def _show(self, key: str, last: int | None, *, earlier: bool, times: bool) -> Response:
        """Answer one session; with ``earlier`` also what was said before, with ``times`` when each message was."""
        summary = await self._store.sessions.summary(key)
        todo = await self._turns.todo(key)
        conversation = await self._store.sessions.conversation(key, last)
        shown: dict[str, object] = msgspec.to_builtins(summary)
        shown["messages"] = [msgspec.Raw(message) for message in conversation.messages]
        shown["todos"] = msgspec.Raw(todo)
        shown["turn"] = await self._turns.row(key)
        if question := await self._store.sessions.question(key):
            shown["question"] = question
        shown["profile"] = await self._profile(key)
        shown["pending"] = await self._store.inbox.unanswered(key)
        shown["usage"] = usage_entry(await self._store.spending.usage(key))
        if times:
            shown["times"] = await self._store.sessions.times(key, len(conversation.messages))
        if earlier:
            shown["earlier"] = [msgspec.Raw(message) for message in await self._store.sessions.earlier(key)]
        return json_response(shown)

    async def _profile(self, key: str) -> str:
        """Return the name of the profile that held for a session's last message, empty for none."""
        if not self._profiles.profiles:
            return ""
        try:
            last = await self._store.inbox.trace(await self._store.inbox.latest(key))
        except NotFound:
            return self._profiles.name_of(key, "")
        return self._profiles.name_of(key, last.user)

    async def _log(self, key: str) -> Response:
        if self._store.engine.shared:  # each host has the logs of what it ran; what is shared is the history
            await self._store.sessions.summary(key)
            lines = history_log(self._store, key, self._redaction)
            return StreamingResponse(lines, media_type="application/x-ndjson")
        path = session_log_path(self._log_dir, key)
        if not await asyncio.to_thread(has_log, path):
            await self._store.sessions.summary(key)  # an unknown session is a 404, a session without a log an empty one
            return Response(b"", media_type="application/x-ndjson")
        return StreamingResponse(pieces_of(path), media_type="application/x-ndjson")

    async def _interrupt(self, key: str) -> Response:
        await self._store.sessions.summary(key)
        return json_response({"session": key, "interrupted": await self._pool.interrupt(key)})

    async def _delete(self, key: str) -> Response:
        await self._pool.interrupt(key)
        await self._store.sessions.delete(key)
        await asyncio.to_thread(remove_log, session_log_path(self._log_dir, key))
        self._pool.removed(key)
        self._broadcast.tell("deleted", session=key)
        return json_response({"session": key, "deleted": True})

    async def message(self, request: Request) -> Response:
        """Answer where one message is."""
        found = await trace_message(self._store, self._pool.running_turn, request.path_params["id"])
        parts = self._calls.parts(found.session, found.id, running=found.running)
        title = (await self._store.sessions.titles([found.session])).get(found.session, "")
        shown = {"title": title, "usage": usage_entry(found.usage), "timeline": parts}
        return json_response(msgspec.structs.asdict(found) | shown)

    async def budgets(self, _: Request) -> Response:
        """Answer every budget with who has spent most of it."""
        accounts = await self._store.spending.accounts(self._budgets)
        return json_response({"budgets": [account_entry(account, time.time()) for account in accounts]})

    async def workers(self, _: Request) -> Response:
        """Answer the worker table."""
        return json_response(worker_table(self._pool.snapshot(), await self._pool.hosts()))

    async def turns(self, _: Request) -> Response:
        """Answer the turns that run or wait for a slot, those that have run longest first."""
        turns = turn_list(self._pool.turn_rows(TURNS_LIMIT), await self._pool.hosts())
        titles = await titles_entry(self._store, [str(turn["session"]) for turn in turns])
        return json_response({"turns": turns} | titles)

    async def kill_worker(self, request: Request) -> Response:
        """Kill one worker, of another host by ``HOST/n``; its turns resume in another."""
        worker = request.path_params["worker"]
        host, _, n = worker.rpartition("/")
        if not (n.isascii() and n.isdigit() and len(n) < 10) or not await self._pool.kill_worker(int(n), host):
            raise Refused(404, f"there is no worker {worker}")
        return json_response({"n": int(n), "killed": True} | ({"host": host} if host else {}))

    async def recycle_worker(self, request: Request) -> Response:
        """Replace one worker once a spare is ready; its turns park at their next step and resume elsewhere."""
        n = request.path_params["n"]
        if not await self._pool.recycle_worker(n):
            raise Refused(404, f"there is no worker {n} that could be replaced now")
        return json_response({"n": n, "recycled": True})

    async def pairings(self, _: Request) -> Response:
        """Answer the pairing codes that wait to be approved, and who was let in by one."""
        waiting = await self._store.sessions.strangers()
        pairings = [{"sender": sender, "code": code} for sender, code in waiting]
        return json_response({"pairings": pairings, "approved": await self._store.sessions.let_in()})

    async def approve(self, request: Request) -> Response:
        """Let the sender of a pairing code in."""
        sender = await self._pairings.approve(request.path_params["code"])
        request.state.audit_target = sender
        self._broadcast.tell("pairing", sender=sender, state="approved")
        return json_response({"sender": sender, "approved": True})

    async def revoke(self, request: Request) -> Response:
        """Let a sender in no longer."""
        sender = request.path_params["sender"]
        await self._pairings.revoke(sender)
        self._broadcast.tell("pairing", sender=sender, state="revoked")
        return json_response({"sender": sender, "approved": False})


def account_entry(account: Account, now: float) -> dict[str, object]:
    """Return one budget as ``GET /v1/budgets`` shows it; amounts are in its unit."""
    budget = account.budget
    return {
        "budget": budget.scope,
        "unit": budget.unit,
        "window": budget.window,
        "limit": budget.shown(Spend(budget.limit, budget.limit)),
        "free_at": budget.window.ends(now),
        "held": budget.shown(account.held),
        "spent": [{"by": owner, "amount": budget.shown(spend)} for owner, spend in account.spenders],
    }


def last_wanted(request: Request) -> int | None:
    """Return how many of the latest messages ``?last=`` asks for, None for all of them. Raises Refused."""
    last = request.query_params.get("last")
    if last is not None and not (last.isascii() and last.isdigit() and len(last) < 10):
        raise Refused(400, "last has to be a whole number of messages", param="last")
    return None if last is None else int(last)


def session_query(request: Request) -> SessionQuery:
    """Read which sessions are asked for: ``q``, ``platform``, ``state``, ``limit``, ``after``. Raises Refused."""
    given = request.query_params
    limit, state = list_limit(request), given.get("state", "")
    if state not in {"", "running", "waiting"}:
        raise Refused(400, "state has to be running or waiting", param="state")
    after = None
    if "after" in given:
        updated_at, comma, key = given["after"].partition(",")
        try:
            after = (float(updated_at), key)
        except ValueError:
            comma = ""
        if not comma:
            raise Refused(400, "after has to be the next of an earlier page", param="after")
    return SessionQuery(given.get("q", "").strip(), given.get("platform", ""), state, after, limit)


async def history_log(store: Store, session: str, redaction: Redaction) -> AsyncGenerator[bytes]:
    """Yield a session's log as any gateway of a shared database makes it of the history."""
    at = 0.0
    async for logged in store.sessions.logged(session):
        at = logged.at or at
        yield redaction.clean(log_line(at, session, logged.message, logged.message_id)).replace(b"\n", b" ") + b"\n"


async def pieces_of(path: Path) -> AsyncGenerator[bytes]:
    """Yield a log, its segments first; it may grow meanwhile, so its length is not promised."""
    pieces = log_pieces(path)
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece


def session_and_action(request: Request) -> tuple[str, str]:
    """Split the undecoded path into a session key and an action, ``""`` for the session itself.

    A key is one percent-encoded segment, so an encoded slash belongs to it; a key written with plain slashes is
    understood too, as long as its last part is no action.
    """
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    rest = raw.decode("latin-1").removeprefix(request.scope.get("root_path", "")).removeprefix(SESSIONS)
    key, slash, last = rest.rpartition("/")
    action = last if slash and last in ACTIONS else ""
    key = unquote(key if action else rest)
    if not key:
        raise HTTPException(404)
    return key, action
