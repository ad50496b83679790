"""The command line: start the gateway, check it before a start, ask a running one, or its database when none runs.

Exit statuses: 0 done; 1 it could not be done; 2 a setting or the command line is wrong. One line on stderr says why.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

import httpx2
import msgspec

from gateway.export import take_out
from gateway.tool_check import check_tool_modules
from gateway.trace_text import moment, trace_lines
from shared.errors import NotFound, SettingsError, StoreError
from shared.events import Event, Events, LogWriter
from shared.settings import Settings, load_settings, scrub_environment
from shared.store import open_store
from shared.store.port import Store
from shared.traces import DeadLetter, MessageTrace
from worker.pool.worker_config import known_secrets, worker_config

ASK_TIMEOUT_S = 10.0


class CommandFailed(Exception):
    """Raised when a command cannot be done; its text is the one line for the user."""


def main(arguments: Sequence[str]) -> int:
    """Run a command and return the exit status."""
    command = parser().parse_args(arguments)
    try:
        settings = load_settings()
        match command.command:
            case None:
                return start(settings)
            case "check":
                asyncio.run(check(settings))
            case "dead":
                asyncio.run(dead(settings, command.action, command.ids))
            case "trace":
                asyncio.run(trace(settings, command.id))
            case "export" | "replay":
                return asyncio.run(take(settings, command.command, command.session))
    except SettingsError as error:
        complain(str(error))
        return 2
    except CommandFailed as error:
        complain(str(error))
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m gateway", description="Run Gatehouse, or one of its commands.")
    commands = top.add_subparsers(dest="command", metavar="{check,dead,trace,export,replay}")
    commands.add_parser("check", help="verify the settings and the database, then exit")
    letters = commands.add_parser("dead", help="list, retry or purge dead letters")
    actions = letters.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="list them, newest first").set_defaults(ids=[])
    for action, what in (("retry", "let them run again"), ("purge", "remove them for good")):
        actions.add_parser(action, help=what).add_argument("ids", nargs="+", metavar="ID")
    commands.add_parser("trace", help="tell where one message is").add_argument("id", metavar="ID")
    for name, what in (("export", "write a session as one JSON document"), ("replay", "run a recorded session again")):
        commands.add_parser(name, help=what).add_argument("session", metavar="SESSION")
    return top


def start(settings: Settings) -> int:
    """Run the gateway until a signal ends it. Raises SettingsError and CommandFailed."""
    from gateway.server import CannotStart, serve  # with all it needs it takes longer than most commands

    scrub_environment()
    warnings = check_tool_modules(settings.tool_modules, fetch_allow=settings.fetch_allow)
    log = LogWriter(known_secrets(settings))
    log.start()
    for warning in warnings:
        Events().emit(Event.TOOL_WARNING, warning=warning)
    try:
        serve(settings, log)
    except CannotStart as error:
        raise CommandFailed(str(error)) from None
    finally:
        log.stop()
    return 0


async def check(settings: Settings) -> None:
    """Verify that what the settings name can be used, and that the database opens, is sound and commits."""
    worker_config(settings)
    for warning in check_tool_modules(settings.tool_modules, fetch_allow=settings.fetch_allow):
        complain(f"warning: {warning}")
    if await running(settings):
        print("settings: ok\ndatabase: in use by the gateway that runs now")
        return
    store = await opened(settings)
    try:
        await store.verify()
        await store.check()
    except StoreError as error:
        raise CommandFailed(f"the message store cannot be used: {error}") from None
    finally:
        await store.close()
    print("settings: ok\ndatabase: ok")


async def dead(settings: Settings, action: str, ids: Sequence[str]) -> None:
    """List, retry or purge dead letters."""
    if action == "list":
        for letter in await dead_letters(settings):
            print(
                f"{letter.id}  {moment(letter.dead_at)}  {letter.session}  attempts={letter.attempts}  {letter.error}"
            )
        return
    for message_id in ids:
        await change_dead(settings, action, message_id)
        print(f"{message_id}  {'waiting' if action == 'retry' else 'purged'}")


async def dead_letters(settings: Settings) -> list[DeadLetter]:
    """Return the dead letters, from the gateway that runs or from its database."""
    answer = await ask(settings, "GET", "/v1/dead")
    if answer is not None:
        return msgspec.json.decode(answer, type=dict[str, list[DeadLetter]])["dead"]
    store = await opened(settings)
    try:
        return await store.inbox.dead()
    finally:
        await store.close()


async def change_dead(settings: Settings, action: str, message_id: str) -> None:
    """Retry or purge one dead letter."""
    method, path = (
        ("POST", f"/v1/dead/{message_id}/retry") if action == "retry" else ("DELETE", f"/v1/dead/{message_id}")
    )
    if await ask(settings, method, path) is not None:
        return
    store = await opened(settings)
    try:
        await (store.inbox.retry_dead if action == "retry" else store.inbox.purge_dead)(message_id)
    except NotFound:
        raise CommandFailed(f"there is no dead letter {message_id}") from None
    finally:
        await store.close()


async def trace(settings: Settings, message_id: str) -> None:
    """Print every stage of one message."""
    answer = await ask(settings, "GET", f"/v1/messages/{message_id}")
    if answer is not None:
        found = msgspec.json.decode(answer, type=MessageTrace)
    else:
        store = await opened(settings)
        try:
            found = await store.inbox.trace(message_id)
        except NotFound:
            raise CommandFailed(f"there is no message {message_id}") from None
        finally:
            await store.close()
    print("\n".join(trace_lines(found)))


async def take(settings: Settings, command: str, session: str) -> int:
    """Export or replay a session and return the exit status."""
    status = await take_out(settings, command, session, ask, opened)
    if status is None:
        raise CommandFailed(f"there is no session {session}")
    return status


async def running(settings: Settings) -> bool:
    """Tell whether a gateway answers where the settings say."""
    return await ask(settings, "GET", "/livez") is not None


async def ask(settings: Settings, method: str, path: str) -> bytes | None:
    """Ask the gateway that runs; None if none does. Raises CommandFailed where it refuses.

    One process holds a SQLite database, so whatever a live one knows is asked over HTTP.
    """
    if settings.port == 0:
        return None
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104 - compared, not bound
    url = f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
    headers = {"Authorization": f"Bearer {settings.api_keys[0]}"} if settings.api_keys else {}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=ASK_TIMEOUT_S, trust_env=False) as client:
        try:
            answer = await client.request(method, path)
        except httpx2.ConnectError:
            return None
        except httpx2.HTTPError as error:
            raise CommandFailed(f"the gateway at {url} does not answer: {error or type(error).__name__}") from None
    if answer.status_code >= 400:
        raise CommandFailed(f"the gateway at {url} refused: {refusal(answer.content)}")
    return answer.content


def refusal(body: bytes) -> str:
    """Return the message of an error answer."""
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


async def opened(settings: Settings) -> Store:
    """Return the opened store. Raises CommandFailed."""
    store = open_store(settings.database_url, settings.data_dir, inbox_limit=settings.inbox_limit, clock=time.time)
    try:
        await store.open()
    except StoreError as error:
        raise CommandFailed(f"the message store cannot be opened: {error}") from None
    return store


def complain(line: str) -> None:
    """Write one line for the user to stderr."""
    print(f"gatehouse: {line}", file=sys.stderr)
