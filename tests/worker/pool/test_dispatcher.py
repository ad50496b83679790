"""The laws of dispatching, whatever comes: one slot a turn, capacity kept, nothing lost, sessions that stay."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from worker.pool.dispatcher import Assignment, Dispatcher

CAPACITY = 2
LIMIT = 2
SLOTS = 3


def placed(assignments: Iterable[Assignment]) -> list[tuple[int, int]]:
    return [(assignment.turn, assignment.slot) for assignment in assignments]


class Dispatching(RuleBasedStateMachine):
    """Random claims, ends, deaths and pauses against a model: turn to slot, and the turns that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher(sticky_limit=8)
        self.turns = 0
        self.running: dict[int, int] = {}
        self.waiting: set[int] = set()
        self.sessions: dict[int, str] = {}
        self.slots: set[int] = set()
        self.paused: set[int] = set()
        self.in_model: set[int] = set()
        self.expendable: set[int] = set()
        self.yielding: set[int] = set()
        self.resting: set[int] = set()

    def places_taken(self, slot: int) -> int:
        return sum(1 for turn, n in self.running.items() if n == slot and turn not in self.in_model)

    def take(self, assignments: Iterable[Assignment]) -> None:
        for assignment in assignments:
            known = self.waiting if assignment.turn in self.waiting else self.resting
            assert assignment.turn in known, "a turn was given out twice, or never came"
            assert assignment.slot in self.slots - self.paused, "a turn was given to a slot that takes none"
            assert assignment.session == self.sessions[assignment.turn]
            known.remove(assignment.turn)
            self.running[assignment.turn] = assignment.slot
            self.in_model.discard(assignment.turn)
            if assignment.displaces:
                assert self.running[assignment.displaces] == assignment.slot
                assert assignment.displaces in self.expendable, "a turn was let go that may not be"
                self.expendable.remove(assignment.displaces)
                self.yielding.add(assignment.displaces)
            assert self.places_taken(assignment.slot) <= CAPACITY, "a turn was given to a slot without a place"

    @rule(session=st.integers(0, 5))
    def claim(self, session: int) -> None:
        key = f"s:{session}"
        if any(self.sessions[turn] == key for turn in [*self.running, *self.waiting, *self.resting]):
            return  # the store leases a session once
        self.turns += 1
        self.sessions[self.turns] = key
        self.waiting.add(self.turns)
        self.take(self.dispatcher.add(self.turns, key))

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        known = [*self.running, *self.waiting, *self.resting]
        if known:
            turn = data.draw(st.sampled_from(sorted(known)))
            self.leave(turn)
            self.waiting.discard(turn)
            self.resting.discard(turn)
            self.take(self.dispatcher.finish(turn))

    def leave(self, turn: int) -> None:
        self.running.pop(turn, None)
        self.goes_on(turn)

    def goes_on(self, turn: int) -> None:
        for turns in (self.in_model, self.expendable, self.yielding):
            turns.discard(turn)

    @rule(slot=st.integers(0, SLOTS - 1))
    def models_are_silent(self, slot: int) -> None:
        if slot in self.slots:
            silent = [turn for turn, n in self.running.items() if n == slot and turn in self.in_model - self.yielding]
            self.expendable = {turn for turn in self.expendable if self.running[turn] != slot} | set(silent)
            self.take(self.dispatcher.may_let_go(slot, silent))

    @rule(data=st.data(), answered=st.booleans())
    def a_turn_is_let_go(self, data: st.DataObject, answered: bool) -> None:
        if not self.yielding:
            return
        turn = data.draw(st.sampled_from(sorted(self.yielding)))
        self.yielding.discard(turn)
        if answered:
            self.dispatcher.keep(turn)
            return
        self.leave(turn)
        assigned = self.dispatcher.rest(turn, self.sessions[turn])
        self.resting.add(turn)
        self.take(assigned)

    @rule()
    def those_that_rest_go_on(self) -> None:
        assigned = self.dispatcher.resume_rested()
        assert not (assigned and self.waiting), "a turn that was let go went before a new one"
        self.take(assigned)

    @rule(data=st.data())
    def model_is_asked(self, data: st.DataObject) -> None:
        if self.running:
            turn = data.draw(st.sampled_from(sorted(self.running)))
            self.in_model.add(turn)
            self.take(self.dispatcher.give_place(turn))

    @rule(data=st.data())
    def model_answers(self, data: st.DataObject) -> None:
        if self.running:
            turn = data.draw(st.sampled_from(sorted(self.running)))
            self.goes_on(turn)
            self.dispatcher.take_place(turn)

    @rule(slot=st.integers(0, SLOTS - 1))
    def worker_comes(self, slot: int) -> None:
        if slot not in self.slots:
            self.slots.add(slot)
            self.take(self.dispatcher.add_slot(slot, CAPACITY, LIMIT))

    @rule(slot=st.integers(0, SLOTS - 1))
    def worker_dies(self, slot: int) -> None:
        self.slots.discard(slot)
        self.paused.discard(slot)
        for turn in [turn for turn, n in self.running.items() if n == slot]:
            self.leave(turn)
        self.take(self.dispatcher.remove_slot(slot))

    @rule(slot=st.integers(0, SLOTS - 1))
    def channel_fills(self, slot: int) -> None:
        if slot in self.slots:
            self.paused.add(slot)
            self.dispatcher.pause(slot)

    @rule(slot=st.integers(0, SLOTS - 1))
    def channel_empties(self, slot: int) -> None:
        self.paused.discard(slot)
        self.take(self.dispatcher.resume(slot))

    @rule(session=st.integers(0, 5))
    def claim_for_a_worker_that_has_just_ended(self, session: int) -> None:
        known = {self.sessions[turn] for turn in [*self.running, *self.waiting, *self.resting]}
        if f"s:{session}" in known:
            return
        self.claim(session)
        slot = self.running.pop(self.turns, None)
        if slot is not None:
            self.waiting.add(self.turns)
            self.paused.add(slot)
            self.dispatcher.refuse(Assignment(self.turns, self.sessions[self.turns], slot))
            assert self.dispatcher.backlog[0].turn == self.turns

    @rule()
    def time_passes(self) -> None:
        self.take(self.dispatcher.rebalance())

    @invariant()
    def both_agree(self) -> None:
        assert {waiting.turn for waiting in self.dispatcher.backlog} == self.waiting
        for slot in range(SLOTS):
            mine = {turn for turn, n in self.running.items() if n == slot}
            assert set(self.dispatcher.running(slot)) == mine
            assert len(mine - self.yielding) <= CAPACITY + LIMIT or not mine & self.expendable
        assert self.dispatcher.resting == len(self.resting)

    @invariant()
    def room_is_never_more_than_the_free_credit(self) -> None:
        free = sum(max(0, CAPACITY - self.places_taken(slot)) for slot in self.slots - self.paused)
        assert 0 <= self.dispatcher.room <= free

    @invariant()
    def no_more_sessions_are_remembered_than_allowed(self) -> None:
        assert sum(self.dispatcher.sessions(slot) for slot in range(SLOTS)) <= 8


TestDispatching = Dispatching.TestCase
TestDispatching.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_session_stays_with_its_slot_while_its_worker_lives() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_slot(0, 4)
    dispatcher.add_slot(1, 4)
    ((_, first),) = placed(dispatcher.add(1, "s"))
    dispatcher.finish(1)
    dispatcher.add(2, "other")
    dispatcher.add(3, "another")
    assert placed(dispatcher.add(4, "s")) == [(4, first)]


def test_new_sessions_go_to_the_least_loaded_slot() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_slot(0, 2)
    dispatcher.add_slot(1, 2)
    slots = [placed(dispatcher.add(turn, f"s{turn}"))[0][1] for turn in range(1, 5)]
    assert sorted(slots[:2]) == [0, 1]
    assert sorted(slots) == [0, 0, 1, 1]


def test_a_session_waits_for_its_full_slot_and_moves_only_when_it_has_waited_long() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_slot(0, 1)
    dispatcher.add(1, "s")
    dispatcher.finish(1)
    dispatcher.add(2, "hung")
    dispatcher.add_slot(1, 1)
    assert dispatcher.add(3, "s") == []
    assert dispatcher.rebalance() == []
    assert placed(dispatcher.rebalance()) == [(3, 1)]


def test_what_waits_for_a_worker_that_is_gone_runs_elsewhere_at_once() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_slot(0, 1)
    (assignment,) = dispatcher.add(1, "s")
    dispatcher.refuse(assignment)
    assert dispatcher.add_slot(1, 1) == []
    assert placed(dispatcher.remove_slot(0)) == [(1, 1)]


def test_a_backlog_as_long_as_the_capacity_ends_claiming() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_slot(0, 1)
    dispatcher.add(1, "s0")
    dispatcher.finish(1)
    dispatcher.add(2, "s0")
    dispatcher.add_slot(1, 1)
    assert dispatcher.room == 1
    dispatcher.pause(1)
    assert dispatcher.room == 0


def test_a_turn_that_waits_gives_its_place_away_inside_a_bound() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_slot(0, 1, 1)
    dispatcher.add(1, "s1")
    assert dispatcher.add(2, "s2") == []
    assert placed(dispatcher.give_place(1)) == [(2, 0)]
    dispatcher.add(3, "s3")
    assert dispatcher.give_place(2) == []
    assert dispatcher.held_up() == [0]
    dispatcher.take_place(1)
    assert placed(dispatcher.finish(1)) == [(3, 0)]


def test_where_all_places_are_taken_one_that_may_be_let_go_makes_place_for_a_new_one() -> None:
    dispatcher = Dispatcher()
    dispatcher.add_slot(0, 1, 1)
    for turn in (1, 2):
        dispatcher.add(turn, f"s{turn}")
        dispatcher.give_place(turn)
    assert dispatcher.crowded() == dispatcher.held_up() == [0]
    assert dispatcher.room == 0
    dispatcher.may_let_go(0, [2, 1])
    assert (dispatcher.room, dispatcher.held_up()) == (1, [])
    assert dispatcher.add(3, "s3") == [Assignment(3, "s3", 0, displaces=2)]
    assert dispatcher.rest(2, "s2") == []
    assert dispatcher.resume_rested() == []
    assert dispatcher.finish(3) == []
    dispatcher.may_let_go(0, [])
    assert dispatcher.resume_rested() == []  # the place that is left is a new one's
    dispatcher.may_let_go(0, [1])
    assert dispatcher.resume_rested() == [Assignment(2, "s2", 0)]
