"""The kill of a process takes what is left of its group with it, also what is nobody's child any more."""

from __future__ import annotations

import asyncio
import subprocess

from worker import os_processes
from worker.pool.processes.process_watch import ProcessWatch

#: leads a group, in which one process has lost the one that started it
LEADER = "(sleep 600 > /dev/null & echo $!); exec sleep 600"


async def test_an_orphan_in_the_group_of_a_killed_process_dies_with_it() -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        ["sh", "-c", LEADER], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        orphan = int(leader.stdout.readline())
        ended = asyncio.Event()
        watch = ProcessWatch(leader.pid, ended.set)
        try:
            async with asyncio.timeout(10):
                while orphan in os_processes.descendants(leader.pid):  # noqa: ASYNC110 - until the shell that printed ends
                    await asyncio.sleep(0.01)
        finally:
            watch.kill_group()
        async with asyncio.timeout(10):
            await ended.wait()
            while os_processes.alive(orphan):  # noqa: ASYNC110 - nobody tells of the end of a process that is not ours
                await asyncio.sleep(0.01)
        watch.close()
