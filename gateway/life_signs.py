"""Shows people that their turn runs: typing or a status, what the agent does, and the answer while it is written.

All of it is a courtesy: it goes where the governor leaves room for the final answer, what fails is not tried again for
this turn, and the answer itself never waits for it. An answer that is shown has its place in the message's address: the
final text is written over it, whole, by the delivery, also after a restart.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping

from gateway.answer_previews import LONGEST_PREVIEW_S, AnswerPreviews, Interrupts
from gateway.courtesies import Courtesies
from gateway.governor import Governor
from gateway.platform_calls import PlatformCalls
from gateway.platforms.port import Adapter
from gateway.shown_turn import Activity, ShownTurn
from shared.errors import NotFound, StoreError
from shared.messages import Outcome, Reply
from shared.profiles import Profiles
from shared.store.port import Store
from shared.texts import ENGLISH, Texts

#: a turn that ends sooner shows nothing
FIRST_S = 1.0

#: what changes what is shown is looked at this often at the most
LEAST_GAP_S = 0.5

LONGEST_WATCH_S = 60.0


class SignFate(enum.Enum):
    """What became of a life sign."""

    SENT = enum.auto()
    #: there was no room for it: it may go later
    CROWDED = enum.auto()
    #: this turn shows none any more
    REFUSED = enum.auto()


class LifeSigns:
    """Owns a task for each running turn of a platform; ``turns`` ends one that a person stops by its shown answer."""

    def __init__(
        self,
        store: Store,
        platforms: Mapping[str, Adapter],
        governor: Governor,
        calls: PlatformCalls,
        turns: Interrupts,
        profiles: Profiles = Profiles(),  # noqa: B008 - frozen
    ) -> None:
        self._store = store
        self._platforms = platforms
        self._profiles = profiles
        self._courtesies = Courtesies(governor, calls)
        self._previews = AnswerPreviews(store, self._courtesies, turns)
        self._turns: dict[str, ShownTurn] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}

    def turn_started(self, message_id: str, session: str) -> None:
        """Begin to show a turn, where its platform is one."""
        self.end(session)
        platform = self._platforms.get(session.partition(":")[0])
        if platform is not None and platform.capabilities.life_sign_every_s + platform.capabilities.stream_gap_s > 0:
            turn = self._turns[session] = ShownTurn(message_id, session)
            self._tasks[session] = asyncio.create_task(self._show(platform, turn), name=f"life signs of {session}")

    def tool_started(self, session: str, name: str) -> None:
        """Show that a tool runs."""
        if turn := self._turns.get(session):
            turn.act(tool=name)

    def tool_said(self, session: str, text: str) -> None:
        """Show how far a tool is."""
        if turn := self._turns.get(session):
            turn.act(said=" ".join(text.split()))

    def delta(self, session: str, step: int, text: str) -> None:
        """Show what the model writes."""
        if turn := self._turns.get(session):
            turn.write(step, text)

    def text_restarted(self, session: str, step: int) -> None:
        """Forget the text of a step: the model begins it again."""
        if (turn := self._turns.get(session)) and turn.step == step:
            turn.text = []

    def settled(self, session: str, outcome: Outcome) -> None:  # noqa: ARG002 - whatever came of it
        """Show the turn no more."""
        self.end(session)

    async def close(self) -> None:
        """Show nothing more."""
        tasks = [*self._tasks.values(), *self._ending.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def place_of(self, reply: Reply) -> bytes:
        """Return the address of a message's answer: what is on its way to show the beginning of it is waited for."""
        running = self._turns.get(reply.session)
        if running is not None and running.message_id == reply.message_id:
            self.end(reply.session)  # its outcome is on its way here
        if not reply.begins:
            return reply.address
        if ending := self._ending.get(reply.message_id):
            await asyncio.wait((ending,), timeout=LONGEST_PREVIEW_S)
        return self._previews.place_of(reply.message_id) or reply.address

    def end(self, session: str) -> None:
        """End a turn; what is on its way is not broken off, for nobody would know what became of it."""
        turn, task = self._turns.pop(session, None), self._tasks.pop(session, None)
        if turn is None or task is None:
            return
        turn.ended = True
        turn.changed.set()
        if task.done():
            return
        self._ending[turn.message_id] = task
        task.add_done_callback(lambda _: self._ending.pop(turn.message_id, None))

    async def _show(self, platform: Adapter, turn: ShownTurn) -> None:
        await turn.wait(FIRST_S)
        if turn.ended:
            return
        try:
            address = await self._store.inbox.address(turn.session, turn.message_id)
            texts = await self._texts_of(platform, turn)
        except (StoreError, NotFound):
            return
        signs = platform.capabilities.life_sign_every_s > 0
        while not turn.ended and (signs or turn.streams):
            shown: Activity | None = turn.activity
            if signs:
                match await self._send_sign(platform, address, turn.activity.shown(texts)):
                    case SignFate.CROWDED:
                        shown = None
                    case SignFate.REFUSED:
                        signs = False
                    case SignFate.SENT:
                        pass
            address = await self._watch(platform, turn, address, shown)

    async def _texts_of(self, platform: Adapter, turn: ShownTurn) -> Texts:
        """Return what is said to the sender of a turn's message. Raises StoreError and NotFound."""
        if not platform.capabilities.life_sign_words:
            return ENGLISH
        return self._profiles.texts_of(turn.session, (await self._store.inbox.trace(turn.message_id)).user)

    async def _watch(self, platform: Adapter, turn: ShownTurn, address: bytes, shown: Activity | None) -> bytes:
        """Show what is written until the next life sign is due; return the address of the answer.

        ``shown`` is what the last sign told, None where it found no room. What is told by words is due a gap after it
        changed, also where that was while the sign was on its way.
        """
        due_at = asyncio.get_running_loop().time() + (platform.capabilities.life_sign_every_s or LONGEST_WATCH_S)
        gap_s = max(LEAST_GAP_S, platform.capabilities.stream_gap_s)
        words = platform.capabilities.life_sign_words
        while not turn.ended:
            turn.changed.clear()
            address = await self._previews.show(platform, turn, address)
            try:
                async with asyncio.timeout_at(due_at):
                    if not words or turn.activity == shown:
                        await turn.changed.wait()
                    await turn.wait(gap_s)
            except TimeoutError:
                break
            if words and turn.activity != shown:
                break
        return address

    async def _send_sign(self, platform: Adapter, address: bytes, words: str) -> SignFate:
        request = platform.life_sign(address, words)
        if request is None:
            return SignFate.REFUSED
        if not self._courtesies.allowed(platform, address, request):
            return SignFate.CROWDED
        answer = await self._courtesies.send(platform, address, request)
        if answer is not None and answer.status == 429:
            return SignFate.CROWDED
        return SignFate.SENT if answer is not None and answer.status < 400 else SignFate.REFUSED
