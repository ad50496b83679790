"""The audit of the crash proof finds what is broken: a proof that cannot fail proves nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loadtests.crash.audit import Findings, audit
from loadtests.crash.evidence import CallId, Evidence, Heard, TranscriptMessage
from loadtests.crash.fault import Fault, FaultKind, Party
from loadtests.crash.notes import Note
from loadtests.crash.plan import Boundary, Kill, Round, Saying, Side, ToolCall, Victim

KILL_AT = (Boundary.SETTLE, Side.BEFORE)
KILL = Kill(*KILL_AT, Victim.GATEWAY)
SAYINGS = tuple(Saying("s", f"m{n}", ((ToolCall(f"t{n}", 0.0, n == 1),),), 0.0, 0, True) for n in range(2))


def of(saying: Saying, key: str = "") -> Heard:
    return Heard("s", f"id-{saying.name}", saying.answer, "replied", key or f"id-{saying.name}.0")


def history_of(saying: Saying) -> list[TranscriptMessage]:
    call = saying.calls[0].label
    return [
        TranscriptMessage("user", f"{saying.name} [[say it]]"),
        TranscriptMessage("assistant", None, (CallId(call),)),
        TranscriptMessage("tool", f"noted {call}", (), call),
        TranscriptMessage("assistant", saying.answer),
    ]


def ran(label: str, key: str = "k") -> list[Note]:
    """A tool call that began and had its effect."""
    return [Note(0, Boundary.EFFECT, side, keys=(key,), labels=(label,)) for side in Side]


def sent(life: int, key: str, boundary: Boundary = Boundary.SEND, side: Side = Side.BEFORE) -> Note:
    return Note(life, boundary, side, keys=(key,))


WHOLE = Evidence(
    plan=Round(0, KILL, (SAYINGS,)),
    notes=[*ran("t0"), *ran("t1"), Note(1, Boundary.SETTLE, Side.BEFORE, killed=KILL)],
    heard=[of(saying) for saying in SAYINGS],
    answered_ids={saying.name: {f"id-{saying.name}"} for saying in SAYINGS},
    statuses={200: 3, 503: 1},
    dead=set(),
    histories={"s": [message for saying in SAYINGS for message in history_of(saying)]},
)


def judged(victim: Victim = Victim.GATEWAY, **changed: Any) -> Findings:
    kill = msgspec.structs.replace(KILL, victim=victim)
    plan = msgspec.structs.replace(WHOLE.plan, kill=kill)
    return audit(msgspec.structs.replace(WHOLE, plan=plan, **changed))


def test_a_whole_round_has_no_problem() -> None:
    found = judged()
    assert found.problems == ()
    assert (found.fired, found.accepted, found.answered, found.redelivered) == (True, 2, 2, 1)


def test_a_message_without_a_reply_is_lost() -> None:
    assert judged(heard=WHOLE.heard[:1]).lost == 1


def test_a_dead_letter_is_a_problem_when_no_message_was_to_blame() -> None:
    found = judged(heard=WHOLE.heard[:1], dead={"id-m1"})
    assert (found.dead, found.lost) == (1, 0)
    assert found.problems


@pytest.mark.parametrize(
    "changed",
    [
        {"answered_ids": WHOLE.answered_ids | {"m0": {"id-m0", "id-other"}}},
        {"notes": [*WHOLE.notes, *[Note(1, Boundary.SETTLE, Side.AFTER, message="id-m0", ended=True)] * 2]},
        {"heard": [WHOLE.heard[0], of(SAYINGS[0], key="another"), WHOLE.heard[1]]},
        {"histories": {"s": [*history_of(SAYINGS[0]), *WHOLE.histories["s"]]}},
    ],
    ids=["two ids", "two settles", "two reply keys", "twice in the history"],
)
def test_a_second_turn_shows(changed: dict[str, Any]) -> None:
    found = judged(**changed)
    assert found.second_turns == 1
    assert found.problems


def test_a_tool_call_finished_by_a_commit_must_not_run_again() -> None:
    done = Note(1, Boundary.RESULT, Side.AFTER, labels=("t0",))
    assert judged(notes=[*ran("t0"), done, *ran("t0"), *ran("t1")]).finished_again == 1
    asked = msgspec.structs.replace(done, side=Side.BEFORE)
    found = judged(notes=[*ran("t0"), asked, *ran("t0"), *ran("t1")])
    assert (found.finished_again, found.unfinished_again, found.problems) == (0, 1, ())


def test_what_a_living_gateway_knows_counts_as_finished_before_its_commit() -> None:
    asked = Note(1, Boundary.RESULT, Side.BEFORE, labels=("t0",))
    notes = [*ran("t0"), asked, *ran("t0"), *ran("t1")]
    for victim in (Victim.WORKER, Victim.FORK_SERVER):
        assert judged(victim, notes=notes).finished_again == 1


def test_a_call_to_be_made_once_must_not_run_twice_even_if_nobody_knows_of_it() -> None:
    assert judged(notes=[*ran("t0"), *ran("t1"), *ran("t1")]).problems


def test_a_call_run_again_keeps_the_key_that_was_committed() -> None:
    intent = Note(1, Boundary.INTENT, Side.AFTER, keys=("k",))
    assert judged(notes=[intent, *ran("t0"), *ran("t0", "other"), *ran("t1")]).problems
    assert not judged(notes=[*ran("t0"), *ran("t0", "other"), *ran("t1")]).problems


def test_a_call_that_never_ran_shows() -> None:
    assert judged(notes=[*ran("t1")]).problems


def test_a_reply_sent_twice_is_right_only_if_its_first_sender_died_before_the_record() -> None:
    key = "id-m0.0"
    twice = [WHOLE.heard[0], *WHOLE.heard]
    record = sent(1, key, Boundary.DELIVERED, Side.AFTER)
    cut_off = [*WHOLE.notes, sent(1, key), sent(2, key)]
    assert (judged(heard=twice, notes=cut_off).sent_twice, judged(heard=twice, notes=cut_off).problems) == (1, ())
    recorded = [*WHOLE.notes, sent(1, key), record, sent(2, key)]
    assert judged(heard=twice, notes=recorded).sent_twice_wrongly == 1
    one_life = [*WHOLE.notes, sent(1, key), sent(1, key)]
    assert judged(heard=twice, notes=one_life).sent_twice_wrongly == 1


def test_a_call_that_began_before_its_result_was_known_elsewhere_is_no_repetition() -> None:
    done = Note(1, Boundary.RESULT, Side.AFTER, labels=("t0",))
    begun, effect = ran("t0")
    assert judged(notes=[begun, *ran("t0"), done, effect, *ran("t1")]).finished_again == 0


def test_in_a_cluster_a_reply_is_sent_twice_only_if_its_first_sender_was_met_and_nothing_was_recorded() -> None:
    fault = Fault(FaultKind.PAUSE, Party.GATEWAY, 0, 0.5)
    met = Note(1, Boundary.RANDOM, Side.AFTER, killed=fault)
    key = "id-m0.0"
    record, late = (sent(life, key, Boundary.DELIVERED, Side.AFTER) for life in (2, 1))
    calls = [*ran("t0"), *ran("t1")]

    def wrongly(*notes: Note) -> int:
        plan = Round(0, fault, WHOLE.plan.talks)
        evidence = msgspec.structs.replace(WHOLE, plan=plan, heard=[WHOLE.heard[0], *WHOLE.heard])
        return audit(msgspec.structs.replace(evidence, notes=[*calls, *notes])).sent_twice_wrongly

    assert wrongly(sent(1, key), met, sent(2, key), record, late) == 0
    assert wrongly(sent(2, key), met, sent(1, key)) == 1
    assert wrongly(sent(1, key), met, late, sent(2, key), record) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"heard": WHOLE.heard[::-1]},
        {"histories": {"s": [*history_of(SAYINGS[1]), *history_of(SAYINGS[0])]}},
        {"histories": {"s": [message for message in WHOLE.histories["s"] if message.tool_call_id != "t0"]}},
    ],
    ids=["replies", "history", "a call without its result"],
)
def test_disorder_shows(changed: dict[str, Any]) -> None:
    assert judged(**changed).out_of_order == 1


def test_a_round_that_does_not_end_is_a_problem() -> None:
    assert judged(in_time=False).problems


def test_processes_left_behind_and_a_late_recovery_are_problems() -> None:
    assert judged(strays=1).problems
    assert judged(recovery_s=31.0).problems  # a lease of 30 s that nobody ended
    assert judged(recovery_s=31.0, start_s=20.0).problems == ()  # a machine with other work
    assert judged(model_calls=5).model_calls_again == 1


def test_a_gateway_that_ends_by_itself_is_a_problem() -> None:
    assert judged(deaths=1).problems == ()
    assert judged(deaths=2).problems
    by_itself = msgspec.structs.replace(KILL, victim=Victim.WORKER)
    assert judged(Victim.WORKER, deaths=1, notes=[*WHOLE.notes[:2], Note(1, *KILL_AT, killed=by_itself)]).problems


def test_an_unexpected_status_and_a_failed_reply_are_problems() -> None:
    assert judged(statuses={200: 2, 500: 1}).problems
    assert judged(heard=[*WHOLE.heard, msgspec.structs.replace(of(SAYINGS[0]), status="failed")]).problems
