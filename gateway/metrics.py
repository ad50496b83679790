"""Metrics: what ``/metrics`` exports, in a registry of its own, under ``gatehouse_`` names with few labels.

Counts of turns and tokens come from the outcomes the pool settles, counts of events from the log, the rest is read
from the pool when it is scraped: no files, and no stale series of workers that are gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.budgets import Account, Spend
from shared.events import Event, Events, Field
from shared.ids import made_at_s
from shared.messages import Dead, Ended, Outcome
from shared.usage import NANOS, Usage
from worker.pool import PoolSnapshot, WorkerRow, WorkerState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REPLY_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 5)
#: seconds between two timers whose lateness is measured: each wakes a gateway that rests
LAG_PROBE_S = 0.25
UP_STATES = frozenset({WorkerState.READY, WorkerState.QUARANTINE})


#: what is told of each worker: the kind of metric, its name and words, and where it is in the worker's row
WORKER_FAMILIES: tuple[
    tuple[type[GaugeMetricFamily | CounterMetricFamily], str, str, Callable[[WorkerRow], float]], ...
] = (
    (GaugeMetricFamily, "worker_up", "Whether a worker takes turns", lambda row: row.state in UP_STATES),
    (GaugeMetricFamily, "worker_rss_bytes", "Resident memory of a worker", lambda row: row.rss_bytes),
    (
        GaugeMetricFamily,
        "worker_loop_lag_seconds",
        "How late a worker's loop ran a timer at the most of late, or is now",
        lambda row: row.loop_lag_s,
    ),
    (GaugeMetricFamily, "leaked_threads", "Threads of tools that were left behind", lambda row: row.leaked_threads),
    (CounterMetricFamily, "todo_cache_hits", "Sessions found in a worker's cache", lambda row: row.cache_hits),
    (CounterMetricFamily, "todo_cache_misses", "Sessions not found in it", lambda row: row.cache_misses),
    (GaugeMetricFamily, "todo_cache_size", "Sessions in a worker's cache", lambda row: row.cache_size),
    (CounterMetricFamily, "session_log_writes", "Writes to session logs", lambda row: row.log_writes),
    (
        CounterMetricFamily,
        "session_log_failures",
        "Writes that failed, to be tried again",
        lambda row: row.log_failures,
    ),
    (CounterMetricFamily, "session_log_lost_lines", "Lines there was no room to keep", lambda row: row.log_lost),
)


class Meter:
    """The gateway's own counters and histograms; of one with labels, what returns the series of their values.

    To find a series costs the library ten times what it costs to count in it, so each is found once.
    """

    heard: ClassVar = (Event.MESSAGE_REJECTED, Event.AUDIT, Event.REPLY_SENT)

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the one untyped function of the library
        self.registry = CollectorRegistry(auto_describe=False)
        self._messages = self._counter("messages", "Messages whose turn came to an end", "platform", "outcome")
        reply = Histogram(
            "gatehouse_reply_seconds",
            "Time from a message's acceptance to its reply being sent",
            ["platform"],
            buckets=REPLY_BUCKETS_S,
            registry=self.registry,
        )
        self._reply = cache(reply.labels)
        tokens = "Tokens used; those read from a prompt cache and written into it are among the input"
        self._tokens = self._counter("tokens", tokens, "provider", "model", "type")
        self._cost = self._counter("cost", "Money spent, of models that have a price", "provider", "model")
        self._model_calls = self._counter("model_calls", "Model calls that used tokens", "provider", "model")
        self._api_calls = self._counter("api_calls", "Calls of the OpenAI API", "key", "code")
        self._api_tokens = self._counter("api_tokens", "Tokens used by calls of the OpenAI API", "key", "type")
        self._api_cost = self._counter("api_cost", "Money spent by calls of the OpenAI API", "key")
        self._audit = self._counter("audit", "Acts of operators, and keys that were refused", "action")
        self._tool_calls = Counter("gatehouse_tool_calls", "Tool calls made", registry=self.registry)
        self.loop_lag = Histogram(
            "gatehouse_loop_lag_seconds",
            "How late the gateway's event loop runs a timer",
            buckets=LAG_BUCKETS_S,
            registry=self.registry,
        )

    def _counter(self, name: str, what: str, *labels: str) -> Callable[..., Counter]:
        """Make a counter; return what gives the series of its labels' values."""
        return cache(Counter(f"gatehouse_{name}", what, labels, registry=self.registry).labels)

    def settled(self, session: str, outcome: Outcome) -> None:
        """Count an outcome; one that only puts the message off counts as nothing."""
        match outcome:
            case Ended(status=status, usage=usage):
                self._messages(platform_of(session), status.value).inc()
                self._used(usage)
            case Dead(usage=usage):
                self._messages(platform_of(session), "dead").inc()
                self._used(usage)

    def api_call(self, key: str, code: int) -> None:
        """Count a call of the OpenAI API by the name of its key; only keys that exist are named."""
        self._api_calls(key, str(code)).inc()

    def api_usage(self, key: str, usage: Usage) -> None:
        """Count what a call of the OpenAI API used, by the name of its key."""
        self._api_tokens(key, "input").inc(max(0, usage.input_tokens))
        self._api_tokens(key, "output").inc(max(0, usage.output_tokens))
        self._api_cost(key).inc(max(0.0, usage.cost_nanos / NANOS))

    def _used(self, usage: Usage) -> None:
        self._tool_calls.inc(usage.tool_calls)
        for name, share in usage.models.items():
            provider, _, model = name.partition(":")
            labels = (provider, model or provider)
            self._model_calls(*labels).inc(share.model_calls)
            self._cost(*labels).inc(share.cost_nanos / NANOS)
            for kind, count in token_kinds(share).items():
                self._tokens(*labels, kind).inc(count)

    def on_event(self, event: Event, fields: Mapping[str, Field]) -> None:
        """Count what only the log tells (a subscriber of Events)."""
        match event:
            case Event.MESSAGE_REJECTED:
                self._rejected(fields)
            case Event.AUDIT:
                self._audit(str(fields.get("action", ""))).inc()
            case Event.REPLY_SENT:
                self._reply_sent(fields)

    def _rejected(self, fields: Mapping[str, Field]) -> None:
        """Count a message that was turned away: a ``message_rejected`` event names its platform."""
        self._messages(str(fields.get("platform", "")), "rejected").inc()

    def _reply_sent(self, fields: Mapping[str, Field]) -> None:
        """Observe the time a reply took: a ``reply_sent`` event names its platform and message."""
        accepted_at = made_at_s(str(fields.get("message", "")))
        if accepted_at is not None:
            self._reply(str(fields.get("platform", ""))).observe(max(0.0, time.time() - accepted_at))


class PoolCollector(Collector):
    """Reads the pool and the event counts at scrape time; ``waiting`` and ``accounts`` are set before each scrape."""

    def __init__(self, events: Events, snapshot: Callable[[], PoolSnapshot]) -> None:
        self._events = events
        self._snapshot = snapshot
        self.waiting = 0
        self.accounts: list[Account] = []

    def collect(self) -> Iterator[Metric]:
        """Yield every family anew."""
        snapshot = self._snapshot()
        yield GaugeMetricFamily("gatehouse_waiting", "Accepted messages that no turn has ended yet", self.waiting)
        yield GaugeMetricFamily("gatehouse_running_turns", "Turns running", sum(row.turns for row in snapshot.workers))
        yield CounterMetricFamily("gatehouse_worker_restarts", "Workers replaced", snapshot.restarts)
        yield GaugeMetricFamily("gatehouse_spares", "Warm spare workers", snapshot.spares)
        yield from worker_families(snapshot)
        yield from budget_families(self.accounts)
        events = CounterMetricFamily("gatehouse_events", "Events by name", labels=["event"])
        for event in Event:
            events.add_metric([event.value], self._events.counts[event])
        yield events


def worker_families(snapshot: PoolSnapshot) -> Iterator[Metric]:
    """Yield what is known of each worker, labelled by its number."""
    rows = rows_by_number(snapshot)
    for kind, name, what, read in WORKER_FAMILIES:
        family = kind(f"gatehouse_{name}", what, labels=["worker"])
        for row in rows:
            family.add_metric([str(row.n)], read(row))
        yield family
    servers = GaugeMetricFamily(
        "gatehouse_mcp_server_up",
        "Whether an MCP server is connected; the worker is host where all share it",
        labels=["worker", "server"],
    )
    for row in rows:
        for status in row.mcp:
            servers.add_metric([str(row.n), status.server], status.up)
    for status in snapshot.mcp:
        servers.add_metric(["host", status.server], status.up)
    yield servers


def budget_families(accounts: Sequence[Account]) -> Iterator[Metric]:
    """Yield how each budget stands: its limit, and what was spent of it by whoever spent most."""
    limit = GaugeMetricFamily("gatehouse_budget_limit", "A budget, in its unit", labels=["budget", "unit"])
    most = GaugeMetricFamily(
        "gatehouse_budget_most_spent", "What the one that spent most spent of it", labels=["budget", "unit"]
    )
    held = GaugeMetricFamily("gatehouse_budget_held", "What running turns hold", labels=["unit"])
    for account in accounts:
        budget = account.budget
        names = [budget.scope.value, budget.unit]
        limit.add_metric(names, budget.shown(Spend(budget.limit, budget.limit)))
        most.add_metric(names, max((budget.shown(spend) for _, spend in account.spenders), default=0.0))
    if accounts:
        held.add_metric(["tokens"], accounts[0].held.tokens)
        held.add_metric(["money"], accounts[0].held.nanos / NANOS)
    yield from (limit, most, held)


def rows_by_number(snapshot: PoolSnapshot) -> list[WorkerRow]:
    """Return one row a number: a worker that drains beside its successor is not exported twice."""
    rows: dict[int, WorkerRow] = {}
    for row in snapshot.workers:
        if row.n not in rows or row.state in UP_STATES:
            rows[row.n] = row
    return list(rows.values())


class LoopLag:
    """Measures always how late the loop runs a timer."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._timer: asyncio.TimerHandle | None = None
        self._worst_s = 0.0

    def start(self) -> None:
        """Begin to measure the running loop."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LAG_PROBE_S, self._probe, loop, loop.time() + LAG_PROBE_S)

    def stop(self) -> None:
        """End the measuring."""
        if self._timer:
            self._timer.cancel()

    def _probe(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        late_s = max(0.0, loop.time() - due)
        self._histogram.observe(late_s)
        self._worst_s = max(self._worst_s, late_s)
        self.start()

    def take_worst_s(self) -> float:
        """Return how late a timer was at the most since this was last asked, in seconds."""
        worst_s, self._worst_s = self._worst_s, 0.0
        return worst_s


def token_kinds(usage: Usage) -> dict[str, int]:
    """Return a usage's tokens by the types that OpenTelemetry's GenAI conventions give them."""
    return {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read.input": usage.cached_tokens,
        "cache_creation.input": usage.written_tokens,
    }


def platform_of(session: str) -> str:
    """Return the platform a session key begins with."""
    return session.partition(":")[0]


def exposition(registry: CollectorRegistry) -> bytes:
    """Return every metric in Prometheus' text format."""
    return generate_latest(registry)
