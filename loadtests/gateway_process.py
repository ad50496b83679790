"""One real gateway process under test: started, asked, stopped or killed by its process group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx2

from loadtests.parent_death import ends_with_parent

ROOT = Path(__file__).parent.parent


class GatewayProcess:
    """`python -m gateway` on a free loopback port, with its log lines at hand; ``environment`` holds its settings.

    ``command`` is the module to run instead, with its arguments; ``prefix`` is the command that runs it elsewhere,
    ``address`` what it listens on there.
    """

    def __init__(
        self,
        data_dir: Path,
        environment: Mapping[str, str],
        command: tuple[str, ...] = ("gateway",),
        *,
        address: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
    ) -> None:
        self._command = command
        self._prefix = prefix
        self._address = address
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PORT": "0",
            "GATEHOUSE_DATA_DIR": str(data_dir),
            **environment,
        }
        self._directory = data_dir
        self._lines: list[dict[str, Any]] = []
        self._arrived = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill_tree()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_tree()

    @property
    def pid(self) -> int:
        """The gateway's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def data_dir(self) -> Path:
        """Where it keeps everything."""
        return self._directory

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._address}:{self.wait_for('started')['port']}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request to its API carries: the first of its keys."""
        key = self._environment.get("GATEHOUSE_API_KEYS", "").partition(",")[0]
        return {"Authorization": f"Bearer {key}"} if key else {}

    def start(self, ready_within_s: float = 60) -> None:
        """Start it, and wait until it is ready."""
        self.launch()
        self.wait_until(self.is_ready, ready_within_s, "the gateway is ready")

    def change(self, settings: Mapping[str, str]) -> bool:
        """Change settings for its next start; False if they were so already."""
        changed = {**self._environment, **settings}
        same, self._environment = changed == self._environment, changed
        return not same

    def launch(self) -> None:
        """Start it without waiting."""
        self._lines.clear()
        self._process = subprocess.Popen(
            [*self._prefix, *ends_with_parent(), sys.executable, "-m", *self._command],
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def is_ready(self) -> bool:
        """Tell whether it accepts messages and can run them."""
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"the gateway ended early:\n{self.log()}")
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except (httpx2.TransportError, TimeoutError):
            return False

    def ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """Return the answer of its API to one request."""
        headers = self.headers | request.pop("headers", {})
        return httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=30, **request)

    def get(self, path: str) -> Any:
        """Return the JSON answer of one GET."""
        answer = self.ask("GET", path)
        answer.raise_for_status()
        return answer.json()

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that serve now."""
        return [row["pid"] for row in self.get("/v1/workers")["workers"] if row["pid"]]

    def terminate(self, within_s: float = 30) -> int:
        """Ask it to end with SIGTERM; return its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait_for_end(within_s)

    def wait_for_end(self, within_s: float = 30) -> int:
        """Wait until it has ended; return its exit status."""
        assert self._process is not None
        status = self._process.wait(within_s)
        self._close()
        return status

    def kill(self) -> None:
        """Kill the gateway process alone, as ``kill -9`` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._close()

    def kill_tree(self) -> None:
        """Kill the gateway and every process below it, all at once."""
        if self._process is None:
            return
        for pid in [self._process.pid, *descendants(self._process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(10)
        self._close()

    def log(self) -> str:
        """Return every log line so far."""
        with self._arrived:
            return "\n".join(json.dumps(line) for line in self._lines)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of one event so far."""
        with self._arrived:
            return [line for line in self._lines if line.get("event") == name]

    def wait_for(self, name: str, count: int = 1, within_s: float = 60) -> dict[str, Any]:
        """Wait until an event was logged so often; return its last line."""
        self.wait_until(lambda: len(self.events(name)) >= count or self._told_all(), within_s, f"event {name}")
        found = self.events(name)
        assert len(found) >= count, f"no event {name}; the log says:\n{self.log()}"
        return found[-1]

    def wait_until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait until a condition holds; it is looked at whenever a line arrives and 20 times a second."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}; the log says:\n{self.log()}"
            with self._arrived:
                self._arrived.wait(0.05)

    def strays(self) -> list[int]:
        """Return what earlier processes of it have left: whatever works in its directory and is not below it."""
        own = set() if self.ended() else {self.pid, *descendants(self.pid)}
        return [pid for pid in working_in(self._directory) if pid not in own]

    def ended(self) -> bool:
        """Tell whether its process is gone."""
        return self._process is None or self._process.poll() is not None

    def _told_all(self) -> bool:
        """Tell whether no line will come any more: its last ones may be on their way when it is gone."""
        return self.ended() and (self._reader is None or not self._reader.is_alive())

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    record = {"event": "", "text": line.rstrip()}
                with self._arrived:
                    self._lines.append(record)
                    self._arrived.notify_all()

    def _close(self) -> None:
        self._process = None
        if self._reader is not None:
            self._reader.join(10)


def parent_of(pid: int) -> int:
    """Return the process that this one is a child of (Linux: /proc); 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def working_in(directory: Path) -> list[int]:
    """Return every process whose working directory this is (Linux: /proc)."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink() == directory:
                found.append(int(link.parent.name))
        except OSError:  # it is gone, or somebody else's
            continue
    return found


def descendants(pid: int) -> list[int]:
    """Return every process below this one, deepest last (Linux: /proc)."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        child = int(stat.parent.name)
        if parent := parent_of(child):
            parents.setdefault(parent, []).append(child)
    found: list[int] = []
    queue = [pid]
    while queue:
        children = parents.get(queue.pop(0), [])
        found += children
        queue += children
    return found
