"""Who wants to know what turns do; what goes wrong there harms nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol

from shared.events import Events
from shared.messages import Outcome
from shared.signals import Signal

P = ParamSpec("P")


class TurnObserver(Protocol):
    """Told of turns as they happen; called on the pool's loop, and never blocks it."""

    def turn_started(self, message_id: str, session: str, worker: str) -> None:
        """A turn was given to a worker, not for the first time if an earlier one was lost."""

    def delta(self, message_id: str, session: str, step: int, text: str) -> None:
        """The model wrote this much more text in this step."""

    def text_restarted(self, message_id: str, session: str, step: int) -> None:
        """The text told of this step is void: the model begins it again."""

    def model_away(self, message_id: str, session: str, model: str, problem: str) -> None:
        """No model can answer now, for this reason; the turn waits for this one, inside its time."""

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        """A tool call begins."""

    def tool_said(self, message_id: str, session: str, name: str, text: str) -> None:
        """A running tool told how far it is."""

    def todo_changed(self, session: str, todo: bytes) -> None:
        """A tool call changed the session's todo list (JSON array); the turn goes on."""

    def settling(self, session: str) -> None:
        """A turn's outcome goes to the store now: on an engine of this host alone, what asks next finds its reply."""

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        """The claim of the message ended this way; it is committed."""


class SignalReceiver(Protocol):
    """Told of turns that other hosts run for messages that this one accepted, or for its pages; never blocks."""

    @property
    def watched(self) -> tuple[str, ...] | None:
        """The sessions that pages of this host show, None while no page is open."""

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms that this host sends to."""

    def hear(self, signal: Signal) -> None:
        """Take a signal."""


class GuardedObserver:
    """A TurnObserver around another one: what that one raises is said, and goes no further."""

    def __init__(self, observer: TurnObserver, events: Events) -> None:
        self._observer = observer
        self._events = events

    def turn_started(self, message_id: str, session: str, worker: str) -> None:
        """Tell of a turn that was given to a worker."""
        self._tell(self._observer.turn_started, message_id, session, worker)

    def delta(self, message_id: str, session: str, step: int, text: str) -> None:
        """Tell of more text."""
        self._tell(self._observer.delta, message_id, session, step, text)

    def text_restarted(self, message_id: str, session: str, step: int) -> None:
        """Tell of text that is void."""
        self._tell(self._observer.text_restarted, message_id, session, step)

    def model_away(self, message_id: str, session: str, model: str, problem: str) -> None:
        """Tell of a turn that waits for a model."""
        self._tell(self._observer.model_away, message_id, session, model, problem)

    def tool_started(self, message_id: str, session: str, name: str) -> None:
        """Tell of a tool call that begins."""
        self._tell(self._observer.tool_started, message_id, session, name)

    def tool_said(self, message_id: str, session: str, name: str, text: str) -> None:
        """Tell how far a tool is."""
        self._tell(self._observer.tool_said, message_id, session, name, text)

    def todo_changed(self, session: str, todo: bytes) -> None:
        """Tell of a changed todo list."""
        self._tell(self._observer.todo_changed, session, todo)

    def settling(self, session: str) -> None:
        """Tell of an outcome that goes to the store."""
        self._tell(self._observer.settling, session)

    def settled(self, message_id: str, session: str, outcome: Outcome) -> None:
        """Tell of an outcome that is committed."""
        self._tell(self._observer.settled, message_id, session, outcome)

    def _tell(self, told: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            told(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - who only watches a turn may not end it
            self._events.subscriber_failed(told.__name__, error)
