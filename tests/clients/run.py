"""Foreign clients, unmodified, against a real gateway whose model is a scripted server; and its description, fuzzed.

``make test-clients`` gives it an environment of their own: python -m tests.clients.run DIRECTORY, where DIRECTORY holds
``venv`` and ``node``. Exit status 1 where any of them fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loadtests.gateway_process import GatewayProcess
from loadtests.provider import running_provider

SCRIPTS = Path(__file__).parent / "scripts"
WITHIN_S = 120
#: what the fuzzer checks, and how much of it
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = "12"


def main(directory: Path) -> int:
    """Run every client, and return how many failed."""
    failed = 0
    with (
        running_provider() as provider,
        tempfile.TemporaryDirectory() as data,
        GatewayProcess(
            Path(data),
            {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_MODEL": "openai:scripted", "OPENAI_BASE_URL": provider.openai_url},
        ) as gateway,
    ):
        for script in sorted(SCRIPTS.iterdir()):
            failed += not passes(script.name, command_of(script, directory), directory, gateway.url)
    with (
        tempfile.TemporaryDirectory() as data,
        GatewayProcess(Path(data), {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_TURN_TIMEOUT": "20"}) as gateway,
    ):
        failed += not passes("schemathesis", fuzzer(directory, gateway.url), directory, gateway.url)
    return failed


def command_of(script: Path, directory: Path) -> list[str]:
    """Return the command that runs a script in the clients' environment."""
    if script.suffix == ".mjs":
        copied = directory / "node" / script.name  # where node finds the packages
        copied.write_text(script.read_text())
        return ["node", str(copied)]
    return [str(directory / "venv" / "bin" / "python"), str(script)]


def fuzzer(directory: Path, url: str) -> list[str]:
    """Return the command that fuzzes every described route."""
    program = str(directory / "venv" / "bin" / "schemathesis")
    return [
        program, "run", f"{url}/openapi.json", "--checks", CHECKS, "--max-examples", EXAMPLES, "--seed", "1",
        "--request-timeout", "30", "--phases", "examples,coverage,fuzzing", "--no-color",
    ]  # fmt: skip


def passes(name: str, command: list[str], directory: Path, url: str) -> bool:
    """Run one client and say how it went."""
    began = time.monotonic()
    environment = {"PATH": os.environ["PATH"], "GATEHOUSE_URL": url, "HOME": str(directory)}
    try:
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=WITHIN_S, env=environment, cwd=directory
        )
        status, output = ended.returncode, ended.stdout + ended.stderr
    except subprocess.TimeoutExpired as late:
        status, output = -1, f"{late}"
    sys.stdout.write(f"{'ok    ' if status == 0 else 'FAILED'} {name} ({time.monotonic() - began:.1f} s)\n")
    if status:
        sys.stdout.write(output[-6000:] + "\n")
    sys.stdout.flush()
    return status == 0


if __name__ == "__main__":
    sys.exit(min(1, main(Path(sys.argv[1]).resolve())))
