"""The tools of the crash proof: what they do to the world is one line in the notebook, so a second run would show.

A worker loads them, and with them the watch over the session logs that it rotates.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from loadtests.crash.kill_switch import ARMED, KillSwitch, read_armed
from loadtests.crash.notes import MAKES_NOTES, Note, Notebook
from loadtests.crash.plan import Boundary, Side
from loadtests.crash.renames import RenameWatch
from worker.tools import ToolContext, tool

RenameWatch(lambda _: os.getpid())


@tool
def note(label: str, notes: str, pause_s: float, context: ToolContext) -> str:
    """Write a label down."""
    return write_down(label, notes, pause_s, context)


@tool(retry_safe=False)
def note_once(label: str, notes: str, pause_s: float, context: ToolContext) -> str:
    """Write a label down, which must never happen twice."""
    return write_down(label, notes, pause_s, context)


def write_down(label: str, notes: str, pause_s: float, context: ToolContext) -> str:
    """Do what both tools do."""
    notebook = Notebook(Path(notes))
    switch = armed_for(label, notebook)
    key = context.idempotency_key
    notebook.write(Note(0, Boundary.EFFECT, Side.BEFORE, context.message_id, (key,), (label,)))
    time.sleep(pause_s)
    if switch:
        switch.reached(Boundary.EFFECT, Side.BEFORE, label=label)
    notebook.write(Note(0, Boundary.EFFECT, Side.AFTER, context.message_id, (key,), (label,)))
    if switch:
        switch.reached(Boundary.EFFECT, Side.AFTER, label=label)
    return MAKES_NOTES + label


def armed_for(label: str, notebook: Notebook) -> KillSwitch | None:
    """Return the switch of a kill that waits for this very call."""
    path = notebook.path.with_name(ARMED)
    armed = read_armed(path)
    return KillSwitch(path, notebook, lambda _: os.getpid()) if armed and armed.kill.label == label else None
