"""One running turn, as far as people see it: what the agent does, and what it has written so far."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec

from shared.texts import Texts

MOST_WORDS = 80


class Activity(msgspec.Struct, frozen=True):
    """What the agent does: it thinks, uses a tool, or a tool says how far it is."""

    tool: str = ""
    said: str = ""

    def shown(self, texts: Texts) -> str:
        """Return it in words that stand behind the bot's name."""
        if self.said:
            return texts.doing.format(what=self.said)
        return texts.using.format(tool=self.tool) if self.tool else texts.thinking


class ShownTurn:
    """Changed by what is heard of the turn, and waited on by who shows it."""

    def __init__(self, message_id: str, session: str) -> None:
        self.message_id = message_id
        self.session = session
        self.activity = Activity()
        self.step = 0
        self.text: list[str] = []
        self.changed = asyncio.Event()
        self.parts = 0  #: how often its answer was shown
        self.shown_length = 0  #: how long its text was then, characters
        self.shown = ""  #: what of it is shown
        self.beginning = ""  #: the beginning of its answer at the last look, as the platform writes it
        self.streams = True  #: whether its answer is shown while it is written
        self.ended = False

    def act(self, *, tool: str = "", said: str = "") -> None:
        """Take what the agent does."""
        self.activity = Activity(tool[:MOST_WORDS], said[:MOST_WORDS])
        self.changed.set()

    async def wait(self, for_s: float) -> None:
        """Let some time pass, or less if the turn ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                while not self.ended:
                    self.changed.clear()
                    await self.changed.wait()

    def write(self, step: int, text: str) -> None:
        """Take text of a step; only that of the last one is the answer."""
        if step != self.step:
            self.step, self.text = step, []
        self.text.append(text)
        self.changed.set()
