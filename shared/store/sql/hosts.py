"""The hosts of the port: who lives, and what each has to know of the others."""

from __future__ import annotations

from shared.hosts import Beat, HostNews, LiveHost
from shared.store.engine import Database, Engine, at_once
from shared.store.sql.tables import hosts, removals


class Hosts:
    """The hosts that share the database. A claim is live while the lease of its host is."""

    def __init__(self, engine: Engine) -> None:
        self._run = engine.run

    async def beat(self, beat: Beat, lease_s: float) -> HostNews:
        """Renew a host's lease, or let it join, and return what it has to know."""
        return await self._run("", _beat, beat, lease_s)

    async def live(self) -> tuple[LiveHost, ...]:
        """Return the hosts whose lease has not ended, in the order of their ids."""
        return await self._run("", hosts.live)

    async def leave(self, host: str) -> None:
        """End a host's lease: what it has claimed and leased is free at once."""
        await self._run("", hosts.leave, host)

    async def expire(self, keep_s: float, keep_removals_s: float) -> int:
        """Forget hosts that died longer ago than this, and older removals of sessions; count them."""
        forgotten = await self._run("", removals.expire, keep_removals_s)
        return forgotten + await self._run("", hosts.expire, keep_s)


def _beat(database: Database, beat: Beat, lease_s: float) -> HostNews:
    lapsed = hosts.beat(database, beat, lease_s)
    stops, steers, live, waiting, removed = at_once(
        database,
        lambda: hosts.stops(database, beat.host),
        lambda: hosts.steers(database, beat.host),
        lambda: hosts.peers(database),
        database.recount_waiting,
        lambda: removals.since(database, beat.heard_until),
    )
    return HostNews(lapsed, live, stops, steers, waiting, removed)
