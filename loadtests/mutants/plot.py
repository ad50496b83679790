"""A copy of the code that faults are planted in, and the tests that are run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent.parent
#: what is copied, from the root of the project
COPIED = (
    "gateway",
    "worker",
    "shared",
    "loadtests",
    "tests",
    "stubs",
    "docs",
    "pyproject.toml",
    "README.md",
    "Procfile",
    ".env.example",
)
#: a run of tests that takes longer has hung, which is noticed as well, in seconds
LIMIT_S = 240
#: pytest's exit statuses: all passed, some failed; any other says that the run itself went wrong
PASSED, FAILED = 0, 1


class Run(msgspec.Struct, frozen=True):
    """How one run of tests ended."""

    #: pytest's exit status; None if it did not end in time
    status: int | None
    #: how long it took, in seconds
    took_s: float
    #: the end of what it printed
    output: str

    @property
    def passed(self) -> bool:
        """Tell whether all tests passed."""
        return self.status == PASSED

    @property
    def noticed(self) -> bool:
        """Tell whether a test failed, or hung."""
        return self.status in {FAILED, None}


class Plot:
    """Owns one copy in a temporary folder; ``close`` removes it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gatehouse-mutants-")
        self.root = Path(self._folder.name)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, self.root / name)

    def close(self) -> None:
        """Remove the copy."""
        self._folder.cleanup()

    def test(self, tests: Sequence[str]) -> Run:
        """Run tests in the copy up to the first that fails."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        environment = os.environ | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        began = time.monotonic()
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=LIMIT_S)
                status: int | None = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                output, _ = process.communicate()
                status = None
        return Run(status, time.monotonic() - began, output[-4000:])
