"""The pool: composes the parent wing, and acts on what its parts tell, one piece of news after the other.

claimer ── Claim ──> turn ── dispatcher ──> slot ── supervisor ──> worker ── TurnDone ──> settler ── ClaimSettled
                       └──────────── hang detector: Hung, Worn ── crash policy ────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from shared.attachments import FileSource
from shared.errors import StoreUnavailable
from shared.events import Event, Events
from shared.hosts import ChatOwner
from shared.messages import Claim, ClaimRef, Parked, Retry
from shared.settings import Settings
from shared.signals import Signal, SignalKind
from shared.store.port import Store
from worker.frames import LogEvent, OfTurn, ToHostServers, ToPool, TurnWaits
from worker.pool.dispatcher import Dispatcher
from worker.pool.faults import tell_fault
from worker.pool.feed import Feed
from worker.pool.hang_detector import IDLE_LOOK_S, LOOK_S, Finding, HangDetector, Hung, Limits, Worn
from worker.pool.host_lease import HostLease, HostRow
from worker.pool.host_servers import HostServers
from worker.pool.log_audit import LogAudit
from worker.pool.loops import Loops
from worker.pool.membership import Membership
from worker.pool.processes.death import Cause, Death
from worker.pool.processes.worker_process import (
    ChannelWritable,
    FrameReceived,
    WorkerEnded,
    WorkerNews,
    WorkerPlaced,
    WorkerProcess,
)
from worker.pool.quarantine import Quarantine
from worker.pool.rolling_restart import RollingRestart
from worker.pool.snapshot import PoolSnapshot, take_snapshot, turn_rows
from worker.pool.store_health import StoreHealth
from worker.pool.supervisor import Supervisor
from worker.pool.turn_scheduler import TurnScheduler
from worker.pool.turns.active_turn import TurnRow
from worker.pool.turns.attachment_loader import AttachmentLoader
from worker.pool.turns.claimer import POLL_S, Claimer
from worker.pool.turns.gateway_relay import GatewayRelay
from worker.pool.turns.history_loader import HistoryLoader
from worker.pool.turns.observer import SignalReceiver, TurnObserver
from worker.pool.turns.settler import ClaimSettled, ClaimStale, ClaimUnwritable, CommittedIntent, SettlerNews
from worker.pool.turns.turns import Turns
from worker.pool.worker_config import worker_config

#: seconds between two moves of turns that wait for a full slot
REBALANCE_EVERY_S = 1.0
#: seconds between two looks at which turns may be let go for new ones
MAKE_ROOM_EVERY_S = 0.25
#: how long outcomes may still be written after the last worker is gone, in seconds
FLUSH_S = 3.0

News = WorkerNews | SettlerNews | Finding | Claim


class Pool:
    """Runs the turns of one host; ``observer`` is told what they do, ``host`` names this process in the claims.

    ``gateway`` says whether the host accepts messages, too; ``receiver`` is told of turns that others run for it.
    ``files`` is where files of messages are fetched.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        events: Events,
        observer: TurnObserver,
        host: str,
        *,
        gateway: bool = True,
        receiver: SignalReceiver | None = None,
        files: FileSource | None = None,
    ) -> None:
        config = worker_config(settings)
        self._workers = settings.workers
        self._slots = settings.workers * (settings.turns_per_worker + settings.waiting_turns)
        self._events = events
        self._draining = asyncio.Event()
        self._ready = asyncio.Event()
        self._claiming: asyncio.Task[None] | None = None
        self._health = StoreHealth(events)
        self._loops = Loops(events, self._health)
        # to stay with a worker is of use as long as it can hold the conversation
        self._dispatcher = Dispatcher(sticky_limit=max(1, settings.workers) * settings.todo_cache_size)
        self._supervisor = Supervisor(settings.workers, settings.spares, config, events)
        self._host_servers = HostServers(config, Limits.of(settings), events, self._supervisor)
        self._log_audit = LogAudit(store, events, config)
        self._quarantine = Quarantine(self._supervisor, first=settings.workers)
        self._rolling_restart = RollingRestart(self._supervisor, events)
        self._lease = HostLease(store, host, gateway=gateway, workers=settings.workers)
        self._relay = GatewayRelay(observer, store.signals, self._lease)
        self._turns = Turns(store, events, self._health, self._relay, settings.budgets)
        history = HistoryLoader(store, self._health, settings.context_tokens)
        attachments = AttachmentLoader(store, self._health, files, settings.webhooks.attachments, self._lease)
        self._scheduler = TurnScheduler(
            settings, events, self._turns, self._dispatcher, self._quarantine, history, attachments, self._loops
        )
        self._claimer = Claimer(store, events, host, budgets=settings.budgets)
        self._membership = self._make_membership(store, receiver)
        self._hang_detector = HangDetector(Limits.of(settings))

    def _make_membership(self, store: Store, receiver: SignalReceiver | None) -> Membership:
        return Membership(
            store,
            self._events,
            self._lease,
            self._claimer,
            self._supervisor,
            self._dispatcher,
            self._host_servers,
            self._scheduler,
            self._turns,
            self._log_audit,
            receiver,
            self._slots,
        )

    @property
    def ready(self) -> bool:
        """Tell whether a worker can take turns now, and every loop of the pool does its work."""
        return self._scheduler.serving and not self._draining.is_set() and not self._loops.failing

    async def start(self) -> None:
        """Start the workers and begin to claim; returns once a worker is ready, at once with no workers."""
        await self.join_hosts()
        if self._workers == 0:
            return
        self._supervisor.start()
        self._host_servers.start(self._loops)
        self._loops.spawn("acting on workers", self._act_always(self._supervisor.news))
        self._loops.spawn("acting on outcomes", self._act_always(self._turns.news))
        self._claiming = self._loops.always("claiming", self._claim, until=self._draining)
        self._loops.always("renewing leases", self._renew)
        self._loops.always("looking for hangs", self._look_for_hangs)
        self._loops.always("rebalancing", self._rebalance)
        self._loops.always("making room", self._make_room)
        self._loops.always("replacing workers", self._replace_outdated)
        self._loops.always("auditing session logs", self._log_audit.run)
        await self._ready.wait()

    def wake(self) -> None:
        """Look for work now: some was accepted."""
        self._claimer.wake()
        self._lease.tell_others(Signal(SignalKind.WORK))

    @property
    def idle_host(self) -> str:
        """This host where it would run a turn at once, and may claim one without a look at budgets; else empty."""
        idle = self._lease.joined and not self._claimer.bounded and self._dispatcher.room > 0
        return self._lease.host if idle and not self.fenced and not self._draining.is_set() else ""

    def run(self, claim: Claim) -> None:
        """Run the turn of a claim that came with its message; where none begins any more others may have it."""
        if self.fenced or self._draining.is_set():
            self._turns.park(claim.ref)
        else:
            self._events.emit(Event.SESSION_CLAIMED, session=claim.ref.session, epoch=claim.ref.epoch)
            self._act_on_all((claim,))

    @property
    def other_hosts(self) -> int:
        """How many other hosts with workers live."""
        return len(self._lease.others)

    @property
    def fenced(self) -> bool:
        """Whether this host could not renew its lease, so that its turns and its replies may be others'."""
        return bool(self._lease.fence)

    @property
    def gateways(self) -> int:
        """How many gateways share the database, this one among them."""
        return self._lease.gateways

    @property
    def joined_mono(self) -> float | None:
        """When this gateway joined others, on the monotonic clock; None where there were none."""
        return self._lease.joined_mono

    def chat_owner(self, platform: str, chat: str) -> ChatOwner:
        """Return the gateway that sends to a chat of a platform, or with no chat to all of it."""
        return self._lease.chat_owner(platform, chat)

    def sends(self, platform: str) -> bool:
        """Tell whether replies of a platform are this gateway's to send, as long as it does."""
        return self._lease.sends(platform)

    def tell_senders(self) -> None:
        """Tell the other gateways that a reply may be due."""
        self._lease.tell_gateways(Signal(SignalKind.DUE))

    @property
    def on_duty(self) -> bool:
        """Whether what one host does for all is this one's: the first gateway of those that live."""
        return self._lease.on_duty

    async def hosts(self) -> tuple[HostRow, ...]:
        """Return every live host of a database that hosts share, with its workers and turns."""
        return await self._membership.hosts()

    @property
    def load(self) -> tuple[int, int]:
        """How many turns have begun on all hosts together, and how many they run at once."""
        if self._lease.shared:
            return self._lease.load
        return self._scheduler.counts[0], self._slots

    def tell_pages(self, name: str, fields: Mapping[str, object]) -> None:
        """Tell the pages of other gateways what happened at this one."""
        self._relay.tell_pages(name, fields)

    async def drain(self, within_s: float) -> None:
        """Park every turn at its next step boundary; what has not parked in time is killed and resumes later."""
        await self._stop_claiming()
        self._supervisor.drain_all()
        self._scheduler.drain()
        try:
            async with asyncio.timeout(within_s):
                await self._turns.none_held()
        except TimeoutError:
            for worker in list(self._supervisor.workers):
                await self._supervisor.end(worker, Death(Cause.DRAINED, error="it did not drain in time"), dump=False)
            # a store that is away may not hold up the end: what it did not take resumes from the checkpoints
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._turns.none_held()

    async def close(self) -> None:
        """End every worker and write what can be written; turns that still ran resume in a later process."""
        await self._stop_claiming()
        await self._loops.close()
        await self._host_servers.close()
        await self._supervisor.close()
        self._act_on_all(self._supervisor.news.left())
        for turn in self._turns:
            self._scheduler.end(turn, Parked())
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._turns.flush()
        except TimeoutError:
            await self._turns.close()
        self._act_on_all(self._turns.news.left())
        if self._lease.shared:
            with contextlib.suppress(StoreUnavailable):
                await self._lease.leave()

    def renew(self) -> None:
        """Replace every worker, one at a time, by one with the code and tools that lie on disk now."""
        self._rolling_restart.ask()

    def stop(self, session: str, message_id: str) -> None:
        """End a message's turn now, or when it begins, on whichever host."""
        self._scheduler.stop(session, message_id)
        self._lease.tell_others(Signal(SignalKind.STOP, session, message_id))

    def steer(self, session: str) -> None:
        """Let the words that wait to join the session's turn do so, now or when it begins, on whichever host."""
        self._scheduler.steer(session)
        self._lease.tell_others(Signal(SignalKind.STEER, session))

    async def interrupt(self, session: str) -> bool:
        """End the session's running turn now, on whichever host; False if none runs."""
        return self._scheduler.interrupt(session) or await self._membership.interrupt(session)

    def removed(self, session: str) -> None:
        """Take note that a session was removed: its turn ends, nothing of it stays in memory or logs, on any host."""
        self._membership.forget(session)
        self._lease.tell_others(Signal(SignalKind.FORGET, session))

    async def kill_worker(self, n: int, host: str = "") -> bool:
        """SIGKILL the worker in a slot, of another host by its id, as a fault would; False if there is none.

        Raises StoreUnavailable where other hosts cannot be told.
        """
        if host in {"", self._lease.host}:
            return self._supervisor.kill_slot(n)
        return await self._membership.kill_worker(host, n)

    async def recycle_worker(self, n: int) -> bool:
        """Replace the worker in a slot behind a spare; its turns go on elsewhere.

        False if there is none, or one that is no other's equal: it ends already, or runs a suspect alone.
        """
        worker = next((worker for worker in self._supervisor.workers if worker.n == n), None)
        if worker is None or not self._scheduler.serves(worker):
            return False
        while self._supervisor.holds_slot(worker):
            self._replace(worker, "asked for")
            if self._supervisor.holds_slot(worker):  # no spare is ready yet
                await asyncio.sleep(LOOK_S)
        return True

    def turn_rows(self, limit: int) -> list[TurnRow]:
        """Return up to ``limit`` turns as they look from outside, those that have run longest first."""
        return turn_rows(self._turns, limit)

    def running_turn(self, session: str) -> TurnRow | None:
        """Return the session's running turn."""
        turn = self._turns.of_session(session)
        return turn.row() if turn and turn.worker else None

    def todo(self, session: str) -> bytes | None:
        """Return the todo list (JSON array) that a turn has changed and not settled; None where the store's holds.

        Ask this before the store: what is settled in between is found there then.
        """
        return self._turns.todo(session)

    def snapshot(self) -> PoolSnapshot:
        """Return how the pool looks now."""
        return take_snapshot(self._supervisor, self._dispatcher, self._turns, self._host_servers.status)

    async def join_hosts(self) -> None:
        """Begin to live among other hosts, where there may be any: before anything is accepted, or at the start."""
        await self._membership.join(self._loops)

    async def _claim(self) -> None:
        """Take what there is room for, then wait until it is worth looking again."""
        if self.fenced:
            await asyncio.sleep(LOOK_S)  # what was claimed now could not be kept
            return
        look = await self._claimer.look(self._renewed, self._dispatcher.room, self._quarantine.room)
        self._health.worked()
        self._act_on_all([*map(ClaimStale, look.lost), *look.claims])
        if look.wait_s:
            await self._claimer.until_woken(look.wait_s)

    @property
    def _renewed(self) -> list[ClaimRef]:
        """The claims that are renewed one by one: none where they live as long as the host."""
        return [] if self._lease.shared else self._turns.held

    async def _renew(self) -> None:
        await asyncio.sleep(POLL_S)
        self._act_on_all(ClaimStale(ref) for ref in await self._claimer.renew_if_due(self._renewed))

    async def _look_for_hangs(self) -> None:
        await asyncio.sleep(LOOK_S if self._turns.in_workers else IDLE_LOOK_S)
        self._act_on_all(self._hang_detector.look(list(self._supervisor.all_workers), self._turns.in_workers))
        self._quarantine.close_idle()

    async def _rebalance(self) -> None:
        await asyncio.sleep(REBALANCE_EVERY_S)
        self._scheduler.rebalance()
        self._scheduler.tell_who_waits()

    async def _make_room(self) -> None:
        await asyncio.sleep(MAKE_ROOM_EVERY_S)
        was_full = self._dispatcher.room == 0
        self._scheduler.make_room()
        if was_full and self._dispatcher.room > 0:
            self._claimer.wake()

    async def _replace_outdated(self) -> None:
        async for worker in self._rolling_restart.due():
            self._replace(worker, "new code")

    async def _act_always(self, feed: Feed[Any]) -> None:
        async for news in feed:
            self._act(news)

    def _act_on_all(self, all_news: Iterable[News]) -> None:
        for news in all_news:
            self._act(news)

    def _act(self, news: News) -> None:
        """Act on news; what goes wrong ends the turn that they are about, visibly, and nothing else."""
        try:
            self._act_on(news)
        except Exception as error:  # noqa: BLE001 - the boundary: the next news are acted on
            tell_fault(self._events, f"acting on {type(news).__name__}", error)
            match news:
                case Claim():
                    self._scheduler.begin_failed(news, error)
                case FrameReceived(worker=worker, frame=frame) if isinstance(frame, OfTurn):
                    self._scheduler.frame_failed(worker, frame, error)

    def _act_on(self, news: News) -> None:
        match news:
            case Claim():
                self._relay.claimed(news)
                self._scheduler.begin(news)
            case FrameReceived(worker=worker, frame=frame):
                self._frame_came(worker, frame)
            case WorkerPlaced(worker=worker):
                self._ready.set()
                self._host_servers.serve(worker)
                self._scheduler.serve(worker)
                self._claimer.wake()
            case ChannelWritable(worker=worker):
                self._scheduler.resume(worker)
                self._claimer.wake()
            case WorkerEnded(worker=worker, death=death):
                self._host_servers.worker_ended(worker)
                self._log_audit.suspect(self._scheduler.worker_ended(worker, death))
            case Hung(worker=worker, death=death):
                self._hung(worker, death)
            case Worn(worker=worker, reason=reason):
                self._replace(worker, reason)
            case ClaimSettled():
                self._settled(news)
            case CommittedIntent(ref=ref, call_id=call_id):
                self._scheduler.intent_kept(ref, call_id)
            case ClaimStale(ref=ref):
                if turn := self._turns.stale(ref):
                    self._scheduler.lose(turn)
                self._claimer.wake()
            case ClaimUnwritable(error=error):
                if turn := self._turns.unwritable(news):
                    self._scheduler.fail(turn, error)

    def _frame_came(self, worker: WorkerProcess, frame: ToPool) -> None:
        if isinstance(frame, OfTurn):
            was_full = self._dispatcher.room == 0
            self._scheduler.frame_came(worker, frame)
            if isinstance(frame, TurnWaits) and was_full and self._dispatcher.room > 0:
                self._claimer.wake()
        elif isinstance(frame, ToHostServers):
            self._host_servers.frame_came(worker, frame)
        elif isinstance(frame, LogEvent):
            worker.tell(self._events, frame)

    def _settled(self, settled: ClaimSettled) -> None:
        self._turns.settled(settled)
        if isinstance(settled.outcome, Retry) and settled.outcome.suspect:
            self._claimer.expect_suspect()
        self._claimer.turn_ended(goes_on=settled.settlement.goes_on)

    def _hung(self, worker: WorkerProcess, death: Death) -> None:
        # what came now would share the blame for a death it has no part in
        self._scheduler.pause(worker)
        turn = self._turns.get(death.culprit)
        message = turn.message_id if turn else ""
        self._loops.spawn("ending a hung worker", self._supervisor.end_hung(worker, death, message))

    def _replace(self, worker: WorkerProcess, reason: str) -> None:
        """Replace a worker behind a spare; until one is ready it goes on."""
        if self._scheduler.serves(worker) and self._supervisor.spares:
            self._scheduler.stop_serving(worker)
            self._events.emit(Event.WORKER_RECYCLED, n=worker.n, pid=worker.pid, reason=reason)
        self._supervisor.replace(worker)

    async def _stop_claiming(self) -> None:
        """Take no more claims; one that the store is giving now still comes to its turn."""
        self._draining.set()
        self._claimer.wake()
        if self._claiming is not None:
            await asyncio.wait({self._claiming})
