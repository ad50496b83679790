"""The cluster of the crash proof: gateways and worker hosts on one database, to which one fault a round happens.

Every host has a network namespace of its own, and so has the database; without them all are on loopback.
"""

from __future__ import annotations

import random
import secrets
import time
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from msgspec import structs

from loadtests.crash.audit import Findings, audit
from loadtests.crash.cluster.host import Host
from loadtests.crash.fault import Fault, FaultKind, Party, Storm
from loadtests.crash.inspection import Inspection
from loadtests.crash.notes import NOTES, Note, Notebook
from loadtests.crash.plan import Boundary, Round, Side
from loadtests.crash.traffic import Traffic
from loadtests.network import LOOPBACK, Address, Network
from loadtests.platform import running_platform
from loadtests.platform_wire import Secrets
from loadtests.postgres_server import PostgresServer
from loadtests.provider import running_provider

LOOK_S = 0.05
DEADLINE_S = 120.0
#: how long what dead hosts left has to notice it, in seconds
STRAYS_END_S = 10.0
GATEWAYS = 2
#: how long a platform waits for an answer to a webhook: a host may be cut off with it
ANSWER_WITHIN_S = 4.0
SETTINGS = {
    "GATEHOUSE_MODEL": "openai:scripted",
    "GATEHOUSE_TOOLS": "loadtests.crash.tools",
    "GATEHOUSE_WORKERS": "1",
    "GATEHOUSE_SPARES": "0",
}


class ClusterLane:
    """Runs rounds in a directory of its own; what it holds is closed with its context."""

    def __init__(self, directory: Path, worker_hosts: int = 2, network: Network | None = None) -> None:
        self._notebook = Notebook(directory / NOTES)
        self._held = ExitStack()
        here = network.address if network else LOOPBACK
        own = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
        self._platform = self._held.enter_context(running_platform(Secrets(standard_secret=own), here))
        self._provider = self._held.enter_context(running_provider(address=here))
        place = network.join() if network else Address()
        self.database = PostgresServer(durable=True, address=place.address, prefix=place.prefix)
        self._held.callback(self.database.close)
        environment = SETTINGS | self._platform.environment() | {"OPENAI_BASE_URL": self._provider.openai_url}
        environment["DATABASE_URL"] = self.database.url()
        parties = [Party.GATEWAY] * GATEWAYS + [Party.WORKER_HOST] * worker_hosts
        self.hosts = [
            Host(party, number, directory, environment, network.join() if network else Address())
            for number, party in enumerate(parties)
        ]
        self._inspection = self._held.enter_context(Inspection(self._platform, self._notebook, self._urls))
        self._deaths = 0
        self._said_mono = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.end()
        self._held.close()

    def run(self, plan: Round) -> Findings:
        """Run one round to its end, or its deadline, and judge it."""
        assert isinstance(plan.kill, Fault | Storm)
        for host in self.hosts:
            host.start_if_ended()
        for host in self.hosts:
            host.wait_until_ready()
        self._platform.forget()
        offset = self._notebook.size_bytes
        started = time.monotonic()
        deadline = started + DEADLINE_S + max(fault.after_s for fault in plan.kill.faults)
        notes = str(self._notebook.path)
        traffic = Traffic(plan, self._platform.secrets, notes, self._any_url, deadline, ANSWER_WITHIN_S)
        happenings = [Happening(fault, self, started) for fault in plan.kill.faults]
        self._deaths, model_calls = 0, self._provider.calls
        self._said_mono = started
        traffic.start()
        try:
            in_time = self._go_through(plan, traffic, happenings, deadline)
            ended = time.monotonic()
        finally:
            traffic.close()
            for happening in happenings:
                happening.mend()
        evidence = self._inspection.evidence(plan, traffic, offset)
        return audit(
            structs.replace(
                evidence,
                seconds=ended - started,
                recovery_s=ended - max(self._said_mono, *(happening.mended_mono for happening in happenings)),
                strays=self._strays(),
                deaths=self._deaths,
                in_time=in_time,
                model_calls=self._provider.calls - model_calls,
            )
        )

    def note(self, fault: Fault, life: int) -> None:
        """Write down that a fault happens now, to the host of this process id, or to the database."""
        self._notebook.write(Note(life, Boundary.RANDOM, Side.AFTER, killed=fault))

    def _strays(self) -> int:
        """Count the processes and model calls that dead hosts have left, once they had time to end."""
        until = time.monotonic() + STRAYS_END_S
        while (strays := self._left_running()) and time.monotonic() < until:
            time.sleep(LOOK_S)
        return strays

    def _left_running(self) -> int:
        return self._provider.running + sum(host.strays() for host in self.hosts)

    def _go_through(self, plan: Round, traffic: Traffic, happenings: list[Happening], deadline: float) -> bool:
        """Let the faults happen, mend them, deliver everything again, wait for all answers; False if too late."""
        redelivered = False
        while time.monotonic() < deadline:
            for happening in happenings:
                happening.look()
            if plan.pause_s and traffic.busy:
                self._said_mono = time.monotonic()  # people talk on behind the last fault
            self._deaths += sum(host.start_if_ended() for host in self.hosts)
            if not redelivered and all(happening.begun for happening in happenings):
                redelivered = True
                traffic.redeliver()
            mended = all(happening.mended for happening in happenings)
            if mended and not traffic.busy and self._inspection.all_is_closed(plan, traffic):
                return True
            time.sleep(LOOK_S)
        return False

    def _urls(self) -> list[str]:
        return [host.url for host in self.hosts if host.party is Party.GATEWAY and host.url]

    def _any_url(self) -> str:
        urls = self._urls()
        return random.choice(urls) if urls else ""


class Happening:
    """The fault of one round: begins at its moment and is mended when it has lasted."""

    def __init__(self, fault: Fault, lane: ClusterLane, started_mono: float) -> None:
        self._fault = fault
        self._lane = lane
        self._begins_mono = started_mono + fault.after_s
        self.begun = False
        self.mended = False
        self.mended_mono = 0.0
        parties = [host for host in lane.hosts if host.party is fault.party]
        self._host = parties[fault.nth % len(parties)] if parties else None

    def look(self) -> None:
        """Do what is due now."""
        now = time.monotonic()
        if not self.begun and now >= self._begins_mono:
            self.begun = True
            self._begin()
        elif self.begun and not self.mended and now >= self._begins_mono + self._fault.lasts_s:
            self.mend()

    def _begin(self) -> None:
        host = self._host
        self._lane.note(self._fault, host.pid if host else 0)
        if host is None:
            self._lane.database.kill()
            return
        match self._fault.kind:
            case FaultKind.KILL:
                host.kill()
            case FaultKind.KILL_PARENT:
                host.kill_parent()
            case FaultKind.DRAIN:
                host.drain()
            case FaultKind.PAUSE:
                host.pause()
            case FaultKind.CUT_OFF:
                host.cut_off()

    def mend(self) -> None:
        """End what lasts; a host that died is started by its lane."""
        if not self.begun or self.mended:
            return
        self.mended = True
        self.mended_mono = time.monotonic()
        if self._host is None:
            self._lane.database.start()
        elif self._fault.kind is FaultKind.PAUSE:
            self._host.go_on()
        elif self._fault.kind is FaultKind.CUT_OFF:
            self._host.connect()
