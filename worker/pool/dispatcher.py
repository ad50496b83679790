"""Which turn runs in which slot; pure: no clock, no I/O.

A session stays with its slot, where its conversation is cached. One whose slot is full waits in the backlog, and moves
to another slot only when it has waited from one ``rebalance`` to the next. New sessions go to the least loaded slot.

A slot that holds as many turns as it may gives the place of one that may be let go to a new one. Those that were let go
rest, and go on where places are left beside the ones that new turns need:

    backlog ──> running ── let go for another ──> yielding ── rest ──> resting ── resume_rested ──> running
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec


class Waiting(msgspec.Struct, frozen=True):
    """A turn that waits for a slot."""

    #: its number
    turn: int
    #: key of its session
    session: str


class Assignment(msgspec.Struct, frozen=True):
    """A turn and the slot that is to run it now."""

    #: its number
    turn: int
    #: key of its session
    session: str
    #: number of the slot
    slot: int
    #: the turn that is let go for it, 0 for none
    displaces: int = 0


@dataclass(slots=True)
class Load:
    """What one slot runs."""

    #: turns it runs at once at most, those that wait for a model or a tool aside
    capacity: int
    #: how many more it holds while as many wait
    waiting_limit: int
    #: the turns it runs, with their sessions
    running: dict[int, str] = field(default_factory=dict)
    #: those of the turns that wait for a model or a tool
    waiting: set[int] = field(default_factory=set)
    #: those of the waiting turns that may be let go, those to be let go first in front
    expendable: dict[int, None] = field(default_factory=dict)
    #: those of the waiting turns that are let go and have yet to leave
    yielding: set[int] = field(default_factory=set)
    #: sessions that stay with it
    sessions: set[str] = field(default_factory=set)
    #: whether it takes new turns
    open: bool = True

    @property
    def free(self) -> int:
        """How many more turns it takes now, those counted for which another is let go."""
        places = self.capacity - (len(self.running) - len(self.waiting))
        return max(0, min(places, self.left)) if self.open else 0

    @property
    def free_for_rested(self) -> int:
        """How many turns that rest it takes: those that are new find as many places as it runs at once, and one now."""
        return min(self.free - (self.capacity > 1), self.left - min(self.capacity, self.waiting_limit))

    @property
    def left(self) -> int:
        """How many more turns it may hold, those counted for which another is let go."""
        return self.most - self.held + len(self.expendable)

    @property
    def held(self) -> int:
        """How many turns it holds, those that are let go aside."""
        return len(self.running) - len(self.yielding)

    @property
    def most(self) -> int:
        """How many turns it holds at most."""
        return self.capacity + self.waiting_limit

    def leave(self, turn: int) -> bool:
        """Forget a turn; False if it is not here."""
        self.goes_on(turn)
        return self.running.pop(turn, None) is not None

    def goes_on(self, turn: int) -> None:
        """Note that a turn waits no more."""
        self.waiting.discard(turn)
        self.expendable.pop(turn, None)
        self.yielding.discard(turn)

    def displace(self) -> int:
        """Let a turn go where there are more than there may be; return which, 0 for none."""
        if self.held <= self.most or not self.expendable:
            return 0
        turn = next(iter(self.expendable))
        del self.expendable[turn]
        self.yielding.add(turn)
        return turn


class Dispatcher:
    """Owns the assignment of turns to slots.

    A turn that waits for a model or a tool gives its place to another one until it goes on; so many more than run at
    once may a slot hold for that. ``sticky_limit`` bounds how many sessions' slots are remembered; the least recently
    dispatched is forgotten.
    """

    def __init__(self, sticky_limit: int = 100_000) -> None:
        self._loads: dict[int, Load] = {}
        self._slot_of: OrderedDict[str, int] = OrderedDict()
        self._sticky_limit = sticky_limit
        self._backlog: OrderedDict[int, Waiting] = OrderedDict()
        self._resting: OrderedDict[int, Waiting] = OrderedDict()
        self._overdue: set[int] = set()

    @property
    def room(self) -> int:
        """How many more turns may be claimed: the free credit, while the backlog is no longer than the capacity."""
        capacity = sum(load.capacity for load in self._loads.values() if load.open)
        free = sum(load.free for load in self._loads.values())
        return max(0, min(free, capacity - len(self._backlog)))

    @property
    def backlog(self) -> list[Waiting]:
        """The turns that wait for a slot, oldest first."""
        return list(self._backlog.values())

    def running(self, slot: int) -> dict[int, str]:
        """Return the turns of a slot with their sessions; empty for a slot that is not there."""
        load = self._loads.get(slot)
        return dict(load.running) if load else {}

    def sessions(self, slot: int) -> int:
        """Count the sessions that stay with a slot."""
        load = self._loads.get(slot)
        return len(load.sessions) if load else 0

    def add_slot(self, slot: int, capacity: int, waiting_limit: int = 0) -> list[Assignment]:
        """Take a slot whose worker is ready; return what it is to run at once."""
        self._loads[slot] = Load(capacity, waiting_limit)
        return self._dispatch_backlog()

    def remove_slot(self, slot: int) -> list[Assignment]:
        """Forget a slot whose worker is gone, with what ran in it and which sessions stayed with it.

        Return where those run now that waited for it.
        """
        if load := self._loads.pop(slot, None):
            for session in load.sessions:
                del self._slot_of[session]
        return self._dispatch_backlog()

    def pause(self, slot: int) -> None:
        """Give a slot nothing new; what runs there goes on."""
        if load := self._loads.get(slot):
            load.open = False

    def resume(self, slot: int) -> list[Assignment]:
        """Give a paused slot new turns again; return what it is to run at once."""
        if load := self._loads.get(slot):
            load.open = True
        return self._dispatch_backlog()

    def add(self, turn: int, session: str) -> list[Assignment]:
        """Take a new turn; return it with its slot if it can run now, else it waits."""
        waiting = Waiting(turn, session)
        slot = self._slot_for(session)
        if slot is None:
            self._backlog[turn] = waiting
            return []
        return [self._assign(waiting, slot)]

    def forget(self, session: str) -> None:
        """Forget with which slot a session stays."""
        self._leave(session)

    def refuse(self, assignment: Assignment) -> None:
        """Take back a turn whose slot cannot run it: it waits, before all others, and the slot takes nothing new."""
        self.pause(assignment.slot)
        if load := self._loads.get(assignment.slot):
            load.leave(assignment.turn)
        self._backlog[assignment.turn] = Waiting(assignment.turn, assignment.session)
        self._backlog.move_to_end(assignment.turn, last=False)

    def give_place(self, turn: int) -> list[Assignment]:
        """Note that a turn waits for a model or a tool; return what runs in its place."""
        load = self._load_of(turn)
        if load is None or load.waiting_limit == 0:
            return []
        load.waiting.add(turn)
        return self._dispatch_backlog()

    def take_place(self, turn: int) -> None:
        """Note that a turn goes on; where its place is taken by now it runs beside."""
        if load := self._load_of(turn):
            load.goes_on(turn)

    def crowded(self) -> list[int]:
        """Return the slots that have fewer places left than they run turns at once."""
        return [n for n, load in self._loads.items() if load.waiting and load.most - load.held < load.capacity]

    def may_let_go(self, slot: int, turns: Iterable[int]) -> list[Assignment]:
        """Note which waiting turns of a slot may be let go, in this order; return what runs in their places."""
        if load := self._loads.get(slot):
            load.expendable = {turn: None for turn in turns if turn in load.waiting and turn not in load.yielding}
        return self._dispatch_backlog()

    def keep(self, turn: int) -> None:
        """Note that a turn does not leave that was let go: what it waited for has come."""
        if load := self._load_of(turn):
            load.yielding.discard(turn)

    def rest(self, turn: int, session: str) -> list[Assignment]:
        """Take back a turn that was let go; return what can run in its place."""
        assigned = self.finish(turn)
        self._resting[turn] = Waiting(turn, session)
        return assigned

    @property
    def resting(self) -> int:
        """How many turns were let go and have yet to go on."""
        return len(self._resting)

    def resume_rested(self) -> list[Assignment]:
        """Return which of the turns that rest go on now, those that have rested longest first."""
        assigned: list[Assignment] = []
        while self._resting and not self._backlog:
            waiting = next(iter(self._resting.values()))
            own = self._slot_of.get(waiting.session)
            slot = own if own is not None and self._loads[own].free_for_rested > 0 else self._roomiest()
            if slot is None:
                break
            assigned.append(self._assign(waiting, slot))
        return assigned

    def held_up(self) -> list[int]:
        """Return the slots that take nothing new because they hold as many turns as they may, and some of them wait."""
        return [n for n, load in self._loads.items() if load.waiting and load.held >= load.most and not load.expendable]

    def finish(self, turn: int) -> list[Assignment]:
        """Forget a turn, running or waiting; return what can run in its place."""
        self._withdraw(turn)
        for load in self._loads.values():
            if load.leave(turn):
                return self._dispatch_backlog()
        return []

    def rebalance(self) -> list[Assignment]:
        """Move the turns that already waited at the last call to any slot with room; return where they run now."""
        moved = []
        for turn in [turn for turn in self._backlog if turn in self._overdue]:
            slot = self._least_loaded()
            if slot is None:
                break
            moved.append(self._assign(self._backlog[turn], slot))
        self._overdue = set(self._backlog)
        return moved

    def _slot_for(self, session: str) -> int | None:
        slot = self._slot_of.get(session)
        if slot is None:
            return self._least_loaded()
        return slot if self._loads[slot].free > 0 else None

    def _least_loaded(self) -> int | None:
        free = [
            ((len(load.running) - len(load.waiting)) / load.capacity, len(load.running), slot)
            for slot, load in self._loads.items()
            if load.free > 0
        ]
        return min(free)[2] if free else None

    def _roomiest(self) -> int | None:
        free = [(load.free_for_rested, -slot) for slot, load in self._loads.items()]
        most, slot = max(free, default=(0, 0))
        return -slot if most > 0 else None

    def _load_of(self, turn: int) -> Load | None:
        return next((load for load in self._loads.values() if turn in load.running), None)

    def _assign(self, waiting: Waiting, slot: int) -> Assignment:
        self._withdraw(waiting.turn)
        self._loads[slot].running[waiting.turn] = waiting.session
        self._stay(waiting.session, slot)
        return Assignment(waiting.turn, waiting.session, slot, self._loads[slot].displace())

    def _stay(self, session: str, slot: int) -> None:
        self._leave(session)
        self._slot_of[session] = slot
        self._loads[slot].sessions.add(session)
        if len(self._slot_of) > self._sticky_limit:
            self._leave(next(iter(self._slot_of)))

    def _leave(self, session: str) -> None:
        slot = self._slot_of.pop(session, None)
        if slot is not None:
            self._loads[slot].sessions.discard(session)

    def _dispatch_backlog(self) -> list[Assignment]:
        assigned = []
        for waiting in self.backlog:
            slot = self._slot_for(waiting.session)
            if slot is not None:
                assigned.append(self._assign(waiting, slot))
        return assigned

    def _withdraw(self, turn: int) -> None:
        self._backlog.pop(turn, None)
        self._resting.pop(turn, None)
        self._overdue.discard(turn)
