"""What one "hello" crosses from its webhook to its reply: files, functions, store jobs.

A gateway and a worker count the calls of their own functions. What also runs while nothing happens is left out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2
import msgspec

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import running_platform
from loadtests.sender import Sender
from loadtests.traced.counting import NAME

#: how long nothing happens, so that what runs by itself is known, in seconds
IDLE_S = 3.0
PATIENCE_S = 30.0


class Tally:
    """The counts of a gateway and its workers, read at one moment after the other."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._pids = [gateway.pid, *gateway.worker_pids()]

    def read(self) -> tuple[int, Counter[str]]:
        """Return the store's jobs and the calls of every function so far."""
        jobs, calls = 0, Counter[str]()
        for pid in self._pids:
            path = self._gateway.data_dir / NAME.format(pid=pid)
            path.unlink(missing_ok=True)
            os.kill(pid, signal.SIGUSR2)
            self._gateway.wait_until(path.exists, PATIENCE_S, "the counts are written")
            found = json.loads(path.read_text())
            jobs += found["jobs"]
            calls.update(found["calls"])
        return jobs, calls


class Crossed(msgspec.Struct, frozen=True):
    """What one message crossed."""

    functions: frozenset[str]  #: ``file:name`` of each
    jobs: int  #: the store's, with those that a poll happened to do meanwhile

    @property
    def files(self) -> frozenset[str]:
        """The files of the functions."""
        return frozenset(name.partition(":")[0] for name in self.functions)


def cross(
    gateway: GatewayProcess, sender: Sender, client: httpx2.Client, session: str, idle_s: float = IDLE_S
) -> Crossed:
    """Send one message and return what it crossed; what runs by itself is left out of the functions."""
    tally = Tally(gateway)
    _, before = tally.read()
    time.sleep(idle_s)
    jobs_idle, idle = tally.read()
    request = sender.standard(session, "hello")
    answer = client.post(request.path, content=request.body, headers=request.headers).raise_for_status()
    message = answer.headers["x-gatehouse-message"]
    gateway.wait_until(lambda: replied(gateway, message), PATIENCE_S, "the reply is sent")
    jobs, calls = tally.read()
    return Crossed(frozenset(set(calls - idle) - set(idle - before)), jobs - jobs_idle)


def replied(gateway: GatewayProcess, message: str) -> bool:
    """Tell whether the reply to a message was sent, by the log, which costs the gateway nothing."""
    return any(event.get("message") == message for event in gateway.events("reply_sent"))


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder, running_platform() as platform:
        settings = platform.environment() | {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0"}
        with GatewayProcess(Path(folder), settings, ("loadtests.traced",)) as gateway:
            sender = Sender(platform.secrets)
            with httpx2.Client(base_url=gateway.url, timeout=PATIENCE_S, trust_env=False) as client:
                for which in ("the first message of a session", "the second"):
                    crossed = cross(gateway, sender, client, "way")
                    counts = (
                        f"{len(crossed.files)} files, {len(crossed.functions)} functions, {crossed.jobs} store jobs"
                    )
                    print(f"  {which:<32} {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
