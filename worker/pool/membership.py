"""This host among those that share its database: its beats, what it hears of others, its turns without a lease.

beat ──▶ stops, steers, removals, live hosts ──▶ turns of this host
signals ──▶ look for work · stop · steer · forget · kill · news of turns for pages and clients
no answer ──▶ turns end at 0.7 of the lease, workers at 0.9
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from shared.errors import NotFound, StoreUnavailable
from shared.events import Event, Events
from shared.hosts import Removal
from shared.messages import ClaimRef
from shared.signals import Signal, SignalKind
from shared.store.port import Store
from worker.frames import Forget
from worker.pool.dispatcher import Dispatcher
from worker.pool.hang_detector import LOOK_S
from worker.pool.host_lease import BEAT_EVERY_S, Fence, HostBrief, HostLease, HostRow, HostView, host_row
from worker.pool.host_servers import HostServers
from worker.pool.log_audit import LogAudit
from worker.pool.loops import Loops
from worker.pool.processes.death import Cause, Death
from worker.pool.snapshot import take_snapshot, turn_rows
from worker.pool.supervisor import Supervisor
from worker.pool.turn_scheduler import TurnScheduler
from worker.pool.turns.claimer import Claimer
from worker.pool.turns.observer import SignalReceiver
from worker.pool.turns.turns import Turns

#: beats between two comparisons of what this host runs with what it has claimed
COMPARE_EVERY = 5
#: turns that other hosts are shown, those that have run longest
TURNS_SHOWN = 20
#: comparisons after a lease that had ended, or nearly: one to lose what is others', one to give back what nobody runs
COMPARISONS_AFTER = 2


class Membership:
    """Owns the beats of this host and what follows from them; ``slots`` is how many turns it runs at once."""

    def __init__(
        self,
        store: Store,
        events: Events,
        lease: HostLease,
        claimer: Claimer,
        supervisor: Supervisor,
        dispatcher: Dispatcher,
        host_servers: HostServers,
        scheduler: TurnScheduler,
        turns: Turns,
        log_audit: LogAudit,
        receiver: SignalReceiver | None,
        slots: int,
    ) -> None:
        self._store = store
        self._events = events
        self._lease = lease
        self._claimer = claimer
        self._supervisor = supervisor
        self._dispatcher = dispatcher
        self._host_servers = host_servers
        self._scheduler = scheduler
        self._turns = turns
        self._log_audit = log_audit
        self._receiver = receiver
        self._slots = slots
        self._joined = False
        self._fenced = Fence.OPEN
        self._beats = 0
        self._comparisons = 0
        self._removals: list[Removal] = []
        self._unknown: set[ClaimRef] = set()

    async def join(self, loops: Loops) -> None:
        """Begin to live among other hosts, where there may be any; once."""
        if self._joined or not self._lease.shared:
            return
        self._joined = True
        await self._store.signals.start(self._lease.host)
        with contextlib.suppress(StoreUnavailable):  # it is tried again each second
            await self._renew()
        loops.always("renewing the lease of the host", self._beat)
        loops.always("watching the lease of the host", self._watch_lease)
        loops.always("hearing other hosts", self._hear_hosts)

    async def hosts(self) -> tuple[HostRow, ...]:
        """Return every live host with its workers and turns, this one as it is now; none where none may share.

        While the database is away they are those of the last beat.
        """
        if not self._lease.shared:
            return ()
        try:
            live = await self._store.hosts.live()
        except StoreUnavailable:
            live = self._lease.hosts
        rows = (host_row(one) for one in live)
        return tuple(msgspec.structs.replace(row, view=self._view()) if self._is_own(row) else row for row in rows)

    async def interrupt(self, session: str) -> bool:
        """End the session's running turn on another host; False if none runs."""
        if not self._lease.others:
            return False
        self._lease.tell_others(Signal(SignalKind.STOP, session))
        with contextlib.suppress(NotFound, StoreUnavailable):
            return (await self._store.sessions.summary(session)).running
        return False

    async def kill_worker(self, host: str, n: int) -> bool:
        """Kill a worker of another host; False if there is none. Raises StoreUnavailable where it cannot be told."""
        row = next((row for row in await self.hosts() if row.host == host), None)
        if row is None or all(worker.n != n or not worker.pid for worker in row.view.pool.workers):
            return False
        if not self._store.signals.connected:
            raise StoreUnavailable("no signal reaches other hosts now: set DATABASE_DIRECT_URL behind a pooler")
        self._store.signals.send(host, Signal(SignalKind.KILL, text=str(n)))
        return True

    def forget(self, session: str) -> None:
        """Take note that a session was removed: its turn ends, nothing of it stays in memory or logs."""
        self._scheduler.forget(session)
        for worker in self._supervisor.all_workers:
            worker.send(Forget(session))
        self._log_audit.suspect([session])

    def _is_own(self, row: HostRow) -> bool:
        return row.host == self._lease.host and self._joined

    def _view(self) -> HostView:
        """Return what other hosts may see of this one, and what its own page shows."""
        pool = take_snapshot(self._supervisor, self._dispatcher, self._turns, self._host_servers.status)
        return HostView(pool, tuple(turn_rows(self._turns, TURNS_SHOWN)))

    async def _renew(self) -> None:
        running, waiting = self._scheduler.counts
        watched = self._receiver.watched if self._receiver else None
        platforms = self._receiver.platforms if self._receiver else ()
        brief = HostBrief(running, waiting, self._slots, watched is not None, watched or (), platforms)
        news = await self._lease.beat(brief, self._view())
        for stop in news.stops:
            self._scheduler.stop(stop.session, stop.message_id)
        for session in news.steers:
            self._scheduler.steer(session)
        self._removals += news.removals
        if news.lapsed or self._fenced:
            self._comparisons = COMPARISONS_AFTER
        self._fenced = Fence.OPEN

    async def _beat(self) -> None:
        await asyncio.sleep(BEAT_EVERY_S)
        await self._renew()
        self._beats += 1
        if self._removals:
            await self._hear_removals()
        if self._comparisons or self._beats % COMPARE_EVERY == 0:
            await self._compare_claims()
            self._comparisons = max(0, self._comparisons - 1)

    async def _hear_removals(self) -> None:
        """Forget sessions whose removal was not heard of yet; a turn of one that lives again goes on."""
        before = {turn.session: turn for turn in self._turns}
        held = {ref.session for ref in await self._lease.held()} if before else set()
        removals, self._removals = self._removals, []
        for removal in removals:
            if removal.session not in held and self._turns.of_session(removal.session) is before.get(removal.session):
                self.forget(removal.session)
            self._log_audit.removed(removal.session, removal.at)

    async def _compare_claims(self) -> None:
        """Drop turns whose claims are others' now, and give back claims that no turn of this host is for.

        The answer to such a claim's commit was lost, or its turn was ended by the fence. One that is unknown twice in a
        row is no claim on its way here; a turn that began after the question is in no answer to it.
        """
        before = list(self._turns)
        held = set(await self._lease.held())
        for turn in before:
            if turn.ref not in held and not turn.over:
                self._scheduler.lose(turn)
        unknown = {ref for ref in held if self._turns.of_claim(ref) is None}
        for ref in unknown & self._unknown:
            self._turns.park(ref)
        self._unknown = unknown

    async def _watch_lease(self) -> None:
        """End turns in time, and then workers, where the lease cannot be renewed."""
        await asyncio.sleep(LOOK_S)
        fence = self._lease.fence
        for worker in self._supervisor.all_workers:
            worker.page.set_fence(self._lease.ends_mono)
        if fence > self._fenced:
            self._fenced = fence
            self._events.emit(Event.HOST_FENCED, stage=fence.name.lower(), turns=len(self._turns))
            for turn in self._turns:
                self._scheduler.lose(turn)
        if fence is Fence.WORKERS_KILLED:
            death = Death(Cause.DRAINED, error="the host could not renew its lease")
            for worker in {turn.worker for turn in self._turns.in_workers if turn.worker is not None}:
                await self._supervisor.end(worker, death, dump=False)

    async def _hear_hosts(self) -> None:
        async for signal in self._store.signals.received():
            match signal.kind:
                case SignalKind.WORK:
                    self._claimer.wake()
                case SignalKind.STOP if signal.message_id:
                    self._scheduler.stop(signal.session, signal.message_id)
                case SignalKind.STOP:
                    self._scheduler.interrupt(signal.session)
                case SignalKind.FORGET:
                    self.forget(signal.session)
                case SignalKind.STEER:
                    self._scheduler.steer(signal.session)
                case SignalKind.KILL:
                    self._supervisor.kill_slot(int(signal.text))
                case _ if self._receiver is not None:
                    self._receiver.hear(signal)
