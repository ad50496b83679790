"""What several hosts on one PostgreSQL do: messages a second, round trips, takeover, affinity; SQLite beside it.

Hosts are processes of this program; a message is accepted, claimed, settled with history, todo list and reply, and its
reply leased and recorded as sent. BENCH_SECONDS is how long each measurement takes. With gateways and worker hosts as
they are: how long a message waits for its turn, how long a dead host's turns do, and how often sessions stay;
BENCH_SESSIONS is how many write.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import uvloop

from loadtests.bench.store import LIMIT, OUTCOME, arrival
from loadtests.gateway_process import GatewayProcess
from loadtests.measuring import MISSING, figure, percentile, print_table
from loadtests.platform import running_platform
from loadtests.postgres_server import MissingProgram, PostgresServer
from loadtests.provider import running_provider
from loadtests.sender import Sender
from shared.hosts import Beat
from shared.store import Store, open_store

SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
ROUND_TRIPS_MS = (1.0, 3.0)
TOGETHER = 64
SESSIONS = int(os.environ.get("BENCH_SESSIONS", "20"))


class LoadingHost:
    """One host of the load: accepts, and runs what it claims, as fast as it can."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._host = f"bench:{os.getpid()}"

    async def accept(self, until_mono: float) -> int:
        """Accept until then; return how many messages."""

        async def person() -> int:
            count = 0
            while time.monotonic() < until_mono:
                await self._store.inbox.accept(arrival())
                count += 1
            return count

        return sum(await asyncio.gather(*(person() for _ in range(TOGETHER))))

    async def whole(self, until_mono: float, together: int = TOGETHER) -> int:
        """Accept, run and send messages until then; return how many."""
        count = 0
        await self._store.hosts.beat(Beat(self._host, gateway=True, workers=1), 600)
        while time.monotonic() < until_mono:
            host = self._host if together == 1 else ""  # as a gateway with a free worker has it
            receipts = await asyncio.gather(*(self._store.inbox.accept(arrival(), host) for _ in range(together)))
            claims = tuple(receipt.claim for receipt in receipts if receipt.claim is not None)
            claims = claims or (await self._store.claims.claim(self._host, together, 600)).claims
            await asyncio.gather(*(self._store.claims.settle(claim.ref, OUTCOME) for claim in claims))
            replies = (await self._store.outbox.due(self._host, together, 600)).replies
            await asyncio.gather(*(self._store.outbox.delivered(reply, "sent") for reply in replies))
            count += len(replies)
        return count


async def child(what: str, url: str) -> None:
    """Be one host: wait for a line, load for a while, print how much was done."""
    with tempfile.TemporaryDirectory() as place:
        store = open_store(url, Path(place), inbox_limit=LIMIT)
        await store.open()
        host = LoadingHost(store)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        until = time.monotonic() + SECONDS
        before = traffic(store)
        count = await {"accept": host.accept, "whole": host.whole, "alone": alone(host)}[what](until)
        spent = [now - then for now, then in zip(traffic(store), before, strict=True)]
        print(json.dumps({"count": count, "statements": spent[0], "round_trips": spent[1]}), flush=True)
        await store.close()


def alone(host: LoadingHost) -> Any:
    """Return the load of whole messages one after the other."""

    async def run(until_mono: float) -> int:
        return await host.whole(until_mono, 1)

    return run


def traffic(store: Store) -> tuple[int, int]:
    """Return the statements and round trips so far; none for the embedded engine."""
    counted = getattr(store.engine, "traffic", None)
    return tuple(counted()[:2]) if counted else (0, 0)


def load(what: str, url: str, hosts: int, server: PostgresServer | None = None) -> dict[str, float]:
    """Let so many hosts load a database at once; return messages a second, statements and round trips a message.

    Of a server that is given also the seconds of CPU a message of all its processes.
    """
    command = [sys.executable, "-m", "loadtests.bench.hosts", what, url]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(hosts)
    ]
    for process in running:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    before = server.cpu_s() if server else 0.0
    done = [json.loads(process.communicate(timeout=SECONDS + 120)[0]) for process in started(running)]
    count = sum(one["count"] for one in done)
    spent = {name: sum(one[name] for one in done) / max(1, count) for name in ("statements", "round_trips")}
    cpu = (server.cpu_s() if server else 0.0) - before
    return {"rate": count / SECONDS, **spent, "cpu_s": cpu / max(1, count)}


def started(running: Sequence[subprocess.Popen[str]]) -> Sequence[subprocess.Popen[str]]:
    """Let all of them begin at once."""
    for process in running:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return running


@contextlib.contextmanager
def delayed(server: PostgresServer, round_trip_ms: float) -> Iterator[str]:
    """Give a url of a new database whose every round trip takes longer."""
    url = server.url()
    command = [sys.executable, "-m", "loadtests.delay_proxy", str(server.port), str(round_trip_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout
        port = proxy.stdout.readline().strip()
        try:
            yield url.replace(f":{server.port}/", f":{port}/")
        finally:
            proxy.terminate()


def round_trip_ms(url: str) -> float:
    """Return how long a round trip takes, in the median."""
    taken = []
    with psycopg.connect(url, autocommit=True) as opened:
        for _ in range(50):
            began = time.perf_counter()
            opened.execute("SELECT 1")
            taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def measure_stores(server: PostgresServer) -> None:
    """Measure hosts on the server, near and far, beside the embedded engine."""
    accepts: dict[str, list[float]] = {}
    whole: dict[str, list[float]] = {}
    lone: dict[str, list[float]] = {}
    spent: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, table in (("accept", accepts), ("whole", whole), ("alone", lone)):
            table["sqlite, 1 host"] = [load(name, f"sqlite:///{place}/{name}.db", 1)["rate"]]
    for hosts in (1, 2, 4):
        accepts[f"postgresql, {hosts}"] = [load("accept", server.url(), hosts)["rate"]]
        found = load("whole", server.url(), hosts, server)
        whole[f"postgresql, {hosts}"] = [found["rate"]]
        spent[f"{hosts} hosts, {TOGETHER} together"] = found
    found = load("alone", server.url(), 1, server)
    lone["postgresql, 1 host"], spent["alone"] = [found["rate"]], found
    for wanted_ms in ROUND_TRIPS_MS:
        with delayed(server, wanted_ms) as url:
            far = f"postgresql, 1, {figure(round_trip_ms(url))} ms a round trip"
            accepts[far], whole[far] = [load("accept", url, 1)["rate"]], [load("whole", url, 1)["rate"]]
            lone[far] = [load("alone", url, 1)["rate"]]
    print_table("accepts a second, by hosts", "/s", accepts)
    print_table("whole messages a second, by hosts", "/s", whole)
    print_table("whole messages a second, one after the other", "/s", lone)
    cores = {name: [1 / found["cpu_s"]] for name, found in spent.items() if found["cpu_s"]}
    print_table("whole messages a second and core of the database's server", "/s", cores)
    for name, found in spent.items():
        print(
            f"  {name}: {figure(found['statements'])} statements and {figure(found['round_trips'])} round trips "
            f"a message, {figure(found['cpu_s'] * 1e6)} us of the server's CPU"
        )


def measure_cluster(server: PostgresServer) -> None:
    """Measure real hosts: waits for a turn, the takeover of a dead host's turns, sessions that stay."""
    with contextlib.ExitStack() as held:
        provider, platform = held.enter_context(running_provider()), held.enter_context(running_platform())
        settings = platform.environment() | {
            "DATABASE_URL": server.url(),
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.openai_url,
            "GATEHOUSE_SPARES": "0",
        }

        def start(kind: str, workers: str) -> GatewayProcess:
            place = Path(held.enter_context(tempfile.TemporaryDirectory()))
            return held.enter_context(GatewayProcess(place, settings | {"GATEHOUSE_WORKERS": workers}, (kind,)))

        gateway, first = start("gateway", "0"), start("worker", "2")
        cluster = Cluster(gateway, Sender(platform.secrets), platform)
        cluster.talk(2)
        waits = cluster.talk(6)
        print_table(
            "from the accept to the start of the turn",
            "ms",
            {"p50": [percentile(waits, 0.5) * 1000], "p99": [percentile(waits, 0.99) * 1000]},
        )
        before = cluster.hits()
        cluster.talk(3)
        settled = cluster.hits()
        start("worker", "2")
        time.sleep(2)
        cluster.talk(3)
        joined = cluster.hits()
        rates = {"before a join": [share(before, settled)], "behind it": [share(settled, joined)]}
        print_table("turns whose conversation the worker held", "", rates)
        print_table("until a dead host's turn runs elsewhere", "s", {"takeover": [cluster.takeover(first)]})


class Cluster:
    """A gateway with worker hosts elsewhere, and what is said to it."""

    def __init__(self, gateway: GatewayProcess, sender: Sender, platform: Any) -> None:
        self._gateway = gateway
        self._sender = sender
        self._platform = platform

    def say(self, session: str, text: str) -> str:
        """Say something; return the message's id."""
        request = self._sender.standard(session, text)
        url = self._gateway.url + request.path
        answer = httpx2.post(url, content=request.body, headers=request.headers, timeout=30)
        return str(answer.headers["x-gatehouse-message"])

    def talk(self, times: int) -> list[float]:
        """Let every session say something so often; return the seconds that each message waited for its turn."""
        waits = []
        for _ in range(times):
            ids = [self.say(f"s{number}", "[[say fine]]") for number in range(SESSIONS)]
            for id_ in ids:
                self._gateway.wait_until(lambda id_=id_: self.trace(id_)["state"] == "done", 60, "it is answered")  # type: ignore[misc]
                found = self.trace(id_)
                waits.append(found["claimed_at"] - found["accepted_at"])
        return waits

    def trace(self, message_id: str) -> dict[str, Any]:
        """Return where a message is."""
        return dict(self._gateway.get(f"/v1/messages/{message_id}"))

    def hits(self) -> tuple[int, int]:
        """Return how often workers held a conversation so far, and how often not."""
        caches = [row["todo_cache"] for row in self._gateway.get("/v1/workers")["workers"]]
        return sum(cache["hits"] for cache in caches), sum(cache["misses"] for cache in caches)

    def takeover(self, host: GatewayProcess) -> float:
        """Kill a host with running turns; return the seconds until all of them run on another."""
        ids = [self.say(f"long{number}", "[[sleep 3]] [[say over]]") for number in range(4)]
        self._gateway.wait_until(lambda: all(self.trace(id_)["running"] for id_ in ids), 60, "they run")
        epochs = {id_: self.trace(id_)["claimed_at"] for id_ in ids}
        host.kill_tree()
        killed = time.monotonic()

        def moved() -> bool:
            traces = {id_: self.trace(id_) for id_ in ids}
            return all(one["state"] == "done" or one["claimed_at"] != epochs[id_] for id_, one in traces.items())

        self._gateway.wait_until(moved, 60, "the turns are taken over")
        return time.monotonic() - killed


def share(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Return the share of hits between two counts."""
    hits, misses = after[0] - before[0], after[1] - before[1]
    return hits / max(1, hits + misses)


def main() -> int:
    """Measure and print, with a server of its own; MISSING without PostgreSQL."""
    try:
        server = PostgresServer(durable=True)
    except MissingProgram as error:
        print(f"hosts is not run: {error} is not installed")
        return MISSING
    try:
        measure_stores(server)
        measure_cluster(server)
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 2:
        uvloop.run(child(*sys.argv[1:3]))
    else:
        sys.exit(main())
