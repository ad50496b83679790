"""The hosts of the port: who lives, and what each has to know of the others."""

from __future__ import annotations

from shared.hosts import Beat, HostNews, LiveHost
from shared.store.engine import Database, Engine
from shared.store.sql.tables import hosts


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

    async def expire(self, keep_s: float) -> int:
        """Forget hosts that died longer ago than this; count them."""
        return await self._run("", hosts.expire, keep_s)


def _beat(database: Database, beat: Beat, lease_s: float) -> HostNews:
    lapsed = hosts.beat(database, beat, lease_s)
    stops, steers = hosts.stops(database, beat.host), hosts.steers(database, beat.host)
    return HostNews(lapsed, hosts.live(database), stops, steers, database.recount_waiting())
