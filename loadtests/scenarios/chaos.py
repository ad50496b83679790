"""People in conversations while a worker is killed every few seconds: every message is answered once all the same."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import gevent
import psutil
from locust import LoadTestShape, events

from loadtests.locustfile import SlackUser, StandardUser, TelegramUser
from loadtests.scenarios.shape import RUN_S, run_time_s, steps

__all__ = ["SlackUser", "StandardUser", "TelegramUser"]

KILL_EVERY_S = float(os.environ.get("LOADTEST_KILL_EVERY_S", "3"))
log = logging.getLogger("loadtests")


class Steps(LoadTestShape):
    """Half of the time each with 8 and 16 people."""

    def tick(self) -> tuple[int, float] | None:
        """Return how many people there are now, and how fast they come."""
        return steps(run_time_s(self), RUN_S, (8, 16))


class Killer:
    """Kills a worker every few seconds while a run is on; the gateway is this process's LOADTEST_GATEWAY_PID."""

    def __init__(self) -> None:
        self.kills = 0
        self._running: gevent.Greenlet | None = None

    def start(self, **_: Any) -> None:
        """Begin to kill."""
        self._running = gevent.spawn(self._kill_always, psutil.Process(int(os.environ["LOADTEST_GATEWAY_PID"])))

    def stop(self, environment: Any, **_: Any) -> None:
        """Stop; a run without a kill has shown nothing."""
        if self._running is not None:
            self._running.kill()
        log.info("%d workers were killed", self.kills)
        if not self.kills:
            environment.process_exit_code = 1

    def _kill_always(self, gateway: psutil.Process) -> None:
        while True:
            gevent.sleep(KILL_EVERY_S)
            # a worker leads a process group of its own; the fork server is their parent
            workers = [child for child in gateway.children(recursive=True) if os.getpgid(child.pid) == child.pid]
            if workers:
                worker = workers[self.kills % len(workers)]
                self.kills += 1
                os.kill(worker.pid, signal.SIGKILL)


killer = Killer()
events.test_start.add_listener(killer.start)  # type: ignore[no-untyped-call]  # locust's events carry no types
events.test_stop.add_listener(killer.stop)  # type: ignore[no-untyped-call]
