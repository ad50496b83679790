"""``python -m loadtests.scenarios webhooks``: a gateway, its load, an HTML report, and an exit status.

The statuses are locust's: 0 all held, 1 something failed, 2 a row was slower than its threshold.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx2
import msgspec

from loadtests import further_settings
from loadtests.gateway_process import ROOT, GatewayProcess
from loadtests.platform import API_KEY, platform_environment
from loadtests.platform_wire import Secrets
from loadtests.program import free_port, running_program

RESULTS = ROOT / "loadtests" / "results"


class Scenario(msgspec.Struct, frozen=True):
    """One load test: what its gateway is set to, and its thresholds."""

    told: str  #: what it is, in a line
    settings: dict[str, str] = {}  #: of the gateway
    thresholds: dict[str, str] = {}  #: of its rows, as the environment of locust has them; what is set there wins
    model_latency_s: float | None = None  #: of the scripted provider, None for the offline model
    all_platforms: bool = False  #: whether further platforms are on
    replies: bool = True  #: whether replies come back by a platform


SCENARIOS = {
    "webhooks": Scenario(
        "people on eight platforms, more of them from step to step",
        thresholds={"LOADTEST_ACK_P95_MS": "1500", "LOADTEST_REPLY_P95_MS": "5000"},
        all_platforms=True,
    ),
    "api": Scenario(
        "clients of the API that stream", thresholds={"LOADTEST_FIRST_TOKEN_P95_MS": "1500"}, replies=False
    ),
    "storm": Scenario(
        "ten times what the gateway can do, for a third of the time",
        # eight calls of 0.4 s at once are 20 answers a second
        settings={
            "GATEHOUSE_WORKERS": "1",
            "GATEHOUSE_TURNS_PER_WORKER": "4",
            "GATEHOUSE_WAITING_TURNS": "4",
            "GATEHOUSE_INBOX_LIMIT": "300",
        },
        thresholds={"LOADTEST_ACK_P95_MS": "3000"},
        model_latency_s=0.4,
    ),
    "chaos": Scenario(
        "conversations while workers are killed",
        settings={"GATEHOUSE_WORKERS": "2"},
        thresholds={"LOADTEST_ACK_P95_MS": "1500", "LOADTEST_REPLY_WITHIN": "30"},
    ),
}


def run(name: str, scenario: Scenario, run_s: float, results: Path) -> int:
    """Run one scenario against a gateway of its own; return locust's status."""
    port = free_port()
    results.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = platform_environment(f"http://127.0.0.1:{port}", Secrets()) | scenario.settings
        if scenario.all_platforms:
            settings |= further_settings.environment(f"http://127.0.0.1:{port}")
        if scenario.model_latency_s is not None:
            provider = stack.enter_context(running_program("loadtests.provider"))
            httpx2.post(f"{provider.url}/script", json={"latency_s": scenario.model_latency_s}, trust_env=False)
            settings |= {"GATEHOUSE_MODEL": "openai:m", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{provider.url}/v1"}
        gateway = stack.enter_context(GatewayProcess(data_dir, settings))
        command = [
            *(sys.executable, "-m", "locust", "-f", f"loadtests/scenarios/{name}.py", "--headless", "--only-summary"),
            *("--host", gateway.url, "--html", str(results / f"{name}.html"), "--csv", str(results / name)),
            *(("--reply-port", str(port)) if scenario.replies else ()),
        ]
        known = {
            "LOADTEST_GATEWAY_PID": str(gateway.pid), "LOADTEST_API_KEY": API_KEY, "LOADTEST_RUN_S": str(run_s),
        }  # fmt: skip
        status = subprocess.run(
            command, check=False, cwd=ROOT, env=scenario.thresholds | dict(os.environ) | known
        ).returncode
    print(f"{name}: status {status}; report in {results / f'{name}.html'}", flush=True)
    return status


def main(arguments: list[str] | None = None) -> int:
    """Run the scenarios that are named, all of them by default; return the highest status."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.scenarios", description="; ".join(f"{n}: {s.told}" for n, s in SCENARIOS.items())
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load for each (default 60)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where reports go (default loadtests/results)")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in SCENARIOS]:
        parser.error(f"there is no scenario {unknown[0]}; there are {', '.join(SCENARIOS)}")
    names = asked.names or list(SCENARIOS)
    return max(run(name, SCENARIOS[name], asked.seconds, asked.results) for name in names)


if __name__ == "__main__":
    sys.exit(main())
