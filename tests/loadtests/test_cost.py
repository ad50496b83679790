"""What a message costs is really counted, in the gateway's process, its workers' and its store."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from loadtests.bench import cost
from loadtests.bench.cost import Contender, Replies, gateway_for
from loadtests.loopback import Loopback


def test_a_message_has_its_cpu_and_its_work_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MESSAGES", 6)
    with ExitStack() as stack:
        replies = Replies()
        url = stack.enter_context(Loopback(replies.app()).in_thread()).url
        contender = Contender(gateway_for(stack, url, {}, "loadtests.traced.store_traffic"), replies, 1)
        contender.counted = True
        assert asyncio.run(contender.measure()) > 0
    samples = {name: value for name, (value,) in contender.samples.items()}
    assert samples["gateway"] > 0
    assert samples["workers"] > 0
    assert samples["p50"] > 0
    assert 2 <= samples["commits"] <= samples["jobs"] < samples["statements"]
