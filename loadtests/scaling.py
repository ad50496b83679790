"""Checks the plan of docs/scaling.md: ``python -m loadtests.scaling`` measures what a message costs, and simulates it.

Measured on a PostgreSQL server of its own: the CPU of server and client for a whole message, rows and bytes that it
leaves, versions of rows that vacuum has to remove, connections of a host, a look for work in a table of few and of many
sessions. The rest is arithmetic on these, and says so. Then messages arrive at random, each at the database of its
session, and wait for its cores; the plan fails (exit status 1) where one waits longer than PROMISED_S.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psycopg

from loadtests.bench.store import LIMIT, OUTCOME, arrival
from loadtests.measuring import cpu_s, figure, percentile
from loadtests.postgres_server import PostgresServer
from shared.hosts import Beat
from shared.store import Store, open_store

MESSAGES = 2048
TOGETHER = 64
#: sessions in the table where a look is measured, few and many
FEW, MANY = 1_000, 100_000
#: the longest that 99 of 100 messages may wait for the database, in seconds
PROMISED_S = 0.5
#: the part of a server's cores that a plan uses
UTILISED = 0.6
#: turns that one worker host runs at once, and the seconds of a turn
TURNS_A_HOST, TURN_S = 400, 5.0
#: the largest server of a plan, in cores, and the connections that it takes without a pooler
MOST_CORES, MOST_CONNECTIONS = 32, 400
SIMULATED_S = 20.0
YEAR_S = 365 * 86_400


class Measured(msgspec.Struct, frozen=True):
    """What one message costs, of the machine that this ran on."""

    #: CPU of the server, in seconds
    server_s: float
    #: CPU of the host that accepts, claims, settles and records, in seconds
    client_s: float
    #: bytes that stay in tables and indexes
    left_bytes: float
    #: rows that stay
    left_rows: float
    #: row versions that vacuum removes
    dead_rows: float
    #: connections that a host keeps
    connections: int
    #: a look for work among few and many sessions, in seconds
    look_few_s: float
    look_many_s: float


class Plan(msgspec.Struct, frozen=True):
    """One line of the plan; all that is not given is arithmetic on what was measured."""

    sessions: int
    rate: float  #: messages a second
    databases: int  #: servers that share the sessions by crc32 of their keys
    cores: int  #: of each server


PLANS = (
    Plan(1_000, 1, 1, 1),
    Plan(100_000, 100, 1, 2),
    Plan(10_000_000, 100, 1, 2),
    Plan(10_000_000, 10_000, 4, 8),
)


async def measure(server: PostgresServer) -> Measured:
    """Run messages against a new database, and count."""
    url = server.url()
    with tempfile.TemporaryDirectory() as place:
        store = open_store(url, Path(place), inbox_limit=LIMIT)
        await store.open()
        await store.hosts.beat(Beat("scaling", gateway=True, workers=1), 3600)
        await run_messages(store, TOGETHER * 4)  # prepares every statement
        before, client = server_cpu_s(url), time.process_time()
        rows, size, dead = counts(url)
        await run_messages(store, MESSAGES)
        spent, spent_client = server_cpu_s(url) - before, time.process_time() - client
        after_rows, after_size, after_dead = counts(url)
        looks = []
        for sessions in (FEW, MANY):
            fill(url, sessions)
            looks.append(await look_s(store))
        connections = len(server_pids(url))
        await store.close()
    return Measured(
        spent / MESSAGES,
        spent_client / MESSAGES,
        (after_size - size) / MESSAGES,
        (after_rows - rows) / MESSAGES,
        (after_dead - dead) / MESSAGES,
        connections + 1,  # that for signals, which nothing has asked for here
        *looks,
    )


async def run_messages(store: Store, count: int) -> None:
    """Accept, claim, settle and send so many messages."""
    for _ in range(count // TOGETHER):
        await asyncio.gather(*(store.inbox.accept(arrival()) for _ in range(TOGETHER)))
        claims = (await store.claims.claim("scaling", TOGETHER, 600)).claims
        await asyncio.gather(*(store.claims.settle(claim.ref, OUTCOME) for claim in claims))
        replies = (await store.outbox.due("scaling", TOGETHER, 600)).replies
        await asyncio.gather(*(store.outbox.delivered(reply, "sent") for reply in replies))


async def look_s(store: Store) -> float:
    """Return how long a look for work that finds nothing takes, in the median."""
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        await store.claims.claim("scaling", TOGETHER, 600)
        taken.append(time.perf_counter() - began)
    return percentile(taken, 0.5)


def fill(url: str, sessions: int) -> None:
    """Add sessions that rest, and let the server know how many there are."""
    with psycopg.connect(url, autocommit=True) as opened:
        opened.execute(
            "INSERT INTO sessions (session_key, platform, state, place, head, next_seq, updated_at) "
            "SELECT 'rest:' || n || ':' || %s, 'rest', 'idle', 0, 1, 2, n FROM generate_series(1, %s) AS n",
            (sessions, sessions),
        )
        opened.execute("ANALYZE sessions")


def server_pids(url: str) -> list[int]:
    """Return the server's processes for this database's connections."""
    with psycopg.connect(url, autocommit=True) as opened:
        found = opened.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return [int(pid) for (pid,) in found]


def server_cpu_s(url: str) -> float:
    """Return the CPU of the processes behind this database's connections (Linux)."""
    return sum(map(cpu_s, server_pids(url)))


def counts(url: str) -> tuple[int, int, int]:
    """Return the rows, the bytes with indexes, and the dead or updated row versions so far, of all tables."""
    with psycopg.connect(url, autocommit=True) as opened:
        opened.execute("SELECT pg_stat_clear_snapshot()")
        time.sleep(1.2)  # a server's session reports what it did once a second
        ((rows, size, dead),) = opened.execute(
            "SELECT sum(n_tup_ins - n_tup_del)::int8, sum(pg_total_relation_size(relid))::int8, "
            "sum(n_tup_upd + n_tup_del)::int8 FROM pg_stat_user_tables"
        ).fetchall()
        return int(rows), int(size), int(dead)


def simulate(plan: Plan, measured: Measured, seed: int = 1) -> float:
    """Let messages of random sessions arrive at their databases' cores; return what 99 of 100 wait, in seconds.

    Some sessions say much more than others: the n-th says 1/n as much as the first.
    """
    chance = random.Random(seed)
    free_at: list[list[float]] = [[0.0] * plan.cores for _ in range(plan.databases)]
    waits: list[float] = []
    at, seconds = 0.0, min(SIMULATED_S, 200_000 / plan.rate)
    while at < seconds:
        at += chance.expovariate(plan.rate)
        session = int(plan.sessions ** chance.random())  # log-uniform: as 1/n
        cores = free_at[zlib.crc32(b"%d" % session) % plan.databases]
        begins = max(at, heapq.heappop(cores))
        heapq.heappush(cores, begins + measured.server_s)
        waits.append(begins - at)
    return percentile(waits, 0.99) if waits else 0.0


def show(plan: Plan, measured: Measured) -> bool:
    """Print one line of the plan, and tell whether it holds."""
    needed = plan.rate * measured.server_s / UTILISED
    hosts = max(1, math.ceil(plan.rate * TURN_S / TURNS_A_HOST))
    gateways = max(2, math.ceil(plan.rate * measured.client_s / UTILISED))
    connections = (hosts + gateways) * measured.connections * plan.databases
    wait_s = simulate(plan, measured)
    fits = needed <= plan.databases * plan.cores and wait_s <= PROMISED_S and plan.cores <= MOST_CORES
    pooler = "" if connections <= MOST_CONNECTIONS * plan.databases else ", behind a pooler"
    year = plan.rate * YEAR_S
    print(
        f"\n{plan.sessions:,} sessions, {figure(plan.rate)} messages a second: {'holds' if fits else 'DOES NOT HOLD'}"
    )
    print(f"  servers              {plan.databases} of {plan.cores} cores (arithmetic: {needed:.1f} needed in all)")
    print(f"  hosts                {gateways} gateways, {hosts} worker hosts (arithmetic: turns of {TURN_S:.0f} s)")
    print(f"  connections          {connections:,} (arithmetic{pooler})")
    print(f"  rows and disk a year {figure(year * measured.left_rows)}, {figure(year * measured.left_bytes / 1e9)} GB")
    print(f"  vacuum               {figure(plan.rate * measured.dead_rows)} row versions a second (arithmetic)")
    partitions = "by month, dropped and not deleted" if year * measured.left_rows > 1e9 else "none"
    print(f"  partitions           {partitions} (arithmetic: over 10^9 rows a year)")
    print(f"  wait, 99 of 100      {wait_s * 1000:.1f} ms (simulated)")
    return fits


def main(plans: Sequence[Plan] = PLANS) -> int:
    """Measure, simulate and print."""
    server = PostgresServer(durable=True)
    try:
        measured = asyncio.run(measure(server))
    finally:
        server.close()
    print("measured, a message:")
    print(f"  server CPU {measured.server_s * 1e6:.0f} us, host CPU {measured.client_s * 1e6:.0f} us")
    print(f"  {measured.left_rows:.1f} rows and {measured.left_bytes:.0f} bytes stay")
    print(f"  {measured.dead_rows:.1f} row versions are left to vacuum")
    print(f"  a host keeps {measured.connections} connections")
    few, many = measured.look_few_s * 1000, measured.look_many_s * 1000
    print(f"  a look takes {few:.2f} ms among {FEW:,} sessions, {many:.2f} ms among {FEW + MANY:,}")
    held = [show(plan, measured) for plan in plans]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
