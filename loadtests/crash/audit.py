"""The audit of one round: compares what was asked with what became of it; pure.

Nothing is taken on trust: replies are those the platform got, effects those the tools wrote, the order of things is
the notebook's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from loadtests.crash.doors import Door
from loadtests.crash.evidence import Evidence, Heard, TranscriptMessage
from loadtests.crash.fault import Fault, Party, Storm
from loadtests.crash.features import Feature
from loadtests.crash.notes import Note
from loadtests.crash.plan import Boundary, Kill, Round, Saying, Side

#: what a webhook may be answered with; 503 says that nothing was accepted
EXPECTED_STATUSES = {200, 503}

#: how long it may take until all is answered, in seconds, from when a gateway listens after the last kill: a round's
#: work, but no lease of an ended gateway, which takes 30 to run out; a start is as quick as the machine is
RECOVERS_WITHIN_S = 28.0


class DoorCount(msgspec.Struct, frozen=True):
    """What became of the messages of one door."""

    accepted: int
    answered: int
    lost: int


class Findings(msgspec.Struct, frozen=True):
    """What one round came to; ``problems`` are the broken guarantees, in words. All others are counts."""

    number: int
    kill: Kill | Fault | Storm
    feature: Feature
    doors: dict[Door, DoorCount]
    fired: bool
    seconds: float
    recovery_s: float
    strays: int
    model_calls_again: int
    accepted: int
    answered: int
    dead: int
    lost: int
    second_turns: int
    finished_again: int
    unfinished_again: int
    sent_twice: int
    sent_twice_wrongly: int
    out_of_order: int
    redelivered: int
    problems: tuple[str, ...]


def audit(evidence: Evidence) -> Findings:
    """Judge one round."""
    calls = CallAudit(evidence)
    sends = SendAudit(evidence)
    messages = MessageAudit(evidence)
    fired = [note.killed for note in evidence.notes if note.killed]
    problems = [*messages.problems(), *calls.problems(), *sends.problems(), *feature_problems(evidence)]
    problems += evidence.broken_files
    if evidence.deaths > sum(kill.ends for kill in fired):
        problems.append("a gateway or a worker host ended that nobody killed")
    if evidence.strays:
        problems.append(f"{evidence.strays} processes of dead gateways still run")
    if (took_s := evidence.recovery_s - evidence.start_s) > RECOVERS_WITHIN_S:
        problems.append(f"all was answered {took_s:.0f} s after the start; {RECOVERS_WITHIN_S:.0f} is much")
    return Findings(
        number=evidence.plan.number,
        kill=evidence.plan.kill,
        feature=evidence.plan.feature,
        doors=messages.by_door(),
        fired=bool(fired),
        seconds=evidence.seconds,
        recovery_s=evidence.recovery_s,
        strays=evidence.strays,
        model_calls_again=max(0, evidence.model_calls - least_model_calls(evidence.plan)),
        accepted=len(messages.accepted),
        answered=len(messages.answered),
        dead=len(messages.dead),
        lost=len(messages.lost),
        second_turns=len(messages.second_turns),
        finished_again=len(calls.finished_again),
        unfinished_again=len(calls.unfinished_again),
        sent_twice=len(sends.twice),
        sent_twice_wrongly=len(sends.wrongly),
        out_of_order=len(messages.out_of_order),
        redelivered=evidence.statuses.get(200, 0) - len(messages.accepted),
        problems=tuple(problems),
    )


def least_model_calls(plan: Round) -> int:
    """Return how many model calls a round takes without a kill: one a step, and one for the answer."""
    return sum(len(saying.steps) + 1 for saying in plan.sayings)


class MessageAudit:
    """What became of each message: nothing lost, one turn each, in order."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        sayings = evidence.plan.sayings
        self._ids = {name: sorted(ids) for name, ids in evidence.answered_ids.items()}
        asides = [saying.aside_name for saying in sayings if saying.aside]
        self.untaken = [name for name in (*(saying.name for saying in sayings), *asides) if not self._ids.get(name)]
        self.accepted = [saying for saying in sayings if self._ids.get(saying.name)]
        self.answered = [saying.name for saying in self.accepted if self._is_answered(saying)]
        self.dead = [saying.name for saying in self.accepted if evidence.dead.intersection(self._ids[saying.name])]
        kept = {*self.answered, *self.dead}
        self.lost = [saying.name for saying in self.accepted if saying.name not in kept]
        self.second_turns = sorted({saying.name for saying in self.accepted if self._ran_twice(saying)})
        self.out_of_order = [talk[0].session for talk in evidence.plan.talks if not self._in_order(talk)]

    def problems(self) -> Iterator[str]:
        """Say what is broken."""
        if not self._evidence.in_time:
            yield "the round did not come to its end before its deadline"
        for status in sorted(self._evidence.statuses.keys() - EXPECTED_STATUSES):
            yield f"webhooks were answered with {status}"
        for name in self.untaken:
            yield f"{name} was never accepted, however often it was delivered"
        for name in self.lost:
            yield f"{name} was accepted as {self._ids[name]} and is lost"
        for name in self.dead:
            yield f"{name} is a dead letter, although no message was to blame"
        for name in self.second_turns:
            yield f"{name} had a second turn"
        for session in self.out_of_order:
            yield f"{session} is out of order, or its history is not whole"
        yield from (f"a reply failed: {reply.text}" for reply in self._evidence.heard if reply.status != "replied")

    def by_door(self) -> dict[Door, DoorCount]:
        """Count the messages of each door."""
        names = {door: {one.name for one in self.accepted if one.door is door} for door in Door}
        return {
            door: DoorCount(len(own), len(own.intersection(self.answered)), len(own.intersection(self.lost)))
            for door, own in names.items()
            if own
        }

    def _is_answered(self, saying: Saying) -> bool:
        """Tell whether its answer came, under its id where the platform is told it; many chunks are one text."""
        named = {"", self._ids[saying.name][0]}
        texts = said(
            reply for reply in self._evidence.heard if reply.session == saying.session and reply.message in named
        )
        if saying.feature.cuts_turns:
            return bool(texts)
        return squeezed(saying.answer) in texts or (bool(saying.aside) and f"done{saying.aside_name}" in texts)

    def _ran_twice(self, saying: Saying) -> bool:
        ids = self._ids[saying.name]
        ends = sum(
            note.boundary is Boundary.SETTLE and note.side is Side.AFTER and note.ended and note.message in ids
            for note in self._evidence.notes
        )
        keys = {reply.key for reply in self._evidence.heard if reply.text == f"done {saying.name}"}
        asked = sum(is_from(message, saying) for message in self._evidence.histories.get(saying.session, []))
        return len(ids) > 1 or ends > 1 or len(keys) > 1 or asked > 1

    def _in_order(self, talk: tuple[Saying, ...]) -> bool:
        """Look at the replies and at the history of a session; repeated replies may stand behind themselves only."""
        session, feature = talk[0].session, talk[0].feature
        history = self._evidence.histories.get(session, [])
        asked = [next((s.name for s in talk if is_from(m, s)), "") for m in history if m.role == "user"]
        named = list(filter(None, asked))
        # what was stopped before its turn began never came into the history
        in_order = named == [one.name for one in talk if one.name in named or not feature.cuts_turns]
        if feature.patient or feature.cuts_turns:
            texts = said(reply for reply in self._evidence.heard if reply.session == session)
            places = [texts.find(f"done{saying.name}") for saying in talk if f"done{saying.name}" in texts]
            whole = has_one_result if feature.cuts_turns else every_call_has_one_result
            return in_order and places == sorted(places) and whole(history)
        wanted = squeezed("".join(saying.answer for saying in talk))
        answers = "".join(m.content or "" for m in history if m.role == "assistant" and not m.tool_calls)
        replies = said(reply for reply in self._evidence.heard if reply.session == session)
        return in_order and replies == wanted == squeezed(answers) and every_call_has_one_result(history)


def said(replies: Iterable[Heard]) -> str:
    """Return what was said in these replies, without what was repeated right behind itself."""
    texts = [reply.text for reply in replies]
    return squeezed("".join(text for at, text in enumerate(texts) if at == 0 or text != texts[at - 1]))


def squeezed(text: str) -> str:
    """Return a text without its blanks, which platforms may change."""
    return "".join(text.split())


def feature_problems(evidence: Evidence) -> Iterator[str]:
    """Say what is broken of what the round's feature promises, and of what was said meanwhile."""
    heard = {reply.message for reply in evidence.heard}
    for saying in evidence.plan.sayings:
        ids = evidence.answered_ids.get(saying.aside_name, set()) if saying.aside else set()
        if len(ids) > 1:
            yield f"{saying.aside_name} has {len(ids)} ids"
        if saying.feature is Feature.COMMANDS and not ids & heard:
            yield f"the command {saying.aside_name} was not answered"
        ends = [
            note.message for note in evidence.notes if note.ended and note.side is Side.AFTER and note.message in ids
        ]
        if len(ends) > len(ids):
            yield f"{saying.aside_name} had a second turn"
    if evidence.held:
        yield f"{evidence.held} tokens of the budgets are held by no turn"
    for talk in evidence.plan.talks:
        session, last = talk[0].session, talk[-1]
        if last.feature is Feature.TODO and evidence.todos.get(session) != (last.name,):
            yield f"the todo list of {session} is {evidence.todos.get(session)}, and its last write said {last.name}"
        if not last.feature.cuts_turns and evidence.used.get(session, 1) <= 0:
            yield f"{session} was charged for nothing"


class CallAudit:
    """What became of each tool call: a finished one is not run again, and one to be made once never is."""

    def __init__(self, evidence: Evidence) -> None:
        known = Side.AFTER if evidence.plan.kill.loses_frames else Side.BEFORE
        finished: set[str] = set()
        effects: defaultdict[str, list[str]] = defaultdict(list)
        intended: set[str] = set()
        self.finished_again: list[str] = []
        self.renamed: list[str] = []
        for note in evidence.notes:
            if note.boundary is Boundary.EFFECT and note.side is Side.BEFORE:
                self.finished_again += [label for label in note.labels if label in finished]
            elif note.boundary is Boundary.EFFECT:
                for label in note.labels:
                    first = effects[label][:1]
                    self.renamed += [label] if first and first[0] in intended and first[0] != note.keys[0] else []
                    effects[label].append(note.keys[0])
            elif note.side is known:
                finished.update(note.labels)
                intended.update(note.keys if note.boundary is Boundary.INTENT else ())
        once = {call.label for saying in evidence.plan.sayings for call in saying.calls if call.once}
        again = [label for label, keys in effects.items() if len(keys) > 1]
        self.once_again = [label for label in again if label in once]
        self.unfinished_again = [label for label in again if label not in self.finished_again]
        self.never = [
            call.label
            for saying in evidence.plan.sayings
            for call in saying.calls
            if call.label not in effects and not call.once and not saying.feature.skips_calls
        ]

    def problems(self) -> Iterator[str]:
        """Say what is broken."""
        yield from (f"the finished tool call {label} was run again" for label in self.finished_again)
        yield from (f"the tool call {label}, to be made once, was run twice" for label in self.once_again)
        yield from (f"the tool call {label} was run again under another idempotency key" for label in self.renamed)
        yield from (f"the tool call {label} was never run" for label in self.never)


class SendAudit:
    """How often each reply was sent: twice only where a kill fell between its send and the record of it."""

    def __init__(self, evidence: Evidence) -> None:
        copies = Counter(reply.key for reply in evidence.heard)
        self.twice = [key for key, count in copies.items() if count > 1]
        excused = was_out_of_reach if isinstance(evidence.plan.kill, Fault | Storm) else was_cut_off
        self.wrongly = [key for key in self.twice if not excused(key, copies[key], evidence.notes)]

    def problems(self) -> Iterator[str]:
        """Say what is broken."""
        yield from (f"the reply {key} was sent twice without need" for key in self.wrongly)


def was_cut_off(key: str, copies: int, notes: list[Note]) -> bool:
    """Tell whether every send of a reply was by another gateway, and none but the last lived to record it."""
    about = [note for note in notes if key in note.keys]
    tries = list(
        dict.fromkeys(note.life for note in about if (note.boundary, note.side) == (Boundary.SEND, Side.BEFORE))
    )
    answered = [note.life for note in about if (note.boundary, note.side) == (Boundary.SEND, Side.AFTER)]
    records = [note.life for note in about if (note.boundary, note.side) == (Boundary.DELIVERED, Side.AFTER)]
    # a request that is made and finds no room at its platform is made again by the same gateway, and was not sent
    return len(set(answered)) == len(answered) and len(tries) >= copies and records in ([], [tries[-1]])


def was_out_of_reach(key: str, copies: int, notes: list[Note]) -> bool:
    """Tell whether a reply went again because its senders but the last, met by faults, could not record it in time.

    In a cluster such a sender may live, and record too late. What has been recorded is never sent again.
    """
    about = [note for note in notes if key in note.keys]
    sends = [at for at, note in enumerate(about) if note.boundary is Boundary.SEND and note.side is Side.BEFORE]
    records = [at for at, note in enumerate(about) if note.boundary is Boundary.DELIVERED and note.side is Side.AFTER]
    faults = [(note.life, note.killed) for note in notes if isinstance(note.killed, Fault)]
    met = {life for life, _ in faults}
    database = any(fault.party is Party.DATABASE for _, fault in faults)
    all_met = database or all(about[at].life in met for at in sends[:-1])
    return all_met and copies <= len(faults) + 1 and not any(record < sends[-1] for record in records)


def is_from(message: TranscriptMessage, saying: Saying) -> bool:
    """Tell whether this is the user message that a saying became."""
    return message.role == "user" and (message.content or "").split(" ", 1)[0] == saying.name


def has_one_result(history: list[TranscriptMessage]) -> bool:
    """Tell whether no call has two results; one that was cut off gets its result when the history is read."""
    asked = {call.id for message in history for call in message.tool_calls}
    given = [message.tool_call_id for message in history if message.role == "tool"]
    return len(set(given)) == len(given) and asked.issuperset(given)


def every_call_has_one_result(history: list[TranscriptMessage]) -> bool:
    """Tell whether a model provider would accept this history: each call is followed by its one result."""
    asked = [call.id for message in history for call in message.tool_calls]
    given = [message.tool_call_id for message in history if message.role == "tool"]
    return sorted(asked) == sorted(given) and len(set(given)) == len(given)
