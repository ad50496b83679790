"""Counts the calls of this project's own functions in one process; SIGUSR2 writes the counts so far."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parent.parent.parent
OWN = tuple(f"{ROOT / side}{os.sep}" for side in ("gateway", "worker", "shared"))
#: where the counts are written, in the folder of this process's data; the process is named by its id
NAME = "traced-{pid}.json"


class CallCounts:
    """The calls of each function, by file and qualified name; one for a process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME.format(pid=os.getpid())
        self._counts: dict[tuple[str, str], int] = {}
        self.jobs = 0  #: the jobs the store was given

    def start(self) -> None:
        """Count from now on, in this thread and every later one."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        signal.signal(signal.SIGUSR2, self._write)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OWN):
            key = (code.co_filename, code.co_qualname)
            self._counts[key] = self._counts.get(key, 0) + 1

    def _write(self, _signum: int, _frame: FrameType | None) -> None:
        counts = {f"{Path(file).relative_to(ROOT)}:{name}": count for (file, name), count in self._counts.items()}
        unready = self._path.with_suffix(".part")
        unready.write_text(json.dumps({"jobs": self.jobs, "calls": counts}))
        unready.replace(self._path)
