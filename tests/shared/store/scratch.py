"""What the store tests write again and again, on every engine there is and on a clock that the test sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from shared.command import Command, CommandKind
from shared.messages import Arrival, Claim, Conversation, Dead, Ended, Receipt, Reply, TurnStatus, Usage
from shared.store import Store, open_store
from shared.store.engine import Database
from shared.store.postgres.engine import PostgresEngine
from shared.store.sql import claims
from shared.store.sql.tables import history, sessions
from tests.postgres_server import shared_server

#: an engine's name and how to make an unopened store of it in a directory
Engine = Callable[[Path, Callable[[], float], int, float], Store]


def sqlite(directory: Path, clock: Callable[[], float], inbox_limit: int, sender_share: float = 1.0) -> Store:
    """Make a store of the embedded engine."""
    return open_store("", directory / "data", inbox_limit=inbox_limit, sender_share=sender_share, clock=clock)


_databases: dict[Path, str] = {}


def postgres(directory: Path, clock: Callable[[], float], inbox_limit: int, sender_share: float = 1.0) -> Store:
    """Make a store on the test process's server: one database, emptied for every new directory."""
    server = shared_server()
    url = next(iter(_databases.values()), None) or server.url()
    if directory not in _databases:
        _databases[directory] = url
        empty(url)
    return Store(PostgresEngine(url, clock), inbox_limit, sender_share)


def postgres_url(directory: Path) -> str:
    """Return where the database of a store lies that was made in this directory."""
    return _databases[directory]


def empty(url: str) -> None:
    """Remove all rows of a database, if it has tables."""
    with psycopg.connect(url, autocommit=True) as opened:
        names = [str(name) for (name,) in opened.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        tables = [name for name in names if name not in {"schema_version", "sequences"}]
        if tables:
            opened.execute("; ".join(f"DELETE FROM {name}" for name in tables).encode())
            opened.execute("ALTER SEQUENCE epoch RESTART")


ENGINES: dict[str, Engine] = {"sqlite": sqlite, "postgres": postgres}


def run_machine(machine: type[RuleBasedStateMachine], engine: str, *, steps: int) -> None:
    """Drive a state machine over an engine: many runs of this many steps, the same ones every time."""
    examples = 40 if engine == "sqlite" else 8
    run_state_machine_as_test(
        type("Machine", (machine,), {"engine": engine}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )


async def rewrite(store: Store, session: str, conversation: Conversation) -> int:
    """Replace the history and todo list of a session as another program may do, and return its new version."""

    def job(database: Database) -> int:
        (version,) = database.next_epochs(1)
        database.run("UPDATE sessions SET version = ?, epoch = ? WHERE session_key = ?", (version, version, session))
        had_list = history.read_todo(database, session) is not None
        begin, _ = sessions.began(database, session)
        database.run("DELETE FROM history WHERE session_key = ? AND position >= ?", (session, begin))
        database.run("DELETE FROM todos WHERE session_key = ?", (session,))
        history.append(database, session, conversation.messages)
        if had_list or conversation.todo is not None:
            history.write_todo(database, session, conversation.todo or b"[]")
        return version

    return await store.engine.run(session, job)


async def adopt(store: Store, host: str) -> int:
    """Take over the sessions of all other hosts, which are dead; return how many."""

    def release(database: Database) -> int:
        foreign = sessions.of_other_hosts(database, host)
        claims.release_lost(database, foreign)
        return len(foreign)

    return await store.engine.run("", release)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Scratch:
    """One database of one engine, opened and reopened, with what tests write again and again."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self._numbers = itertools.count(1)
        self.clock = Clock()
        self.store: Store

    async def open(self, inbox_limit: int = 1000, sender_share: float = 1.0) -> Store:
        """Open the database, again if it is open."""
        await self.close()
        self.store = self._engine(self._directory, self.clock, inbox_limit, sender_share)
        await self.store.open()
        return self.store

    async def close(self) -> None:
        """Close the database if it is open."""
        if hasattr(self, "store"):
            await self.store.close()

    def arrival(
        self,
        session: str = "a:b:c",
        text: str = "hello",
        dedupe: str | tuple[str, ...] | None = None,
        history: tuple[bytes, ...] = (),
        **more: Any,
    ) -> Arrival:
        """Return a new message, ``more`` of its fields as given; without a key of its own it is no duplicate."""
        number = next(self._numbers)
        keys = f"key-{number}" if dedupe is None else dedupe
        arrival = Arrival(
            id=f"msg_{number:04}",
            session=session,
            platform=session.partition(":")[0],
            user="ann",
            text=text,
            reply=b'{"to": "ann"}',
            dedupe=(keys,) if isinstance(keys, str) else keys,
            dedupe_ttl_s=3600,
            at=self.clock.now,
            history=history,
        )
        return msgspec.structs.replace(arrival, **more)

    async def accept(self, session: str = "a:b:c", text: str = "hello") -> str:
        """Accept a new message and return its id."""
        return (await self.store.inbox.accept(self.arrival(session, text))).message_id

    async def order(self, kind: CommandKind, session: str = "a:b:c") -> Receipt:
        """Give a chat command, whose answers are single words."""
        words = Command(kind, "done", "nothing", "waits", "stopped", "withdrawn")
        return await self.store.inbox.accept(self.arrival(session, f"/{kind}", command=words))

    async def adopt(self, host: str) -> int:
        """Take over the sessions of all other hosts, which are dead; return how many."""
        return await adopt(self.store, host)

    async def next_ready_in_s(self) -> float | None:
        """Return the seconds until a look for claims can find one."""
        return (await self.store.claims.claim("host", 0, 30)).next_in_s

    async def next_due_in_s(self) -> float | None:
        """Return the seconds until a look for due replies can find one."""
        return (await self.store.outbox.due("host", 0, 30)).next_in_s

    async def claim_one(self, host: str = "host", *, suspects: bool = False) -> Claim:
        """Claim the one session that is ready."""
        (claim,) = (await self.store.claims.claim(host, 10, 30, suspects=suspects)).claims
        return claim

    async def accept_and_claim(self, session: str = "a:b:c") -> Claim:
        """Accept a message and claim its session, the only one that is ready."""
        await self.accept(session)
        return await self.claim_one()

    async def answer(
        self, reply: str, session: str = "a:b:c", *, messages: tuple[bytes, ...] = (), todo: bytes | None = None
    ) -> str:
        """Accept a message, answer it and return its id."""
        message = await self.accept(session)
        claim = await self.claim_one()
        await self.store.claims.settle(claim.ref, Ended(TurnStatus.REPLIED, reply, messages, todo))
        return message

    async def die(self, text: str, session: str = "a:b:c") -> str:
        """Accept a message, make it a dead letter and return its id."""
        message = await self.accept(session, text)
        claim = await self.claim_one()
        await self.store.claims.settle(claim.ref, Dead(3, "worker died", "It failed.", "File …"))
        return message

    async def send_all(self) -> list[Reply]:
        """Send every reply that is due, until none is, and return them in the order sent."""
        sent: list[Reply] = []
        while due := (await self.store.outbox.due("host", 10, 30)).replies:
            for reply in due:
                sent.append(reply)
                await self.store.outbox.delivered(reply, f"sent-{len(sent)}")
        return sent


def ended(
    text: str,
    *,
    status: TurnStatus = TurnStatus.REPLIED,
    messages: tuple[bytes, ...] = (b'{"role":"user"}',),
    todo: bytes | None = None,
    usage: Usage = Usage(),  # noqa: B008 - frozen
    worker: str = "",
    error: str = "",
    joined: tuple[str, ...] = (),
) -> Ended:
    """Return the outcome of a turn that came to an end."""
    return Ended(status, text, messages, todo, usage, worker, error, joined=joined)
