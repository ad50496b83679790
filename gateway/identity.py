"""Learns who the bot is on its platforms: in a group, a mention of it can only be told by its name."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping

from gateway.platform_client import PlatformClient
from gateway.platforms.port import Adapter, ApiResponse
from shared.retry import backoff_s

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0


async def identify(client: PlatformClient, platforms: MutableMapping[str, Adapter], name: str) -> None:
    """Ask a platform who the bot is, until it answers; meanwhile its adapter does with what it knows."""
    failures = 0
    while (call := platforms[name].identity_call()) is not None:
        answer = await client.send(call)
        if isinstance(answer, ApiResponse) and answer.status < 500 and answer.status != 429:
            platforms[name] = platforms[name].identified(answer)
            return
        failures += 1
        await asyncio.sleep(backoff_s(failures, FIRST_BACKOFF_S, LONGEST_BACKOFF_S))
