"""The way of one message through the store: a test counts its jobs, so that none is added unseen."""

from __future__ import annotations

from pathlib import Path

import httpx2

from loadtests.bench.way import cross
from loadtests.gateway_process import GatewayProcess
from loadtests.platform import running_platform
from loadtests.sender import Sender

#: accept, claim, history, settle, lease, delivered; two more may be looks that find nothing
MOST_JOBS = 8


def test_a_first_message_costs_eight_store_jobs_at_the_most(tmp_path: Path) -> None:
    with running_platform() as platform:
        settings = platform.environment() | {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0"}
        with (
            GatewayProcess(tmp_path, settings, ("loadtests.traced",)) as gateway,
            httpx2.Client(base_url=gateway.url, timeout=30, trust_env=False) as client,
        ):
            # a poll may fall into the time of one message, but not of all
            jobs = [cross(gateway, Sender(platform.secrets), client, f"s{n}", 0.1).jobs for n in range(3)]
    assert min(jobs) <= MOST_JOBS
