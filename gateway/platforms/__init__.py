"""The chat platforms, one adapter each; a platform is on when its secrets are set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from gateway.platforms.discord import Discord
from gateway.platforms.google_chat import GoogleChat
from gateway.platforms.line import Line
from gateway.platforms.matrix import Matrix
from gateway.platforms.mattermost import Mattermost
from gateway.platforms.port import Adapter
from gateway.platforms.slack import Slack
from gateway.platforms.standard import Standard
from gateway.platforms.teams import Teams
from gateway.platforms.telegram import Telegram
from gateway.platforms.twilio import Twilio
from gateway.platforms.whatsapp import WhatsApp
from shared.settings import Settings

#: every platform's adapter, made of its settings; the settings have the same names in PLATFORM_SETTINGS
ADAPTERS: Mapping[str, Callable[[Any], Adapter]] = MappingProxyType(
    {
        "standard": Standard,
        "telegram": Telegram,
        "slack": Slack,
        "discord": Discord,
        "whatsapp": WhatsApp,
        "teams": Teams,
        "line": Line,
        "twilio": Twilio,
        "google_chat": GoogleChat,
        "mattermost": Mattermost,
        "matrix": Matrix,
    }
)


def enabled_platforms(settings: Settings) -> dict[str, Adapter]:
    """Return the adapters of the platforms that are on, by name."""
    adapters = {name: ADAPTERS[name](platform) for name, platform in settings.platforms.items()}
    if not (base := settings.webhooks.public_url):
        return adapters
    return {name: adapter.reached_at(f"{base}/webhooks/{name}") for name, adapter in adapters.items()}
