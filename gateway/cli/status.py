"""``status``: how the gateway is; without one, what its database holds."""

from __future__ import annotations

from typing import Any

from gateway.cli.command import Invocation, Subcommand
from gateway.cli.database import database_name, opened_store
from gateway.cli.running_gateway import RunningGateway, address, find_gateway
from gateway.cli.terminal import table
from gateway.trace_text import moment
from shared.version import VERSION

MIB = 2**20
#: what is shown of the load, under the names of ``GET /v1/stats``
LOAD = ("waiting", "oldest_s", "running", "undelivered", "dead")


async def run(invocation: Invocation) -> int:
    """Print how things are; the exit status is 0 where a gateway runs and is ready, else 1."""
    gateway = await find_gateway(invocation.settings)
    found = await (status_of_running(gateway) if gateway else status_of_database(invocation))
    invocation.terminal.show(found, status_lines(found))
    return 0 if found["ready"] else 1


async def status_of_running(gateway: RunningGateway) -> dict[str, Any]:
    """Return what a gateway that runs tells of itself."""
    reason = await gateway.readiness()
    workers = await gateway.get("/v1/workers")
    samples = (await gateway.get("/v1/stats"))["samples"]
    load = {name: samples[-1][name] for name in LOAD if samples}
    return {"url": gateway.url, "version": VERSION, "ready": not reason, "reason": reason, **load, **workers}


async def status_of_database(invocation: Invocation) -> dict[str, Any]:
    """Return what the database of a gateway that does not run holds."""
    async with opened_store(invocation) as store:
        backlog = await store.inbox.backlog()
    settings = invocation.settings
    return {
        "url": address(settings),
        "version": VERSION,
        "ready": False,
        "reason": f"nothing listens at {address(settings)}"
        if settings.port
        else "no gateway was looked for: PORT is 0",
        "database": database_name(settings),
        "waiting": backlog.waiting,
        "oldest_s": backlog.oldest_s,
        "undelivered": backlog.undelivered,
        "dead": backlog.dead,
    }


def status_lines(found: dict[str, Any]) -> list[str]:
    """Return the status in words."""
    how = "ready" if found["ready"] else f"not ready: {found['reason']}"
    named = [f"{name:9} {found[name]}" for name in ("url", "version", "database") if name in found]
    if found.get("waiting") is not None:
        named.append(f"waiting   {found['waiting']} messages, the oldest for {found['oldest_s']:.0f} s")
        named.append(f"replies   {found['undelivered']} to be sent")
        named.append(f"dead      {found['dead']} letters")
    rows = found.get("workers", [])
    lines = [f"gateway   {how}", *named]
    if rows:
        lines.append(f"workers   {len(rows)}, {found['spares']} spares, {found['restarts']} replaced so far")
        lines += table(
            ("WORKER", "PID", "STATE", "TURNS", "SESSIONS", "MEMORY", "LOOP LAG", "SINCE"),
            (
                (
                    f"{row['host']}/{row['n']}" if "host" in row else row["n"],
                    row["pid"] or "-",
                    row["state"],
                    row["turns"],
                    row["sessions"],
                    f"{row['rss_bytes'] // MIB} MiB",
                    f"{row['loop_lag_s'] * 1000:.0f} ms" if "loop_lag_s" in row else "-",
                    moment(row["started_at"]) if row["started_at"] else "-",
                )
                for row in rows
            ),
        )
    return lines


COMMAND = Subcommand(
    name="status",
    summary="tell how the gateway is: ready or why not, its workers, what waits",
    examples=(
        "python -m gateway status",
        "python -m gateway status --json | jq .waiting",
    ),
    run=run,
)
