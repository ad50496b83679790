"""The chat platforms, one adapter each; a platform is on when its secrets are set."""

from __future__ import annotations

from gateway.platforms.port import Adapter
from gateway.platforms.slack import Slack
from gateway.platforms.standard import Standard
from gateway.platforms.telegram import Telegram
from shared.settings import Settings


def enabled_platforms(settings: Settings) -> dict[str, Adapter]:
    """Return the adapters of the platforms that are on, by name."""
    adapters: list[Adapter] = []
    if settings.standard:
        adapters.append(Standard(settings.standard))
    if settings.telegram:
        adapters.append(Telegram(settings.telegram))
    if settings.slack:
        adapters.append(Slack(settings.slack))
    return {adapter.name: adapter for adapter in adapters}
