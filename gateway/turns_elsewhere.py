"""What other hosts do with messages that this gateway accepted: text by signal, the outcome from the store.

signal STARTED, TEXT, TOOL ──▶ turn broadcast        signal ENDED ─┐
                                                     once a second ├──▶ the store's answer ──▶ followers
                                    before a reply of the API goes ┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from gateway.turn_broadcast import TurnBroadcast
from shared.attachments import Attachment, FileSource, upload_key
from shared.errors import NotFound, StoreError
from shared.messages import Ended, MessageState, RepeatedRequest, TurnStatus
from shared.signals import Signal, SignalKind
from shared.store.port import Store

#: how often followed messages are looked at, in seconds: what a lost signal costs
LOOK_EVERY_S = 1.0
#: messages that are looked at side by side
AT_ONCE = 64
#: the worker that pages are told of, for a turn of a host that does not name it
ELSEWHERE = "another host"


class ReceivedText:
    """How much of a step's text has come, so that a gap is seen: what comes behind one is not shown."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.length = 0
        self.broken = False

    def fits(self, offset: int, text: str) -> bool:
        """Tell whether this piece follows what has come."""
        self.broken = self.broken or offset != self.length
        self.length += len(text)
        return not self.broken


class TurnsElsewhere:
    """Hears other hosts (it is the pool's SignalReceiver), and looks for the outcomes that calls wait for."""

    def __init__(self, store: Store, broadcast: TurnBroadcast) -> None:
        self._store = store
        self._broadcast = broadcast
        self._texts: dict[str, ReceivedText] = {}
        self._kept: set[str] = set()
        self.files: FileSource | None = None  #: where files of platforms are fetched
        self.platforms: tuple[str, ...] = ()  #: those that this gateway sends to
        self._looking: set[asyncio.Task[None]] = set()
        self.reply_due = asyncio.Event()  #: set when another host may have written a reply

    @property
    def watched(self) -> tuple[str, ...] | None:
        """The sessions that pages of this gateway show, None while no page is open."""
        stream = self._broadcast.stream
        return tuple(stream.sessions) if stream.read else None

    def hear(self, signal: Signal) -> None:
        """Take a signal about a turn."""
        message_id, session = signal.message_id, signal.session
        match signal.kind:
            case SignalKind.STARTED if signal.step:
                self._texts.pop(message_id, None)
                self._broadcast.text_restarted(message_id, session, signal.step)
            case SignalKind.STARTED:
                self._texts.pop(message_id, None)
                self._broadcast.turn_started(message_id, session, signal.name or ELSEWHERE)
            case SignalKind.TEXT:
                self._take_text(signal)
            case SignalKind.TOOL:
                self._broadcast.tool_started(message_id, session, signal.text)
            case SignalKind.SAID:
                self._broadcast.tool_said(message_id, session, signal.name, signal.text)
            case SignalKind.AWAY:
                self._broadcast.model_away(message_id, session, signal.name, signal.text)
            case SignalKind.TODO if signal.text:
                self._broadcast.todo_changed(session, signal.text.encode())
            case SignalKind.TODO:
                self._spawn(self._show_todo(session))
            case SignalKind.FETCH if self.files is not None:
                self._spawn(self._fetch(self.files, signal))
            case SignalKind.PAGE:
                self._broadcast.stream.tell(signal.name, **msgspec.json.decode(signal.text))
            case SignalKind.ENDED:
                self._texts.pop(message_id, None)
                self._broadcast.ended_elsewhere(message_id, session, signal.text)
                self.reply_due.set()
                self._look_soon(message_id)
            case SignalKind.DUE:
                self.reply_due.set()

    async def run(self) -> None:
        """Look once a second for what calls wait for, so that each ends whatever is lost on the way."""
        while self._store.engine.shared:
            await asyncio.sleep(LOOK_EVERY_S)
            followed = self._broadcast.followed()
            self._kept.intersection_update(followed)
            for start in range(0, len(followed), AT_ONCE):
                await asyncio.gather(*(self.look(one) for one in followed[start : start + AT_ONCE]))

    async def look(self, message_id: str) -> None:
        """Tell the followers of a message how it ended, if it has and they do not know."""
        if not self._store.engine.shared or not self._broadcast.is_followed(message_id):
            return
        with suppress(StoreError):
            try:
                answered = await self._store.inbox.answer(message_id)
            except NotFound:
                if message_id not in self._kept:
                    return  # it is not accepted yet
                answered = RepeatedRequest(MessageState.WITHDRAWN)
            self._kept.add(message_id)
            if answered.outcome is not None:
                self._broadcast.outcome_found(message_id, answered.outcome)
            elif answered.state is not MessageState.WAITING:
                # it was removed, or taken back, and nothing was kept of it
                self._broadcast.outcome_found(message_id, Ended(TurnStatus.INTERRUPTED, "", ()))
            elif answered.question is not None:
                self._broadcast.question_found(message_id, answered.question)

    async def close(self) -> None:
        """Look no more."""
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    def _take_text(self, signal: Signal) -> None:
        text = self._texts.get(signal.message_id)
        if text is None or text.step != signal.step:
            text = self._texts[signal.message_id] = ReceivedText(signal.step)
        if text.fits(signal.offset, signal.text):
            self._broadcast.delta(signal.message_id, signal.session, signal.step, signal.text)

    def _look_soon(self, message_id: str) -> None:
        if self._broadcast.is_followed(message_id):
            self._spawn(self.look(message_id))

    async def _fetch(self, files: FileSource, signal: Signal) -> None:
        """Fetch a file for a host that has no platforms, which looks for it in the store."""
        file = msgspec.json.decode(signal.text, type=Attachment)
        upload = await files.fetch(signal.name, file)
        with suppress(StoreError):
            kept = {upload_key(file): msgspec.msgpack.encode(upload)}
            await self._store.sessions.keep_attachments(signal.session, kept)

    async def _show_todo(self, session: str) -> None:
        """Tell pages a todo list that no signal holds."""
        with suppress(StoreError):
            if todo := await self._store.sessions.unsettled_todo(session):
                self._broadcast.todo_changed(session, todo)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)
