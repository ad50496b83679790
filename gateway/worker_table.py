"""The worker table, and the turns that run: of this host, and of all others that share its database."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from worker.pool import HostRow, PoolSnapshot, TurnRow, WorkerRow


def worker_table(own: PoolSnapshot, hosts: Sequence[HostRow] = ()) -> dict[str, object]:
    """Return the worker table as ``GET /v1/workers`` shows it; ``hosts`` are those that share the database."""
    if not hosts:
        rows = list(map(worker_entry, own.workers))
        return {"workers": rows, "spares": own.spares, "restarts": own.restarts} | ({"mcp": own.mcp} if own.mcp else {})
    pools = [row.view.pool for row in hosts]
    shared = [server for pool in pools for server in pool.mcp]
    return {
        "workers": [{"host": row.host, **worker_entry(worker)} for row in hosts for worker in row.view.pool.workers],
        "spares": sum(pool.spares for pool in pools),
        "restarts": sum(pool.restarts for pool in pools),
        "hosts": list(map(host_entry, hosts)),
    } | ({"mcp": shared} if shared else {})


def worker_entry(row: WorkerRow) -> dict[str, object]:
    """Return one worker's row."""
    entry: dict[str, object] = {
        "n": row.n,
        "pid": row.pid,
        "state": row.state,
        "turns": row.turns,
        "sessions": row.sessions,
        "rss_bytes": row.rss_bytes,
        "started_at": row.started_at,
        "loop_lag_s": round(row.loop_lag_s, 4),
        "todo_cache": {"hits": row.cache_hits, "misses": row.cache_misses, "size": row.cache_size},
    }
    if row.mcp:
        entry["mcp"] = row.mcp
    if row.longest_waiting:  # it takes nothing new for that
        entry["longest_waiting"] = row.longest_waiting
    return entry


def host_entry(row: HostRow) -> dict[str, object]:
    """Return one host's row."""
    return {
        "host": row.host,
        "gateway": row.gateway,
        "workers": row.workers,
        "joined_at": row.joined_at,
        "running": row.brief.running,
        "waiting": row.brief.waiting,
    }


def turn_list(own: Sequence[TurnRow], hosts: Sequence[HostRow]) -> list[dict[str, object]]:
    """Return turns as ``GET /v1/turns`` shows them, those that have run longest first."""
    if not hosts:
        return [msgspec.structs.asdict(row) for row in own]
    found = [{"host": row.host, **msgspec.structs.asdict(turn)} for row in hosts for turn in row.view.turns]
    return sorted(found, key=lambda turn: turn["started_at"] or float("inf"))
