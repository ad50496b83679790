"""The chat platforms, one adapter each; a platform is on when its secrets are set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from gateway.platforms.port import Adapter
from gateway.platforms.slack import Slack
from gateway.platforms.standard import Standard
from gateway.platforms.telegram import Telegram
from shared.settings import Settings

#: every platform's adapter, made of its settings; the settings have the same names in PLATFORM_SETTINGS
ADAPTERS: Mapping[str, Callable[[Any], Adapter]] = MappingProxyType(
    {
        "standard": Standard,
        "telegram": Telegram,
        "slack": Slack,
    }
)


def enabled_platforms(settings: Settings) -> dict[str, Adapter]:
    """Return the adapters of the platforms that are on, by name."""
    return {name: ADAPTERS[name](platform) for name, platform in settings.platforms.items()}
