"""What the embedded engine has on the disk when the power goes: all that anybody was told of, and nothing torn."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.crash.shadow_disk import lose_power
from loadtests.gateway_process import ROOT
from shared.messages import MessageState
from tests.shared.store.scratch import Scratch, sqlite

#: takes the first so many steps of a message's way on a watched disk, and dies without closing anything
WAY = """
import asyncio, os, sys, time
from pathlib import Path
from loadtests.crash.shadow_disk import ShadowDisk
from tests.shared.store.scratch import Scratch, ended, sqlite
disk = ShadowDisk(Path(sys.argv[1]) / "data")

async def main(steps):
    scratch = Scratch(sqlite, Path(sys.argv[1]))
    store = await scratch.open()
    if steps > 0:
        assert await scratch.accept() == "msg_0001"
    if steps > 1:
        claim = await scratch.claim_one()
    if steps > 2:
        await store.claims.settle(claim.ref, ended("well", messages=(b"1",)))
    if steps > 3:
        (reply,) = (await store.outbox.due("host", 10, 30)).replies
    if steps > 4:
        # with a job at its side that must be synced, what is relaxed is synced with it
        await asyncio.gather(store.outbox.delivered(reply, "sent"), store.claims.claim("host", 0, 30))
    print(store.engine.writer.commits, store.engine.writer.synced_commits, flush=True)
    os._exit(0)

asyncio.run(main(int(sys.argv[2])))
"""


@pytest.mark.parametrize(
    ("steps", "relaxed", "state", "claimable", "replies"),
    [
        (1, 0, MessageState.WAITING, 1, 0),
        (2, 1, MessageState.WAITING, 1, 0),  # the claim is gone, and so is who held it
        (3, 1, MessageState.DONE, 0, 1),  # the settle took the claim along
        (4, 2, MessageState.DONE, 0, 1),  # the lease is gone: the reply is due
        (5, 2, MessageState.DONE, 0, 0),  # what was sent is never sent again
    ],
)
async def test_a_loss_of_power_takes_what_is_done_again_and_nothing_else(
    tmp_path: Path, steps: int, relaxed: int, state: MessageState, claimable: int, replies: int
) -> None:
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-c", WAY, str(tmp_path), str(steps)]
    writer = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    told, _ = await writer.communicate()
    commits, synced = map(int, told.split())
    assert commits - synced == relaxed
    lose_power(tmp_path / "data" / "gatehouse.db")
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    await store.engine.verify()
    assert (await store.inbox.trace("msg_0001")).state is state
    assert len((await store.claims.claim("next", 10, 30)).claims) == claimable
    assert len((await store.outbox.due("next", 10, 30)).replies) == replies
    await scratch.close()
