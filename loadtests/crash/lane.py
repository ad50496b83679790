"""A lane: one gateway with its data, its platform and its provider, which runs one round after the other."""

from __future__ import annotations

import os
import secrets
import signal
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import httpx2
from msgspec import structs

from loadtests.crash.audit import Findings, audit
from loadtests.crash.doors import session_key
from loadtests.crash.features import CONFIG
from loadtests.crash.inspection import Inspection
from loadtests.crash.kill_switch import ARMED, Armed, arm, disarm, fire, victims_above, victims_below
from loadtests.crash.notes import NOTES, Notebook
from loadtests.crash.plan import LED, TIMED, Boundary, Kill, Round, Victim
from loadtests.crash.renames import BACKUPS
from loadtests.crash.shadow_disk import lose_power
from loadtests.crash.stored_files import fill_log, make_old, missing_lines, unsound_copies
from loadtests.crash.traffic import Traffic
from loadtests.gateway_process import GatewayProcess
from loadtests.platform import running_platform
from loadtests.platform_wire import Secrets
from loadtests.provider import running_provider

LOOK_S = 0.01
DEADLINE_S = 90.0
#: how long what a dead gateway has left may take to notice, in seconds
STRAYS_END_S = 10.0
SETTINGS = {
    "GATEHOUSE_MODEL": "openai:scripted",
    "GATEHOUSE_TOOLS": "loadtests.crash.tools",
    "GATEHOUSE_WORKERS": "2",
    "GATEHOUSE_SPARES": "1",
    "GATEHOUSE_SESSION_BUDGET": "10000000",
    "GATEHOUSE_BACKUP_KEEP": "3",
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
        self._provider = self._held.enter_context(running_provider())
        (directory / BACKUPS).mkdir()
        config = directory / "config.toml"
        config.write_text(CONFIG, "utf-8")
        environment = SETTINGS | self._platform.environment() | {"OPENAI_BASE_URL": self._provider.openai_url}
        environment |= {"GATEHOUSE_CONFIG": str(config), "GATEHOUSE_BACKUP_DIR": str(directory / BACKUPS)}
        command = ("loadtests.crash.gateway", str(directory))
        self.gateway = GatewayProcess(directory, environment, command)
        self._inspection = self._held.enter_context(
            Inspection(self._platform, self._notebook, lambda: list(filter(None, [self._url()])))
        )
        self._led_mono: float | None = None
        self._killed_mono = 0.0
        self._listens_mono = 0.0
        self._deaths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.gateway.kill_tree()
        self._held.close()

    def run(self, plan: Round) -> Findings:
        """Run one round to its end, or its deadline, and judge it."""
        assert isinstance(plan.kill, Kill)
        self._prepare(plan, plan.kill)
        self.gateway.wait_until(self.gateway.is_ready, DEADLINE_S, "the gateway is ready")
        self._platform.forget()
        offset, deaths, model_calls = self._notebook.size_bytes, self._deaths, self._provider.calls
        self._led_mono = None
        started = self._killed_mono = time.monotonic()
        traffic = Traffic(
            plan,
            self._platform.secrets,
            str(self._notebook.path),
            self._url,
            started + DEADLINE_S,
            has_ended=self._inspection.has_ended,
        )
        arm(self._armed, Armed(plan.number, self.gateway.pid, plan.kill))
        traffic.start()
        try:
            in_time = self._go_through(plan, plan.kill, traffic, started)
            ended = time.monotonic()
        finally:
            traffic.close()
            disarm(self._armed)
        evidence = self._inspection.evidence(plan, traffic, offset)
        return audit(
            structs.replace(
                evidence,
                seconds=ended - started,
                recovery_s=ended - self._killed_mono,
                start_s=max(0.0, self._listens_mono - self._killed_mono),
                deaths=self._deaths - deaths,
                in_time=in_time,
                strays=self._strays(),
                broken_files=tuple(self._broken_files(plan, plan.kill)),
                model_calls=self._provider.calls - model_calls,
            )
        )

    def _prepare(self, plan: Round, kill: Kill) -> None:
        """Have a gateway with the settings that the round needs, and the files that its kill does."""
        if self.gateway.change(plan.feature.settings) and not self.gateway.ended():
            self.gateway.terminate()
        if kill.boundary is Boundary.ROTATION:
            fill_log(self.directory, session_key_of(plan))
        if self.gateway.ended():
            self.gateway.launch()

    def _broken_files(self, plan: Round, kill: Kill) -> Iterator[str]:
        """Say what is wrong with the files beside the database."""
        match kill.boundary:
            case Boundary.BACKUP:
                yield from unsound_copies(self.directory)
            case Boundary.ROTATION:
                log = self.gateway.ask("GET", f"/v1/sessions/{quote(session_key_of(plan), safe='')}/log")
                yield from missing_lines(log.content)
            case _:
                pass

    def _go_through(self, plan: Round, kill: Kill, traffic: Traffic, started: float) -> bool:
        """Wait for the kill, mend what it broke, deliver everything again, wait for all answers; False if too late."""
        redelivered = False
        while time.monotonic() < started + DEADLINE_S:
            self._look_at_listener()
            if kill.boundary in TIMED | LED and self._armed.exists():
                self._look_at_clock(plan.number, kill, started)
            if self.gateway.ended():
                self._deaths += 1
                self._killed_mono = time.monotonic()
                self.gateway.kill_tree()
                self._lose_power(kill)
                self.gateway.launch()
            if not redelivered and not self._armed.exists():
                redelivered = True
                self._killed_mono = time.monotonic()
                traffic.redeliver()
            if not traffic.busy and self._inspection.all_is_closed(plan, traffic):
                if redelivered:
                    return True
                disarm(self._armed)  # its moment never came
            time.sleep(LOOK_S)
        return False

    def _look_at_listener(self) -> None:
        """Note when a gateway begins to listen."""
        if not self._url():
            self._listens_mono = 0.0
        elif not self._listens_mono:
            self._listens_mono = time.monotonic()

    def _url(self) -> str:
        """Where the gateway listens; empty while it does not."""
        return self.gateway.url if self.gateway.events("started") and not self.gateway.ended() else ""

    def _look_at_clock(self, number: int, kill: Kill, started: float) -> None:
        """Do what leads to a kill when it is time, and kill when it is time for that."""
        now = time.monotonic()
        if now < started + kill.after_s:
            return
        if self._led_mono is None:
            self._led_mono = now
            self._lead_to(kill.boundary)
        elif kill.boundary in TIMED and now >= self._led_mono + kill.then_s:
            self._kill(number, kill)

    def _lead_to(self, boundary: Boundary) -> None:
        match boundary:
            case Boundary.RECOVERY:
                self.gateway.kill_tree()
            case Boundary.MIGRATION:
                self.gateway.kill_tree()
                make_old(self.directory / "gatehouse.db")
            case Boundary.DRAIN:
                os.kill(self.gateway.pid, signal.SIGTERM)
            case Boundary.RENEWAL:
                os.kill(self.gateway.pid, signal.SIGHUP)
            case _:
                pass

    def _kill(self, number: int, kill: Kill) -> None:
        """Kill the victims, if they are there."""
        if self.gateway.ended():
            return
        armed = Armed(number, self.gateway.pid, kill)
        if kill.victim.ends_gateway:
            fire(self._armed, self._notebook, armed, victims_above(armed))
        else:
            with suppress(httpx2.TransportError, httpx2.HTTPStatusError, TimeoutError):  # it starts, or is at its end
                if self._url() and (pids := self.gateway.worker_pids()):
                    fire(self._armed, self._notebook, armed, victims_below(armed, pids[number % len(pids)]))

    def _lose_power(self, kill: Kill) -> None:
        """Throw away what was not synced, where all there was has been killed: that is what a power cut does."""
        if kill.victim is Victim.BOTH and not self._armed.exists():
            lose_power(self.directory / "gatehouse.db")

    def _strays(self) -> int:
        """Count what dead gateways have left running, once it has had time to notice."""
        until = time.monotonic() + STRAYS_END_S
        while (strays := self.gateway.strays()) and time.monotonic() < until:
            time.sleep(LOOK_S)
        return len(strays)


def session_key_of(plan: Round) -> str:
    """Return the key of the first session of a round."""
    first = plan.talks[0][0]
    return session_key(first.door, first.session)
