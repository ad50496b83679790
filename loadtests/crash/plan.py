"""What one round does: who says what, and who is killed where; all of it follows from the seed and its number."""

from __future__ import annotations

import enum
import itertools
import random
from collections.abc import Iterable

import msgspec

from loadtests.crash.doors import Door, Spoken
from loadtests.crash.fault import Fault, Storm
from loadtests.crash.features import LINES, PADDING, Feature


class Boundary(enum.StrEnum):
    """A moment at which something becomes durable or leaves the system."""

    ACCEPT = "accept"
    CLAIM = "claim"
    CHECKPOINT = "checkpoint"
    INTENT = "tool intent"
    EFFECT = "tool effect"  #: inside the tool, around what it does to the world
    RESULT = "tool result"
    SETTLE = "settle"
    SEND = "send"
    DELIVERED = "delivered"
    ROTATION = "log rotation"  #: a session log that is full becomes a segment, in the worker that wrote it
    BACKUP = "backup"  #: a scheduled copy that is whole takes its name
    MIGRATION = "migration"  #: a step on the way from an older schema, at a start after a kill of all there was
    RANDOM = "random"  #: no boundary: some time after the first message
    RECOVERY = "recovery"  #: some time after the start that follows an earlier kill of all there was
    DRAIN = "drain"  #: some time after SIGTERM
    RENEWAL = "renewal"  #: some time after SIGHUP


#: those that are moments of the clock
TIMED = frozenset({Boundary.RANDOM, Boundary.RECOVERY, Boundary.DRAIN, Boundary.RENEWAL})
#: those that something has to lead to
LED = frozenset({Boundary.RECOVERY, Boundary.DRAIN, Boundary.RENEWAL, Boundary.MIGRATION})
#: how long the kill may come after what leads to it, in seconds
THEN_S = {Boundary.RECOVERY: 2.5, Boundary.DRAIN: 0.4, Boundary.RENEWAL: 0.3}


class Side(enum.StrEnum):
    """Which side of the boundary."""

    BEFORE = "before"
    AFTER = "after"


class Victim(enum.StrEnum):
    """Who gets SIGKILL."""

    GATEWAY = "gateway"  #: the gateway process alone; what it leaves behind has to notice
    WORKER = "worker"  #: one worker process
    FORK_SERVER = "fork server"  #: the process that workers are forked from, and with it every worker
    BOTH = "both"  #: the gateway and every process below it

    @property
    def ends_gateway(self) -> bool:
        """Whether the gateway process itself dies."""
        return self in {Victim.GATEWAY, Victim.BOTH}


class Kill(msgspec.Struct, frozen=True, tag=True):
    """One kill: at the ``nth`` time its boundary is reached.

    ``label`` holds for EFFECT, ``after_s`` where no boundary is reached, in seconds from the first message; what leads
    to the kill happens then, and the kill itself ``then_s`` seconds later.
    """

    boundary: Boundary
    side: Side
    victim: Victim
    nth: int = 1
    after_s: float = 0.0
    label: str = ""
    then_s: float = 0.0

    @property
    def name(self) -> str:
        """The boundary with its side, as the matrix names it."""
        bare = self.boundary in TIMED or self.boundary is Boundary.MIGRATION
        return self.boundary.value if bare else f"{self.side.value} {self.boundary.value}"

    @property
    def moment(self) -> str:
        """When it comes, in words."""
        if self.boundary in TIMED:
            return f"after {self.after_s:.2f} s" + (f"+{self.then_s:.2f}" if self.then_s else "")
        return f"the {self.nth}. time"

    @property
    def loses_frames(self) -> bool:
        """Whether what is not committed is lost; the frames of a killed worker have left it, and its gateway lives."""
        return self.victim.ends_gateway or self.boundary in {Boundary.RECOVERY, Boundary.MIGRATION}

    @property
    def ends(self) -> int:
        """How many gateways it ends at the most; one that drains ends by itself."""
        return self.victim.ends_gateway + (self.boundary in LED - {Boundary.RENEWAL})


class ToolCall(msgspec.Struct, frozen=True):
    """One call a message makes the model ask for; ``label`` names it everywhere, ``pause_s`` precedes its effect.

    One that is to be made ``once`` is of the tool that declares that it must not be repeated.
    """

    label: str
    pause_s: float
    once: bool

    @property
    def tool(self) -> str:
        """The name of the tool."""
        return "note_once" if self.once else "note"


class Saying(msgspec.Struct, frozen=True):
    """One message: ``steps`` are the tool calls of each step, ``copies`` the redeliveries beside the first.

    ``think_s`` is how long each model call takes; ``again`` says that it is delivered again after the kill. ``feature``
    is what it uses, and ``aside`` what is said ``aside_s`` after it was taken.
    """

    session: str
    name: str
    steps: tuple[tuple[ToolCall, ...], ...]
    think_s: float
    copies: int
    again: bool
    number: int = 0
    door: Door = Door.STANDARD
    feature: Feature = Feature.PLAIN
    aside: str = ""
    aside_s: float = 0.0

    @property
    def answer(self) -> str:
        """What the reply says."""
        if self.feature is not Feature.CHUNKS:
            return f"done {self.name}"
        lines = (f"{self.name} line {number} of a long answer to a short question" for number in range(LINES))
        return "\n".join([f"done {self.name}", *lines])

    @property
    def aside_name(self) -> str:
        """How what is said meanwhile is named."""
        return f"{self.name}a"

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(itertools.chain.from_iterable(self.steps))

    def text(self, notes: str) -> str:
        """Return the message's words: directives for the scripted provider; ``notes`` is the path tools write to."""
        words = [f"{self.name} [[sleep {self.think_s}]]"]
        for at, step in enumerate(self.steps):
            calls = [f"[[tool {call.tool} {call_arguments(call, notes)}]]" for call in step]
            if self.feature is Feature.TODO and at == 0:
                calls.append(f"[[tool todo {todo_arguments(self.name)}]]")
            words.append(" ".join(calls) + f" [[then]] [[sleep {self.think_s}]]")
        if self.feature is Feature.COMPACTION:
            words.append(PADDING)
        return " ".join([*words, f"[[say {self.answer}]]"])

    def spoken(self, notes: str) -> Spoken:
        """Return it as its platform delivers it."""
        streamed = self.feature is Feature.STREAM and self.door is Door.API
        return Spoken(self.session, 2 * self.number, self.name, self.feature.value, self.text(notes), streamed)

    @property
    def spoken_aside(self) -> Spoken:
        """Return what is said meanwhile, as its platform delivers it."""
        return Spoken(self.session, 2 * self.number + 1, self.aside_name, self.feature.value, self.aside)


class Round(msgspec.Struct, frozen=True):
    """One round: its number, its kill, what each session says and how far apart, and what the first one uses."""

    number: int
    kill: Kill | Fault | Storm
    talks: tuple[tuple[Saying, ...], ...]
    feature: Feature = Feature.PLAIN
    pause_s: float = 0.0

    @property
    def sayings(self) -> tuple[Saying, ...]:
        return tuple(itertools.chain.from_iterable(self.talks))


Cell = tuple[Boundary, Side, Victim]

#: how often a boundary is reached in a round at the least, where that is not once a message: commits are batched
OFTEN = {
    Boundary.CLAIM: 3,
    Boundary.CHECKPOINT: 6,
    Boundary.INTENT: 6,
    Boundary.RESULT: 2,
    Boundary.EFFECT: 1,
    Boundary.ROTATION: 1,
    Boundary.BACKUP: 1,
    Boundary.MIGRATION: 12,
}

#: who is killed before and after each boundary in a short run; a gateway takes seconds to start, a worker does not
SHORT = {
    Boundary.ACCEPT: (Victim.GATEWAY, Victim.BOTH),
    Boundary.CLAIM: (Victim.WORKER, Victim.GATEWAY),
    Boundary.CHECKPOINT: (Victim.BOTH, Victim.WORKER),
    Boundary.INTENT: (Victim.WORKER, Victim.GATEWAY),
    Boundary.EFFECT: (Victim.WORKER, Victim.BOTH),
    Boundary.RESULT: (Victim.FORK_SERVER, Victim.WORKER),
    Boundary.SETTLE: (Victim.BOTH, Victim.GATEWAY),
    Boundary.SEND: (Victim.WORKER, Victim.GATEWAY),
    Boundary.DELIVERED: (Victim.BOTH, Victim.WORKER),
    Boundary.ROTATION: (Victim.WORKER, Victim.BOTH),
    Boundary.BACKUP: (Victim.GATEWAY, Victim.BOTH),
}


def every_cell() -> list[Cell]:
    """Return every boundary, side and victim there is."""
    boundaries = [boundary for boundary in Boundary if boundary not in TIMED | LED]
    cells = list(itertools.product(boundaries, Side, Victim))
    starts = itertools.product((Boundary.RECOVERY, Boundary.MIGRATION), [Side.AFTER], Victim)
    whole = [cell for cell in starts if cell[2].ends_gateway]
    timed = itertools.product((Boundary.RANDOM, Boundary.DRAIN, Boundary.RENEWAL), [Side.AFTER], Victim)
    return [*cells, *timed, *whole]


def shuffled_cells(seed: int) -> list[Cell]:
    """Return every cell in the order in which the rounds of a seed take them."""
    cells = every_cell()
    random.Random(seed).shuffle(cells)
    return cells


def short_cells() -> list[Cell]:
    """Return the cells of a short run: each side of every boundary with one victim, a random moment and a migration."""
    return [
        *(
            (boundary, side, victim)
            for boundary, victims in SHORT.items()
            for side, victim in zip(Side, victims, strict=True)
        ),
        (Boundary.RANDOM, Side.AFTER, Victim.BOTH),
        (Boundary.MIGRATION, Side.AFTER, Victim.BOTH),
    ]


def plan_round(seed: int, number: int, cell: Cell, feature: Feature, sessions: int = 4, messages: int = 3) -> Round:
    """Return the round of this seed and number: a session through each door, the first one uses the feature."""
    chance = random.Random(f"{seed}/{number}")
    talks = plan_talks(chance, number, sessions, messages, doors=tuple(Door), feature=feature)
    boundary, side, victim = cell
    most = OFTEN.get(boundary, sessions * messages)
    labels = [call.label for talk in talks for saying in talk for call in saying.calls]
    kill = Kill(
        boundary,
        side,
        victim,
        nth=chance.randint(1, most),
        after_s=round(chance.uniform(0.0, 0.3), 3) if boundary in TIMED | LED else 0.0,
        label=chance.choice(labels) if boundary is Boundary.EFFECT else "",
        then_s=round(chance.uniform(0.0, THEN_S[boundary]), 3) if boundary in THEN_S else 0.0,
    )
    return Round(number, kill, talks, feature=feature)


def plan_rounds(seed: int, cells: list[Cell], numbers: Iterable[int] | None = None) -> list[Round]:
    """Return the rounds of a seed, which take the cells and the features in turns; each cell once by default."""
    chosen = range(len(cells)) if numbers is None else numbers
    features = tuple(Feature)
    return [
        plan_round(seed, number, cells[number % len(cells)], features[(number + number // len(cells)) % len(features)])
        for number in chosen
    ]


def plan_talks(
    chance: random.Random,
    number: int,
    sessions: int,
    messages: int,
    pace: float = 1.0,
    doors: tuple[Door, ...] = (Door.STANDARD,),
    feature: Feature = Feature.PLAIN,
) -> tuple[tuple[Saying, ...], ...]:
    """Return what each session says in a round; everything takes ``pace`` times as long.

    Every session uses a feature that is one of messages, the first one alone one that is one of its sender's.
    """
    of_all = feature in {Feature.CHUNKS, Feature.STREAM, Feature.TODO}
    return tuple(
        tuple(
            plan_saying(
                chance,
                f"r{number}s{session}",
                message,
                pace,
                door=doors[session % len(doors)],
                feature=feature if session == 0 or of_all else Feature.PLAIN,
                number=(number * sessions + session) * messages + message,
            )
            for message in range(messages)
        )
        for session in range(sessions)
    )


def plan_saying(
    chance: random.Random, session: str, message: int, pace: float, *, door: Door, feature: Feature, number: int
) -> Saying:
    """Return one message: one or two steps, of one or two tool calls each; none where its words are summarized."""
    name = f"{session}m{message}"
    steps = tuple(
        tuple(
            ToolCall(f"{name}t{step}c{call}", pace * chance.choice((0.0, 0.0, 0.02, 0.1)), chance.random() < 0.25)
            for call in range(chance.choice((1, 1, 2)))
        )
        for step in range(chance.choice((1, 2)))
    )
    return Saying(
        session=session,
        name=name,
        steps=() if feature is Feature.COMPACTION else steps,
        think_s=round(pace * chance.uniform(0.0, 0.04), 3),
        copies=chance.choice((0, 0, 1, 2)),
        again=chance.random() < 0.7,
        number=number,
        door=door,
        feature=feature,
        aside=feature.aside(chance, f"{name}a"),
        aside_s=round(chance.uniform(0.0, 0.15), 3),
    )


def todo_arguments(content: str) -> str:
    todo = {"id": "1", "content": content, "status": "in_progress"}
    return msgspec.json.encode({"todos": [todo], "merge": True}).decode()


def call_arguments(call: ToolCall, notes: str) -> str:
    return msgspec.json.encode({"label": call.label, "notes": notes, "pause_s": call.pause_s}).decode()
