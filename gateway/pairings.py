"""Pairings: strangers get a code, an operator approves it, and what they wrote first is answered then.

A code holds for a while only; an approval holds until it is revoked.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import msgspec
from cachetools import TTLCache

from gateway.announcements import Announcements
from gateway.arrival import arrival_of
from gateway.intake import Intake
from gateway.platforms.port import Adapter, Inbound
from shared.ids import new_message_id
from shared.platform_settings import WebhookSettings
from shared.store.port import Store
from shared.texts import ENGLISH, Texts

#: letters and digits that nobody takes for another
CODE_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
CODE_LENGTH = 8

#: how often a stranger who goes on writing is told the code again, and in how many conversations at the most meanwhile
ANNOUNCED_AGAIN_S, MOST_TOLD = 3600.0, 3

#: senders known to be approved, so that not their every message needs a look into the store; of another gateway's
#: revocation this one knows after these seconds
MOST_KNOWN, KNOWN_S = 10_000, 60.0


class Held(msgspec.Struct, frozen=True):
    """A stranger's first message, while its sender waits for approval."""

    platform: str
    inbound: Inbound
    #: what its sender is told once it is answered
    welcome: str = ENGLISH.welcome


class Pairings:
    """Owns who was let in; ``intake`` takes the messages that waited for it."""

    def __init__(
        self,
        store: Store,
        platforms: Mapping[str, Adapter],
        announcements: Announcements,
        intake: Intake,
        settings: WebhookSettings,
    ) -> None:
        self._store = store
        self._platforms = platforms
        self._announcements = announcements
        self._intake = intake
        self._settings = settings
        self._known: TTLCache[str, bool] = TTLCache(MOST_KNOWN, KNOWN_S)
        self._told: TTLCache[str, int] = TTLCache(MOST_KNOWN, ANNOUNCED_AGAIN_S)

    async def approved(self, sender: str) -> bool:
        """Tell whether a sender (``platform:user``) was let in. Raises StoreUnavailable."""
        if sender not in self._known and await self._store.sessions.approved(sender):
            self._known[sender] = True
        return sender in self._known

    async def announce_code(self, platform: Adapter, inbound: Inbound, texts: Texts = ENGLISH) -> str:
        """Send a stranger the code, where it is not the answer to the event itself, and keep the message.

        Return what the stranger is told. Raises StoreUnavailable.
        """
        sender = f"{platform.name}:{inbound.user}"
        held = msgspec.json.encode(Held(platform.name, inbound, texts.welcome))
        code = await self._store.sessions.pair(sender, new_code(), self._settings.pairing_ttl_s, held)
        if not code:
            return texts.crowded
        text = texts.stranger.format(code=code)
        told = self._told.get(sender, 0)
        if platform.declined(text) is None and told < MOST_TOLD:
            keys = (f"pairing:{sender}:{code}",)
            if await self._announcements.announce(platform, inbound, text, keys, ANNOUNCED_AGAIN_S):
                self._told[sender] = told + 1
        return text

    async def approve(self, code: str) -> str:
        """Let the sender of a code in, say so, and take the message that waited. Raises NotFound."""
        sender = await self._store.sessions.approve(code)
        raw = await self._store.sessions.release(sender)
        if raw:
            held = msgspec.json.decode(raw, type=Held)
            if platform := self._platforms.get(held.platform):
                await self._welcome(platform, held, code)
        return sender

    async def _welcome(self, platform: Adapter, held: Held, code: str) -> None:
        inbound = held.inbound
        await self._announcements.announce(platform, inbound, held.welcome, (f"paired:{code}",), ANNOUNCED_AGAIN_S)
        if not inbound.text.startswith("/"):  # a chat command was of that moment
            at, limits = self._intake.clock(), self._settings.attachments
            await self._intake.accept(arrival_of(platform, inbound, at, limits, new_message_id()))

    async def revoke(self, sender: str) -> None:
        """Let a sender in no longer. Raises NotFound."""
        await self._store.sessions.revoke(sender)
        self._known.pop(sender, None)


def new_code() -> str:
    """Return a new pairing code: 8 signs, 40 bits."""
    return "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_LENGTH))
