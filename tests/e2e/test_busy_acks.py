"""Platforms get their 200 well before they give up, also while no worker is free."""

from __future__ import annotations

import asyncio
from pathlib import Path

from loadtests.bench.busy_acks import DEADLINES_S, busy_gateway, late, measure
from shared.platform_settings import PLATFORM_SETTINGS


def test_every_platform_has_its_ack_in_half_of_its_deadline_while_all_workers_are_busy(tmp_path: Path) -> None:
    """At the 99th percentile of all; not one message is refused, and no turn ends meanwhile."""
    assert set(DEADLINES_S) == set(PLATFORM_SETTINGS)
    with busy_gateway(tmp_path) as busy:
        acks_s = asyncio.run(measure(busy, 20))
    assert {platform: len(times) for platform, times in acks_s.items()} == dict.fromkeys(DEADLINES_S, 20)
    assert late(acks_s) == {}
