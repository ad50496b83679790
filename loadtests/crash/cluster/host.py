"""One host of the cluster: a gateway or a worker host, with all that may happen to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from loadtests import network
from loadtests.crash.fault import Party
from loadtests.gateway_process import GatewayProcess, descendants
from loadtests.network import Address

READY_WITHIN_S = 90.0
COMMANDS = {Party.GATEWAY: "loadtests.crash.gateway", Party.WORKER_HOST: "loadtests.crash.worker"}


class Host:
    """Owns a host's processes and its link; ``directory`` is where the notebook of the whole cluster is."""

    def __init__(
        self, party: Party, number: int, directory: Path, environment: Mapping[str, str], place: Address
    ) -> None:
        self.party = party
        self._place = place
        own = directory / f"host{number}"
        own.mkdir()
        self._process = GatewayProcess(
            own,
            {**environment, "GATEHOUSE_HOST": place.address},
            (COMMANDS[party], str(directory)),
            address=place.address,
            prefix=place.prefix,
        )
        self._paused: list[int] = []

    @property
    def pid(self) -> int:
        """Its first process; 0 while it has none."""
        return 0 if self._process.ended() else self._process.pid

    @property
    def url(self) -> str:
        """Where it listens; empty while it does not."""
        return self._process.url if self._process.events("started") and not self._process.ended() else ""

    def start_if_ended(self) -> bool:
        """Start it where it has ended, without waiting; True if it had been running."""
        if not self._process.ended():
            return False
        ran = bool(self._process.events("started"))
        self._process.launch()
        return ran

    def wait_until_ready(self) -> None:
        """Wait until it can run turns."""
        self._process.wait_until(self._process.is_ready, READY_WITHIN_S, f"the {self.party} is ready")

    def kill(self) -> None:
        """Kill every process of it."""
        self._process.kill_tree()

    def kill_parent(self) -> None:
        """Kill its first process alone."""
        self._process.kill()

    def drain(self) -> None:
        """Ask it to end."""
        os.kill(self._process.pid, signal.SIGTERM)

    def pause(self) -> None:
        """Stop every process of it where it is."""
        self._paused = [self._process.pid, *descendants(self._process.pid)]
        self._signal_paused(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let every process go on."""
        self._signal_paused(signal.SIGCONT)
        self._paused = []

    def cut_off(self) -> None:
        """Take its link down."""
        network.cut(self._place)

    def connect(self) -> None:
        """Take its link up."""
        network.mend(self._place)

    def strays(self) -> int:
        """Count the processes that earlier ones of it have left."""
        return len(self._process.strays())

    def end(self) -> None:
        """End it for good."""
        self._process.kill_tree()

    def _signal_paused(self, number: signal.Signals) -> None:
        for pid in self._paused:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
