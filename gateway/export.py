"""The commands that take a session out: ``export`` writes it as one JSON document, ``replay`` runs it again.

Both read the gateway that runs, or its database when none does. Agent code never runs in this process: the tools are
listed, and the turns replayed, by a process of the worker's own.
"""

from __future__ import annotations

import asyncio
import datetime
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import msgspec

from shared.errors import NotFound
from shared.redaction import Redaction
from shared.session_files import read_log, session_log_path
from shared.settings import Settings
from shared.store.port import Store
from worker.pool.worker_config import known_secrets

#: how a running gateway is asked: settings, method, path; None if none runs
Ask = Callable[[Settings, str, str], Awaitable[bytes | None]]
Opened = Callable[[Settings], Awaitable[Store]]


class SessionRecord(msgspec.Struct, frozen=True):
    """A session as the store has it; ``updated_at`` is in unix seconds, ``earlier`` was said before the last /new."""

    key: str
    platform: str
    updated_at: float
    messages: tuple[msgspec.Raw, ...]
    todos: list[dict[str, Any]]
    earlier: tuple[msgspec.Raw, ...] = ()


async def read_session(settings: Settings, session: str, ask: Ask, opened: Opened) -> SessionRecord | None:
    """Return a session, None if there is none."""
    answer = await ask(settings, "GET", f"/v1/sessions/{quote(session, safe='')}?earlier=1")
    if answer is not None:
        return msgspec.json.decode(answer, type=SessionRecord)
    store = await opened(settings)
    try:
        row = await store.sessions.summary(session)
        known = await store.sessions.conversation(session)
        earlier = tuple(msgspec.Raw(message) for message in await store.sessions.earlier(session))
    except NotFound:
        return None
    finally:
        await store.close()
    todos: list[dict[str, Any]] = msgspec.json.decode(known.todo) if known.todo else []
    messages = tuple(msgspec.Raw(message) for message in known.messages)
    return SessionRecord(row.key, row.platform, row.updated_at, messages, todos, earlier)


def document(settings: Settings, record: SessionRecord) -> bytes:
    """Return a session as one JSON document, of the keys the first session logs had; secrets are ``***``."""
    model = settings.models[0]
    found = {
        "session_id": record.key,
        "model": model.model,
        "base_url": model.base_url,
        "platform": record.platform,
        "session_start": _iso(_started_at(settings, record)),
        "last_updated": _iso(record.updated_at),
        "system_prompt": settings.system_prompt,
        "tools": _tools(settings),
        "message_count": len(record.messages),
        "messages": record.messages,
        "earlier_messages": record.earlier,
        "todos": record.todos,
    }
    return Redaction(known_secrets(settings)).clean(msgspec.json.format(msgspec.json.encode(found), indent=1))


def replay(record: SessionRecord) -> int:
    """Run a session again in a process of its own, which prints where it differs; return its exit status."""
    recording = msgspec.json.encode({"session": record.key, "messages": record.messages, "todos": record.todos})
    return subprocess.run([sys.executable, "-m", "worker.replay"], input=recording, check=False).returncode


async def take_out(settings: Settings, command: str, session: str, ask: Ask, opened: Opened) -> int | None:
    """Do a command for a session; return its exit status, None if there is no such session."""
    record = await read_session(settings, session, ask, opened)
    if record is None:
        return None
    if command == "replay":
        return await asyncio.to_thread(replay, record)
    sys.stdout.buffer.write(await asyncio.to_thread(document, settings, record) + b"\n")
    return 0


def _started_at(settings: Settings, record: SessionRecord) -> float:
    """Return when the session began, as its log tells; without one, when it was used last."""
    path = session_log_path(settings.data_dir / "logs", record.key)
    try:
        return float(next((line["at"] for line in read_log(path) if "at" in line), record.updated_at))
    except (OSError, TypeError, ValueError):
        return record.updated_at


def _tools(settings: Settings) -> msgspec.Raw:
    """Return what a model is told of the tools; none where a module cannot be loaded, which is said on stderr."""
    hosts = [f"--fetch={host}" for host in settings.fetch_allow]
    command = [sys.executable, "-m", "worker.tool_list", *hosts, *settings.tool_modules]
    listed = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - the settings name the modules
    return msgspec.Raw(listed.stdout.strip() if listed.returncode == 0 else b"[]")


def _iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat()
