"""A session as the store has it, and the JSON document that ``export`` makes of it.

It is read from the gateway that runs, or from its database when none does. Agent code never runs in this process: the
tools are listed by a process of the worker's own.
"""

from __future__ import annotations

import datetime
import subprocess
from typing import Any

import msgspec

from gateway.cli.command import CommandFailed, Invocation
from gateway.cli.database import database_name, opened_store
from gateway.cli.running_gateway import find_gateway, segment
from gateway.own_module import own_module_command
from shared.errors import NotFound
from shared.redaction import Redaction
from shared.session_files import read_log, session_log_path
from shared.settings import Settings
from worker.pool.worker_config import known_secrets


class SessionRecord(msgspec.Struct, frozen=True):
    """A session as the store has it; ``updated_at`` is in unix seconds, ``earlier`` was said before the last /new."""

    key: str
    platform: str
    updated_at: float
    messages: tuple[msgspec.Raw, ...]
    todos: list[dict[str, Any]]
    earlier: tuple[msgspec.Raw, ...] = ()


async def read_session(invocation: Invocation, session: str) -> SessionRecord:
    """Return a session. Raises CommandFailed where there is none."""
    gateway = await find_gateway(invocation.settings)
    if gateway is not None:
        answer = await gateway.ask("GET", f"/v1/sessions/{segment(session)}?earlier=1", f"session {session}")
        try:
            return msgspec.json.decode(answer, type=SessionRecord)
        except msgspec.DecodeError as error:
            raise CommandFailed(f"the gateway at {gateway.url} is of another release: {error}") from None
    async with opened_store(invocation) as store:
        try:
            row = await store.sessions.summary(session)
        except NotFound:
            where = database_name(invocation.settings)
            raise CommandFailed(f"there is no session {session} in {where}") from None
        known = await store.sessions.conversation(session)
        earlier = tuple(msgspec.Raw(message) for message in await store.sessions.earlier(session))
    todos: list[dict[str, Any]] = msgspec.json.decode(known.todo) if known.todo else []
    messages = tuple(msgspec.Raw(message) for message in known.messages)
    return SessionRecord(row.key, row.platform, row.updated_at, messages, todos, earlier)


def document(invocation: Invocation, record: SessionRecord) -> bytes:
    """Return a session as one JSON document, of the keys the first session logs had; secrets are ``***``."""
    settings = invocation.settings
    model = settings.models[0]
    found = {
        "session_id": record.key,
        "model": model.model,
        "base_url": model.base_url,
        "platform": record.platform,
        "session_start": _iso(_started_at(invocation, record)),
        "last_updated": _iso(record.updated_at),
        "system_prompt": settings.system_prompt,
        "tools": _tools(settings),
        "message_count": len(record.messages),
        "messages": record.messages,
        "earlier_messages": record.earlier,
        "todos": record.todos,
    }
    return Redaction(known_secrets(settings)).clean(msgspec.json.format(msgspec.json.encode(found), indent=1))


def _started_at(invocation: Invocation, record: SessionRecord) -> float:
    """Return when the session began, as its log tells; where that cannot be read, when it was used last."""
    path = session_log_path(invocation.settings.data_dir / "logs", record.key)
    try:
        for line in read_log(path):
            if line.get("event") == "log_segment_damaged":
                invocation.terminal.note(f"the log {path} is damaged and passed over there: {line.get('error')}")
            at = line.get("at")
            if isinstance(at, int | float) and _is_a_date(at):
                return float(at)
    except FileNotFoundError:
        pass
    except OSError as error:
        invocation.terminal.note(f"the log {path} cannot be read: {error}")
    return record.updated_at


def _tools(settings: Settings) -> msgspec.Raw:
    """Return what a model is told of the tools; none where a module cannot be loaded, which is said on stderr."""
    hosts = [f"--fetch={host}" for host in settings.fetch_allow]
    command = own_module_command("worker.tool_list", *hosts, *settings.tool_modules)
    listed = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - the settings name the modules
    return msgspec.Raw(listed.stdout.strip() if listed.returncode == 0 else b"[]")


def _is_a_date(at: float) -> bool:
    """Tell whether these unix seconds are a date: of a damaged line they may be anything."""
    try:
        datetime.datetime.fromtimestamp(at, datetime.UTC)
    except (OverflowError, OSError, ValueError):
        return False
    return True


def _iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat()
