"""Names and the form of session log files: one JSON Lines file a session, under ``logs/`` in the data directory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from shared.session_segments import log_lines

#: bytes of a file name before its suffix; file systems end at 255
NAME_BYTES = 200


#: what a log line says of a message beside the message itself
HEAD_NAMES = frozenset({"at", "session", "message", "turn", "index", "repaired", "later"})

_LINES = msgspec.json.Decoder(dict[str, Any])


def session_log_path(log_dir: Path, session: str) -> Path:
    """Return the log file of a session; any text is a session key, and no two keys share a file.

    The key is percent-encoded, so a name never leaves ``log_dir``; past 200 bytes its tail becomes a hash.
    """
    name = quote(session, safe=":@", errors="surrogatepass")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > NAME_BYTES or not name:
        digest = hashlib.sha256(session.encode("utf-8", "surrogatepass")).hexdigest()[:40]
        name = f"{name[: NAME_BYTES - 41]}+{digest}"  # quote() never lets a plus through, so no other key has this name
    return log_dir / f"{name}.jsonl"


def log_line(at: float, session: str, message: bytes, message_id: str = "", index: int | None = None) -> bytes:
    """Return one line of a session log, without its newline: a transcript message with a head before it.

    ``at`` is in unix seconds; ``message_id`` names the inbox message that it came of. ``index`` is the message's place
    in the conversation where the writer knows it: a line whose place is taken already replaces that message and all
    after it (an undo, an edited history).
    """
    head: dict[str, object] = {"at": round(at, 3), "session": session, "message": message_id}
    if index is not None:
        head["index"] = index
    return msgspec.json.encode(head)[:-1] + (b"," if len(message) > 2 else b"") + message[1:]


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log, its segments' too, oldest first; a damaged one is passed over. Raises OSError."""
    for line in log_lines(path):
        try:
            yield _LINES.decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue


def logged_messages(path: Path) -> list[dict[str, Any]]:
    """Return the conversation a log file holds, without replaced messages and heads. Raises OSError."""
    messages: list[dict[str, Any]] = []
    for line in read_log(path):
        if "role" not in line:
            continue  # an event, not a message
        if isinstance(index := line.get("index"), int):
            del messages[index:]
        later = line.get("later", 0)
        place = max(0, len(messages) - (later if isinstance(later, int) else 0))
        messages.insert(place, {name: value for name, value in line.items() if name not in HEAD_NAMES})
    return messages
