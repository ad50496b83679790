"""What happens to turns right now, fanned out to the requests and pages that watch.

The pool tells it (it is the pool's TurnObserver); a completions request follows one message; a console page
reads named events (gateway.event_stream). Nothing here waits for a slow reader: a follower's text is joined while it
is not read, and a page that does not read is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import msgspec
from msgspec.structs import asdict

from gateway.event_stream import EventStream, PageReader, encoded
from gateway.life_signs import LifeSigns
from shared.approvals import Question, question_id
from shared.events import Event, Events, Field
from shared.messages import AwaitsApproval, Dead, Ended, Outcome, outcome_name

#: events of the log that pages are told, and under which name
SHOWN_EVENTS = {Event.STRANGER: "pairing", Event.MESSAGE_ACCEPTED: "accepted"}


class TurnStarted(msgspec.Struct, frozen=True):
    """The message's turn begins, or its text begins again: its worker was lost, or the model's answer broke off."""


class TextAdded(msgspec.Struct, frozen=True):
    """Text of one step, as the model streams it."""

    step: int
    text: str


class GatewayStopping(msgspec.Struct, frozen=True):
    """The gateway stops before the message is answered; the message stays accepted."""


class ApprovalAsked(msgspec.Struct, frozen=True):
    """The turn rests until somebody decides about tool calls."""

    question: Question


Happening = TurnStarted | TextAdded | ApprovalAsked | Ended | Dead | GatewayStopping


#: what is not joined with others of its kind
WholeHappening = TurnStarted | ApprovalAsked | Ended | Dead | GatewayStopping


class Follower:
    """Follows one message to its end. Deltas that wait to be read are joined, so it holds one reply at most."""

    def __init__(self) -> None:
        self.outcome: Ended | Dead | None = None  #: how the message was answered or given up
        self._asked = ""
        self._happenings: deque[WholeHappening | tuple[int, list[str]]] = deque()
        self._arrived = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether the message has been answered or given up."""
        return self.outcome is not None

    def text(self, step: int, text: str) -> None:
        """Take a delta."""
        last = self._happenings[-1] if self._happenings else None
        if isinstance(last, tuple) and last[0] == step:
            last[1].append(text)
        else:
            self._happenings.append((step, [text]))
        self._arrived.set()

    def restart(self, step: int) -> None:
        """Take that the text of a step is void: what of it was not read yet never is."""
        while self._happenings and isinstance(last := self._happenings[-1], tuple) and last[0] == step:
            self._happenings.pop()
        self.put(TurnStarted())

    def ask(self, question: Question) -> None:
        """Take a question, once."""
        if question.id != self._asked:
            self._asked = question.id
            self.put(ApprovalAsked(question))

    def put(self, happening: WholeHappening) -> None:
        """Take a happening other than a delta."""
        if isinstance(happening, Ended | Dead):
            self.outcome = happening
        self._happenings.append(happening)
        self._arrived.set()

    async def next(self, within_s: float) -> Happening | None:
        """Return what happened next, None if nothing did within this many seconds."""
        try:
            async with asyncio.timeout(within_s):
                await self._arrived.wait()
        except TimeoutError:
            return None
        first = self._happenings.popleft()
        if not self._happenings:
            self._arrived.clear()
        return TextAdded(first[0], "".join(first[1])) if isinstance(first, tuple) else first


class RunningText(msgspec.Struct):
    """What the model has written so far in the step that a session's turn is in."""

    message_id: str  #: the message whose turn it is
    step: int  #: counts from 1; 0 before the first text
    pieces: list[str]  #: the deltas of this step, oldest first


class OutcomeObserver(Protocol):
    """Who wants to know every outcome."""

    def settled(self, session: str, outcome: Outcome) -> None:
        """Take an outcome, after its commit; never blocks. What it raises is said and harms nobody."""


class ReplyLook(Protocol):
    """Who looks for the replies that outcomes write."""

    def settling(self) -> None:
        """Take that an outcome goes to the store now; never blocks and never raises."""


class PagesElsewhere(Protocol):
    """How the pages of other gateways are told."""

    def tell_pages(self, name: str, fields: Mapping[str, object]) -> None:
        """Tell them a named event."""


class TurnBroadcast:
    """The pool's TurnObserver; ``observers`` are told of every outcome after its commit."""

    heard: ClassVar = tuple(SHOWN_EVENTS)

    def __init__(self, events: Events, observers: Sequence[OutcomeObserver] = ()) -> None:
        self._events = events
        self._observers = list(observers)
        self._followers: dict[str, list[Follower]] = {}
        self._reply_look: ReplyLook | None = None
        self._life_signs: LifeSigns | None = None
        self._pages_elsewhere: PagesElsewhere | None = None
        self._running: dict[str, RunningText] = {}
        self.stream = EventStream()  #: what pages read

    def observe(self, observer: OutcomeObserver) -> None:
        """Tell one more observer of every outcome from now on."""
        self._observers.append(observer)

    def send_with(self, reply_look: ReplyLook) -> None:
        """Tell who looks for replies of each outcome that goes to the store, from now on."""
        self._reply_look = reply_look

    def show_on_platforms(self, life_signs: LifeSigns) -> None:
        """Tell the life signs of turns from now on."""
        self._life_signs = life_signs
        self.observe(life_signs)

    def follow(self, message_id: str) -> Follower:
        """Follow one message until ``unfollow``; begin before it is accepted, so that nothing is missed."""
        follower = Follower()
        self._followers.setdefault(message_id, []).append(follower)
        return follower

    def unfollow(self, message_id: str, follower: Follower) -> None:
        """Stop following a message."""
        others = [one for one in self._followers.pop(message_id, ()) if one is not follower]
        if others:
            self._followers[message_id] = others

    def followed(self) -> list[str]:
        """Return the messages that are followed and whose end a follower does not know."""
        return [message_id for message_id in self._followers if self.is_followed(message_id)]

    def is_followed(self, message_id: str) -> bool:
        """Tell whether anybody waits for the end of a message."""
        return any(not follower.ended for follower in self._followers.get(message_id, ()))

    def tell(self, name: str, /, **fields: Any) -> None:
        """Tell every page a named event, those of other gateways too."""
        self.stream.tell(name, **fields)
        if self._pages_elsewhere is not None:
            self._pages_elsewhere.tell_pages(name, fields)

    def tell_elsewhere(self, pages: PagesElsewhere) -> None:
        """Tell the pages of other gateways named events from now on."""
        self._pages_elsewhere = pages

    @contextmanager
    def watch(self, session: str) -> Iterator[PageReader]:
        """Let a page read for as long as the block lasts; of ``session`` it reads the text of the running turn too."""
        with self.stream.subscribe(session) as reader:
            if running := self._running.get(session):
                text = "".join(running.pieces)
                said = {"session": session, "message": running.message_id, "step": running.step, "text": text}
                reader.tell(encoded("text", said | {"whole": True}))
            reader.put(encoded("hello", {}))
            yield reader

    def on_event(self, event: Event, fields: Mapping[str, Field]) -> None:  # noqa: ARG002 - pages are told its name alone
        """Tell every page of an event that it shows (a subscriber of Events)."""
        self.tell(SHOWN_EVENTS[event])

    def turn_started(self, message_id: str, session: str, worker: str) -> None:
        """Take the start of a turn."""
        for follower in self._followers.get(message_id, ()):
            follower.put(TurnStarted())
        self._running[session] = RunningText(message_id, 0, [])
        if self._life_signs:
            self._life_signs.turn_started(message_id, session)
        self.stream.tell("turn", session=session, message=message_id, state="running", worker=str(worker))

    def delta(self, message_id: str, session: str, step: int, text: str) -> None:
        """Take text of a running step."""
        for follower in self._followers.get(message_id, ()):
            follower.text(step, text)
        if self._life_signs:
            self._life_signs.delta(session, step, text)
        running = self._running.get(session)
        if running is None or running.message_id != message_id:
            return
        if running.step != step:
            running.step, running.pieces = step, []
        running.pieces.append(text)
        self.stream.tell_session(session, "text", session=session, message=message_id, step=step, text=text)

    def text_restarted(self, message_id: str, session: str, step: int) -> None:
        """Take that the text of a running step is void."""
        for follower in self._followers.get(message_id, ()):
            follower.restart(step)
        if self._life_signs:
            self._life_signs.text_restarted(session, step)
        running = self._running.get(session)
        if running is not None and running.message_id == message_id:
            running.step, running.pieces = step, []
            fields = {"session": session, "message": message_id, "step": step, "text": "", "whole": True}
            self.stream.tell_session(session, "text", **fields)

    def model_away(self, message_id: str, session: str, model: str, problem: str) -> None:
        """Take that a turn waits for a model."""
        self.stream.tell("waiting", session=session, message=message_id, model=model, problem=problem)

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        """Take the start of a tool call."""
        self.stream.tell("tool", session=session, message=message_id, name=name)
        if self._life_signs:
            self._life_signs.tool_started(session, name)

    def tool_said(self, message_id: str, session: str, name: str, text: str) -> None:
        """Take how far a tool is."""
        if self._life_signs:
            self._life_signs.tool_said(session, text)
        self.stream.tell_session(session, "said", session=session, message=message_id, name=name, text=text)

    def todo_changed(self, session: str, todo: bytes) -> None:
        """Take a session's new todo list (JSON array)."""
        self.stream.tell("todo", session=session, todos=msgspec.Raw(todo))

    def settling(self, session: str) -> None:  # noqa: ARG002 - whichever it is
        """Take that an outcome goes to the store."""
        if self._reply_look:
            self._reply_look.settling()

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        """Take the outcome of a turn, after its commit."""
        state = outcome_name(outcome)
        self._running.pop(session, None)
        if isinstance(outcome, Ended | Dead):
            self.outcome_found(message_id, outcome)
        if isinstance(outcome, AwaitsApproval):
            question = Question(question_id(message_id, outcome.calls), outcome.text)
            self.question_found(message_id, question)
            self.stream.tell_session(session, "question", session=session, message=message_id, **asdict(question))
        for observer in self._observers:
            try:
                observer.settled(session, outcome)
            except Exception as error:  # noqa: BLE001 - the pool settles, whatever a counter does with an odd count
                self._events.subscriber_failed("settled", error)
        self.stream.tell("turn", session=session, message=message_id, state=state, worker="")

    def question_found(self, message_id: str, question: Question) -> None:
        """Tell those who follow a message what its sender is asked."""
        for follower in self._followers.get(message_id, ()):
            follower.ask(question)

    def ended_elsewhere(self, message_id: str, session: str, state: str) -> None:
        """Take that a turn of another host ended; its outcome is in the store."""
        self._running.pop(session, None)
        if self._life_signs:
            self._life_signs.end(session)
        self.stream.tell("turn", session=session, message=message_id, state=state, worker="")

    def outcome_found(self, message_id: str, outcome: Ended | Dead) -> None:
        """Tell those followers of an outcome that do not know it; it was committed, and counted where its turn ran."""
        for follower in self._followers.get(message_id, ()):
            if not follower.ended:
                follower.put(outcome)

    def close_pages(self) -> None:
        """End every page's stream, and each later one at once; followers go on."""
        self.stream.close()

    def close(self) -> None:
        """End every page's stream and every follower."""
        self.close_pages()
        for followers in self._followers.values():
            for follower in followers:
                follower.put(GatewayStopping())
