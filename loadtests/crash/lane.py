"""A lane: one gateway with its data, its platform and its provider, which runs one round after the other."""

from __future__ import annotations

import secrets
import time
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from msgspec import structs

from loadtests.crash.audit import Findings, audit
from loadtests.crash.inspection import Inspection
from loadtests.crash.kill_switch import ARMED, Armed, arm, disarm, fire, victims_above, victims_below
from loadtests.crash.notes import NOTES, Notebook
from loadtests.crash.plan import Boundary, Kill, Round
from loadtests.crash.traffic import Traffic
from loadtests.gateway_process import GatewayProcess
from loadtests.platform import running_platform
from loadtests.platform_wire import Secrets
from loadtests.provider import running_provider

LOOK_S = 0.01
DEADLINE_S = 90.0
SETTINGS = {
    "GATEHOUSE_MODEL": "openai:scripted",
    "GATEHOUSE_TOOLS": "loadtests.crash.tools",
    "GATEHOUSE_WORKERS": "2",
    "GATEHOUSE_SPARES": "1",
}


class Lane:
    """Runs rounds in a directory of its own; what it holds is closed with its context."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._notebook = Notebook(directory / NOTES)
        self._armed = directory / ARMED
        self._held = ExitStack()
        # a port may pass from one lane's gateway to another's: then the signature tells them apart
        own = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
        self._platform = self._held.enter_context(running_platform(Secrets(standard_secret=own)))
        provider = self._held.enter_context(running_provider())
        environment = SETTINGS | self._platform.environment() | {"OPENAI_BASE_URL": provider.openai_url}
        command = ("loadtests.crash.gateway", str(directory))
        self.gateway = GatewayProcess(directory, environment, command)
        self._url = ""
        self._inspection = self._held.enter_context(Inspection(self._platform, self._notebook, lambda: [self._url]))
        self._deaths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.gateway.kill_tree()
        self._held.close()

    def run(self, plan: Round) -> Findings:
        """Run one round to its end, or its deadline, and judge it."""
        assert isinstance(plan.kill, Kill)
        if not self._url:
            self._launch()
        self.gateway.wait_until(self.gateway.is_ready, DEADLINE_S, "the gateway is ready")
        self._platform.forget()
        offset = self._notebook.size_bytes
        started = time.monotonic()
        traffic = Traffic(
            plan, self._platform.secrets, str(self._notebook.path), lambda: self._url, started + DEADLINE_S
        )
        arm(self._armed, Armed(plan.number, self.gateway.pid, plan.kill))
        traffic.start()
        try:
            deaths = self._deaths
            in_time = self._go_through(plan, plan.kill, traffic, started)
        finally:
            traffic.close()
            disarm(self._armed)
        evidence = self._inspection.evidence(plan, traffic, offset)
        seconds = time.monotonic() - started
        return audit(structs.replace(evidence, seconds=seconds, deaths=self._deaths - deaths, in_time=in_time))

    def _go_through(self, plan: Round, kill: Kill, traffic: Traffic, started: float) -> bool:
        """Wait for the kill, mend what it broke, deliver everything again, wait for all answers; False if too late."""
        redelivered = False
        while time.monotonic() < started + DEADLINE_S:
            self._kill_at_random(plan.number, kill, time.monotonic() - started)
            if self.gateway.ended():
                self._url = ""
                self._deaths += 1
                self.gateway.kill()
                self._launch()
            if not redelivered and not self._armed.exists():
                redelivered = True
                traffic.redeliver()
            if not traffic.busy and self._inspection.all_is_closed(plan, traffic):
                if redelivered:
                    return True
                disarm(self._armed)  # its moment never came
            time.sleep(LOOK_S)
        return False

    def _launch(self) -> None:
        self.gateway.launch()
        self._url = self.gateway.url

    def _kill_at_random(self, number: int, kill: Kill, seconds: float) -> None:
        if kill.boundary is not Boundary.RANDOM or seconds < kill.after_s or not self._armed.exists():
            return
        armed = Armed(number, self.gateway.pid, kill)
        if kill.victim.ends_gateway:
            fire(self._armed, self._notebook, armed, victims_above(armed))
        elif pids := self.gateway.worker_pids():
            fire(self._armed, self._notebook, armed, victims_below(armed, pids[number % len(pids)]))
