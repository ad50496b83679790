"""What the server's engine makes of a server that goes away, a connection lost at the commit, and a pooler between."""

from __future__ import annotations

import asyncio
import functools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import psycopg
import pytest

from shared.errors import SettingsError, StoreUnavailable, StoreUnusable
from shared.hosts import Beat
from shared.messages import Arrival, Receipt, Shares, Usage
from shared.signals import Signal, SignalKind
from shared.store import Store, open_store
from shared.store.engine import Database
from shared.store.postgres.batch import Batch, CommitMark, Job
from shared.store.postgres.connection import Connection, DatabaseError
from shared.store.postgres.database import BatchClock, Shared
from shared.store.postgres.engine import PostgresEngine
from shared.store.postgres.lane import Lane
from shared.store.postgres.schema import translate
from shared.store.postgres.statements import statement
from shared.store.sql.schema import MIGRATIONS
from shared.store.sql.tables import begun_messages, claim_ends, due_replies, sessions
from tests.postgres_server import PostgresServer, shared_server
from tests.shared.store.scratch import Scratch, ended

BACK_WITHIN_S = 30

T = TypeVar("T")


def arrival(number: int, session: str = "") -> Arrival:
    """Return a message that nobody sent before."""
    session = session or f"a:b:{number}"
    return Arrival(f"msg_{number}", session, "a", "ann", "hello", b"{}", (f"key-{number}",), 3600, time.time())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """An open store on a server."""
    store = open_store(url, Path("/nowhere"), inbox_limit=100_000)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def durable() -> Iterator[PostgresServer]:
    """A server of the test's own, whose commits are on the disk."""
    server = PostgresServer(durable=True)
    yield server
    server.close()


async def accepted_in_time(store: Store, message: Arrival) -> Receipt:
    """Accept a message, however often the store has to be asked until the server is back."""
    until = time.monotonic() + BACK_WITHIN_S
    while True:
        try:
            return await store.inbox.accept(message)
        except StoreUnavailable:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)


async def test_no_plan_of_the_server_leases_more_rows_than_were_asked_for(tmp_path: Path) -> None:
    url = shared_server().url()
    scratch = Scratch(lambda _, clock, limit, share: Store(PostgresEngine(url, clock), limit, share), tmp_path)
    await scratch.open()
    with psycopg.connect(url, autocommit=True) as server:
        await scratch.answer("0", "a:b:0")
        server.execute("ANALYZE outbox")  # it plans for one row from here on
        for number in range(1, 6):
            await scratch.answer(f"{number}", f"a:b:{number}")
        for step in ("hashjoin", "mergejoin", "hashagg", "sort", "material", "memoize"):
            server.execute(f"SET enable_{step} = off".encode())
        leased = server.pgconn.exec_params(statement(due_replies.LEASE).text, [b"host", b"9e9", b"host", b"9e9", b"2"])
        assert leased.command_tuples == 2
        found = server.execute("SELECT text FROM outbox WHERE state = 'leased' ORDER BY text").fetchall()
        assert found == [("0",), ("1",)]
    await scratch.close()


async def test_a_server_that_is_killed_costs_nothing_acknowledged_and_is_found_again(durable: PostgresServer) -> None:
    async with opened(durable.url()) as store:
        acknowledged: list[str] = []

        async def caller(name: int) -> None:
            for number in range(name * 1000, name * 1000 + 60):
                acknowledged.append((await accepted_in_time(store, arrival(number))).message_id)
                if len(acknowledged) == 100:
                    enough.set()

        enough = asyncio.Event()
        callers = asyncio.gather(*(caller(name) for name in range(8)))
        await enough.wait()
        await asyncio.to_thread(durable.kill)
        with pytest.raises(StoreUnavailable):
            await store.check()
        await asyncio.to_thread(durable.start)
        await callers
        assert len(set(acknowledged)) == 8 * 60
    async with opened(durable.last_url) as store:
        assert await store.inbox.waiting() == 8 * 60
        for message in acknowledged:
            assert (await store.inbox.trace(message)).state == "waiting"


class LossyProxy:
    """Passes bytes on between a client and a server; ``lose_answer`` ends the next connection that commits."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lose_answer = threading.Event()
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with source, target:
            while True:
                try:
                    body = source.recv(65_536)
                    # the tag of a commit's CommandComplete message
                    if b"COMMIT\0" in body and self.lose_answer.is_set() and source.getpeername()[1] == self._server:
                        self.lose_answer.clear()
                        self.lost += 1
                        body = b""
                    if not body:
                        target.shutdown(socket.SHUT_RDWR)
                        return
                    target.sendall(body)
                except OSError:
                    return


async def test_a_commit_whose_answer_was_lost_is_not_told_as_a_failure() -> None:
    server = shared_server()
    url = server.url()
    proxy = LossyProxy(server.port)
    async with opened(url.replace(str(server.port), str(proxy.port))) as store:
        for number in range(3):
            proxy.lose_answer.set()
            receipt = await store.inbox.accept(arrival(number))
            assert (receipt.message_id, receipt.duplicate) == (f"msg_{number}", False)
            proxy.lose_answer.set()
            (claim,) = (await store.claims.claim("host", 1, 30)).claims
            proxy.lose_answer.set()
            await store.claims.settle(claim.ref, ended("hello"))
        assert proxy.lost == 9
        assert await store.inbox.waiting() == 0
        proxy.lose_answer.set()
        assert len((await store.outbox.due("host", 10, 30)).replies) == 3
        assert proxy.lost == 10
    proxy.close()


async def test_a_commit_that_was_given_up_is_not_done_later() -> None:
    url = shared_server().url()
    async with opened(url):
        pass

    def connect() -> Connection:
        return Connection(url, prepares=True, application="test")

    def batch(mark: CommitMark) -> Batch:
        work = functools.partial(write, name=f"written under {mark}")
        return Batch(
            shared, connection, [Job(asyncio.get_running_loop().create_future(), "", work)], mark, read_only=False
        )

    def write(database: Database, name: str) -> None:
        database.run("INSERT INTO probe (name, at) VALUES (?, 1.0)", (name,))

    shared, connection = Shared(None), connect()
    lane = Lane("lane", connect, shared)
    first, second = CommitMark("commit of one", b"1"), CommitMark("commit of one", b"2", b"1")
    assert len(batch(first).run()) == 1
    assert lane._answers_of_committed(batch(first), first) == []  # it was done
    assert lane._answers_of_committed(batch(second), second) is None  # it was not, and it will not be
    with pytest.raises(DatabaseError, match="gave this connection up"):
        batch(second).run()
    connection.close()
    connection = connect()
    never = CommitMark("commit of another", b"1")
    assert lane._answers_of_committed(batch(never), never) is None
    with pytest.raises(DatabaseError, match="gave this connection up"):
        batch(never).run()
    with psycopg.connect(url) as other:
        written = other.execute("SELECT name FROM probe WHERE name LIKE 'written %'").fetchall()
    assert written == [(f"written under {first}",)]
    connection.close()
    lane._drop()


async def test_a_message_alone_takes_five_round_trips_and_many_share_theirs() -> None:
    """Seven where no worker of the host that accepts it is free."""
    async with opened(shared_server().url()) as store:
        assert isinstance(store.engine, PostgresEngine)
        await store.hosts.beat(Beat("host", gateway=True, workers=1), 600)
        spent: dict[str, int] = {}

        async def count(name: str, job: Awaitable[T]) -> T:
            assert isinstance(store.engine, PostgresEngine)
            before = store.engine.traffic()[1]
            found = await job
            spent[name] = store.engine.traffic()[1] - before
            return found

        for number in range(4):  # of the second the connections know the statements
            if number < 2:
                await count("accept", store.inbox.accept(arrival(number)))
                (claim,) = (await count("claim", store.claims.claim("host", 9, 30))).claims
            else:
                receipt = await count("accept and claim", store.inbox.accept(arrival(number), "host"))
                assert receipt.claim is not None
                claim = receipt.claim
                assert (await store.inbox.trace(claim.messages[0].id)).running
            outcome = ended("hello", messages=(b"{}", b"{}"), todo=b"[]", usage=Usage(1, 0, 10, 10))
            await count("settle", store.claims.settle(claim.ref, outcome))
            shares = Shares({"a": 4, "b": 4})
            (reply,) = (await count("due", store.outbox.due("host", 32, 30, shares))).replies
            await count("delivered", store.outbox.delivered(reply, "sent"))
        assert spent == {"accept": 1, "claim": 2, "accept and claim": 1, "settle": 2, "due": 1, "delivered": 1}
        before = store.engine.traffic()[1]
        await asyncio.gather(*(store.inbox.accept(arrival(number)) for number in range(10, 74)))
        claims = (await store.claims.claim("host", 64, 30)).claims
        await asyncio.gather(*(store.claims.settle(claim.ref, ended("hello")) for claim in claims))
        replies = (await store.outbox.due("host", 64, 30)).replies
        await asyncio.gather(*(store.outbox.delivered(reply, "sent") for reply in replies))
        assert len(replies) == 64
        assert store.engine.traffic()[1] - before <= 64 / 2


def test_an_answer_that_was_held_up_sets_no_hosts_clock_ahead_of_the_others() -> None:
    url = shared_server().url()
    connection = Connection(url, prepares=True, application="test")
    shared = Shared(None)
    clock = BatchClock(shared, connection)
    time.sleep(1)  # what was sent waits in a link that is down
    connection.sync()
    shown = clock.now()
    with psycopg.connect(url, autocommit=True) as other:
        ((server,),) = other.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
    assert server - 5 < shown <= server
    assert shared.forward(shown - 0.1) == shown
    assert shared.forward(shown - 30) == shown - 30  # a server that took the place of the first
    connection.close()


async def test_a_job_that_fails_side_by_side_fails_alone_and_writes_nothing() -> None:
    async with opened(shared_server().url()) as store:

        def fail(database: Database) -> list[int]:
            def half(number: int) -> int:
                database.run("INSERT INTO probe (name, at) VALUES (?, 1.0)", (f"half {number}",))
                database.all("SELECT 1")
                return 1 // number

            return database.each(half, (2, 1, 0))

        others = [store.inbox.accept(arrival(number)) for number in range(5)]
        failed, *accepted = await asyncio.gather(store.engine.run("a:b:1", fail), *others, return_exceptions=True)
        assert isinstance(failed, ZeroDivisionError)
        assert all(isinstance(one, Receipt) for one in accepted)
        assert (
            await store.engine.run("", lambda database: database.all("SELECT name FROM probe WHERE name LIKE 'half %'"))
            == []
        )


async def test_a_session_that_the_server_ended_is_made_again() -> None:
    server = shared_server()
    async with opened(server.url()) as store:
        await store.inbox.accept(arrival(1))
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gatehouse'"
        with server.connect("postgres", "postgres") as other:
            assert len(other.execute(ends).fetchall()) >= 3
        assert (await accepted_in_time(store, arrival(2))).message_id == "msg_2"
        assert await store.inbox.waiting() == 2


async def test_a_server_that_takes_no_more_connections_is_told_of_and_used_again() -> None:
    server = shared_server()
    url = server.url()
    name = url.rpartition("/")[2]
    async with opened(url) as store:
        await store.signals.start("one")
        await connected(store)
        with server.connect("postgres", "postgres") as other:
            other.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0".encode())
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            with pytest.raises(StoreUnavailable, match="too many connections"):
                await store.inbox.accept(arrival(1))
            with pytest.raises(StoreUnavailable, match="too many connections"):
                await store.check()
            with pytest.raises(StoreUnusable, match=rf"{name} cannot be used: .*too many connections"):
                await open_store(url, Path("/nowhere"), inbox_limit=1).open()
            await connected(store, still=False)
            other.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1".encode())
        receipt = await accepted_in_time(store, arrival(1))
        assert (receipt.message_id, receipt.duplicate) == ("msg_1", False)
        await connected(store)


async def test_a_transaction_of_somebody_else_that_stays_open_holds_nothing_up() -> None:
    url = shared_server().url()
    async with opened(url) as store:
        await store.inbox.accept(arrival(1))
        with psycopg.connect(url) as other:  # its snapshot keeps every row version behind it
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            assert other.execute("SELECT count(*) FROM inbox").fetchall() == [(1,)]
            for number in range(2, 5):
                await store.inbox.accept(arrival(number))
                claims = (await store.claims.claim("host", 10, 30)).claims
                await asyncio.gather(*(store.claims.settle(claim.ref, ended("hello")) for claim in claims))
            assert await store.inbox.waiting() == 0
            assert other.execute("SELECT count(*) FROM inbox").fetchall() == [(1,)]
        with psycopg.connect(url, autocommit=True) as server:
            server.execute("ANALYZE sessions")  # none is claimed: the index of claimed ones looks empty, and is not
            for sql, values in (
                (sessions.FENCE, "'a:b:1', 1"),
                (claim_ends.READ, "'a:b:1', 1"),
                (begun_messages.BEGUN, "'a:b:1', 'host'"),
            ):
                server.execute(b"PREPARE found AS " + statement(sql).text)
                plan = server.execute(f"EXPLAIN EXECUTE found ({values})".encode()).fetchall()
                assert not any("sessions_host" in str(line) for line in plan), plan
                server.execute("DEALLOCATE found")


async def test_what_is_committed_twice_at_two_gateways_is_one_message() -> None:
    url = shared_server().url()
    async with opened(url) as one, opened(url) as two:
        for number in range(40):
            message = arrival(number, "a:b:c")
            twin = arrival(number + 1000, "a:b:c")
            session, both = f"a:b:c{number % 2 and number}", (f"event-{number}", f"message-{number}")
            message = msgspec.structs.replace(message, session=session, dedupe=both)
            twin = msgspec.structs.replace(twin, session=session, dedupe=(f"again-{number}", both[1]))
            receipts = await asyncio.gather(one.inbox.accept(message), two.inbox.accept(twin))
            assert sorted(receipt.duplicate for receipt in receipts) == [False, True]
            assert len({receipt.message_id for receipt in receipts}) == 1
            for key in (*both, twin.dedupe[0]):
                assert await one.inbox.known(session, (key,)) in {receipts[0].message_id, ""}
            assert await one.inbox.known(session, both) == receipts[0].message_id


async def test_processes_on_shared_sessions_lose_nothing_and_keep_the_order() -> None:
    url, sessions, each = shared_server().url(), 20, 15
    async with opened(url) as one, opened(url) as two:
        seen: dict[str, list[str]] = {}

        async def accept(store: Store, parity: int) -> None:
            for number in range(each):
                messages = [arrival(1000 * s + 2 * number + parity, f"a:b:{s}") for s in range(sessions)]
                await asyncio.gather(*(store.inbox.accept(message) for message in messages))

        async def work(store: Store, host: str) -> None:
            while sum(map(len, seen.values())) < sessions * each * 2:
                batch = await store.claims.claim(host, 5, 30)
                for claim in batch.claims:
                    seen.setdefault(claim.ref.session, []).append(claim.messages[0].id)
                    assert [message.seq for message in claim.messages] == [len(seen[claim.ref.session])]
                await asyncio.gather(*(store.claims.settle(claim.ref, ended("hello")) for claim in batch.claims))

        await asyncio.gather(accept(one, 0), accept(two, 1), work(one, "h1"), work(two, "h2"))
        assert all(len(set(ids)) == len(ids) == each * 2 for ids in seen.values())


async def test_a_server_that_is_not_there_or_refuses_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    store = open_store(f"postgresql://me:secret@127.0.0.1:{port}/none", Path("/nowhere"), inbox_limit=1)
    with pytest.raises(StoreUnusable, match=f"127.0.0.1:{port}/none cannot be used") as raised:
        await store.open()
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    url = shared_server().url().rpartition("/")[0]
    with pytest.raises(StoreUnusable, match="does not exist"):
        await open_store(f"{url}/nothing", Path("/nowhere"), inbox_limit=1).open()


async def test_a_server_of_a_platform_is_reached_by_tls_and_a_right_that_is_missing_is_named(tmp_path: Path) -> None:
    server = PostgresServer()
    try:
        certificate = encrypt(server, tmp_path)
        for more in ("sslmode=require", f"sslmode=verify-full&sslrootcert={certificate}"):
            async with opened(f"{server.url().replace('postgresql://', 'postgres://')}?{more}") as store:
                await store.check()
        other = f"sslmode=verify-full&sslrootcert={tmp_path}/none.crt"
        with pytest.raises(StoreUnusable, match=r"none\.crt"):
            await open_store(f"{server.url()}?{other}", tmp_path, inbox_limit=1).open()
        with server.connect("postgres", "postgres") as admin:
            admin.execute("CREATE ROLE guest LOGIN NOSUPERUSER")
        guest = server.url().replace("gatehouse@", "guest@")
        with pytest.raises(StoreUnusable, match="GRANT CREATE ON SCHEMA public"):
            await open_store(guest, tmp_path, inbox_limit=1).open()
        server.ask_for_password("guest", "right")
        with pytest.raises(StoreUnusable, match=r"cannot be used: .*password authentication failed") as raised:
            await open_store(guest.replace("guest@", "guest:wrong@"), tmp_path, inbox_limit=1).open()
        assert "wrong" not in str(raised.value)
    finally:
        server.close()


def encrypt(server: PostgresServer, directory: Path) -> Path:
    """Let a server speak TLS with a certificate made here; return where that lies."""
    made = directory / "server.crt"
    name = "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", *name)
    key = directory / "server.key"
    subprocess.run(["openssl", *words, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    server.encrypt(made, key)
    return made


async def test_another_programs_database_and_a_newer_one_are_left_alone() -> None:
    server = shared_server()
    for script, problem in (
        ("CREATE TABLE sessions (id BIGINT)", "another program"),
        ("CREATE TABLE schema_version (version BIGINT); INSERT INTO schema_version VALUES (999)", "newer Gatehouse"),
    ):
        url = server.url()
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(script.encode())
        with pytest.raises(StoreUnusable, match=problem):
            await open_store(url, Path("/nowhere"), inbox_limit=1).open()


async def test_a_database_that_takes_no_writes_or_not_every_text_is_told_at_the_start() -> None:
    server = shared_server()
    url = server.url()
    with server.connect("postgres", "postgres") as other:
        name = url.rpartition("/")[2]
        latin = f"CREATE DATABASE {name}_latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        other.execute(latin.encode())
        other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    with pytest.raises(StoreUnusable, match="encoding LATIN1, which cannot hold every message: make a database with"):
        await open_store(f"{url}_latin", Path("/nowhere"), inbox_limit=1).open()
    with pytest.raises(StoreUnusable, match="takes no writes: it is a replica, or set to read only"):
        await open_store(url, Path("/nowhere"), inbox_limit=1).open()


async def test_a_store_that_is_only_read_changes_nothing() -> None:
    url = shared_server().url()
    with pytest.raises(StoreUnusable, match="no tables of Gatehouse"):
        await open_store(url, Path("/nowhere"), inbox_limit=1, read_only=True).open()
    async with opened(url) as store:
        await store.inbox.accept(arrival(1))
    reader = open_store(url, Path("/nowhere"), inbox_limit=10, read_only=True)
    await reader.open()
    assert (await reader.inbox.trace("msg_1")).state == "waiting"
    await reader.verify()
    with pytest.raises(StoreUnavailable, match="read-only"):
        await reader.inbox.accept(arrival(2))
    await reader.close()


@pytest.mark.parametrize("url", ["postgresql://server/db?pooler=bad", "postgres://server/db?nonsense=1"])
def test_a_url_that_cannot_be_one_is_a_setting_to_mend(url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        open_store(url, Path("/nowhere"), inbox_limit=1)


def test_a_missing_extra_is_named_in_one_line() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from pathlib import Path\nfrom shared.store import open_store\n"
        "try:\n  open_store('postgres://server/db', Path(), inbox_limit=1)\n"
        "except Exception as error:\n  print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.startswith("SettingsError DATABASE_URL: PostgreSQL needs psycopg")
    assert "-m pip install '.[postgres]'" in said


def test_every_script_is_translated_whole() -> None:
    text = "".join(map(translate, MIGRATIONS))
    for word in ("STRICT", "ROWID", "BLOB", " REAL", "INTEGER"):
        assert word not in text


async def test_a_pooler_that_shares_sessions_by_transaction_changes_nothing() -> None:
    server = shared_server()
    url = server.url()
    with pgbouncer(server, url) as port:
        pooled = f"{url.replace(str(server.port), str(port))}?pooler=transaction"
        async with opened(pooled) as one, opened(pooled) as two:
            messages = [arrival(number) for number in range(60)]
            stores = [(one, two)[number % 2] for number in range(60)]
            await asyncio.gather(*(store.inbox.accept(m) for store, m in zip(stores, messages, strict=True)))
            found = await asyncio.gather(*(store.claims.claim("host", 40, 30) for store in (one, two)))
            claims = [claim for batch in found for claim in batch.claims]
            assert len({claim.ref.session for claim in claims}) == len(claims) == 60
            await asyncio.gather(*(one.claims.settle(claim.ref, ended("hello")) for claim in claims))
            assert len((await two.outbox.due("host", 100, 30)).replies) == 60


@contextmanager
def pgbouncer(server: PostgresServer, url: str) -> Iterator[int]:
    """Run PgBouncer in transaction mode with two server sessions for a database; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    database = url.rpartition("/")[2]
    settings = f"""
[databases]
{database} = host=127.0.0.1 port={server.port} dbname={database} user=gatehouse
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 2
unix_socket_dir =
"""
    with server.program("pgbouncer", settings):
        until = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(url.replace(str(server.port), str(port))).close()
            except psycopg.OperationalError:
                assert time.monotonic() < until
                time.sleep(0.05)
            else:
                break
        yield port


def test_a_host_keeps_four_connections() -> None:
    assert PostgresEngine("postgres://server/db").connections == 4


async def test_signals_reach_their_host_alone_and_go_on_after_the_connection_was_ended() -> None:
    server = shared_server()
    url = server.url()
    async with opened(url) as one, opened(url) as two:
        await one.signals.start("one")
        await two.signals.start("two")
        heard = two.signals.received()
        long = Signal(SignalKind.TEXT, "a:b:c", "msg_1", 1, "x" * 5000)
        await connected(one, two)
        for signal in (Signal(SignalKind.WORK), long, long, Signal(SignalKind.STOP, message_id="msg_1")):
            one.signals.send("two", signal)
        got = [await asyncio.wait_for(anext(heard), 10) for _ in range(4)]
        assert got == [Signal(SignalKind.WORK), long, long, Signal(SignalKind.STOP, message_id="msg_1")]
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gatehouse-signals'"
        with server.connect("postgres", "postgres") as other:
            other.execute(ends)
        waiting = asyncio.ensure_future(anext(heard))
        until = time.monotonic() + BACK_WITHIN_S
        while not waiting.done():
            assert time.monotonic() < until
            one.signals.send("two", Signal(SignalKind.DUE))
            await asyncio.wait({waiting}, timeout=0.1)
        assert (await waiting).kind is SignalKind.DUE


async def connected(*stores: Store, still: bool = True) -> None:
    """Wait until the signals of every store come and go, or those of none do."""
    until = time.monotonic() + BACK_WITHIN_S
    while any(store.signals.connected != still for store in stores):
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


async def test_a_message_is_claimed_with_its_accept_only_where_it_is_all_there_is_to_do() -> None:
    async with opened(shared_server().url()) as store:
        for host in ("host", "other"):
            await store.hosts.beat(Beat(host, gateway=True, workers=1), 600)
        assert (await store.inbox.accept(arrival(1), "nobody")).claim is None  # it does not live
        assert (await store.inbox.accept(arrival(2), "host")).claim is None  # another waits
        assert (await store.inbox.accept(arrival(1), "host")).duplicate
        first, second = (await store.claims.claim("other", 9, 30)).claims
        receipt = await store.inbox.accept(arrival(3), "host")
        claim = receipt.claim
        assert claim is not None
        assert (claim.version, [message.id for message in claim.messages]) == (0, ["msg_3"])
        again = await store.inbox.accept(arrival(3), "host")
        assert (again.duplicate, again.claim) == (True, None)
        behind = msgspec.structs.replace(arrival(4), session=claim.ref.session)
        assert (await store.inbox.accept(behind, "host")).claim is None  # its session is busy
        assert (await store.claims.claim("other", 9, 30)).claims == ()
        await store.claims.settle(claim.ref, ended("three"))
        (claim,) = (await store.claims.claim("host", 9, 30)).claims
        assert [message.id for message in claim.messages] == ["msg_4"]
        await store.claims.settle(claim.ref, ended("four"))
        await store.claims.settle(first.ref, ended("one"))
        warm = msgspec.structs.replace(arrival(5), session=first.ref.session)
        assert (await store.inbox.accept(warm, "host")).claim is None  # the host that has it in memory lives
        (claim,) = (await store.claims.claim("other", 9, 30)).claims
        assert (claim.ref.session, claim.version) == (first.ref.session, first.ref.epoch)
        assert sorted(ref.session for ref in await store.claims.held("other")) == sorted(
            [second.ref.session, claim.ref.session]
        )
