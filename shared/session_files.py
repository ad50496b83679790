"""Names and the form of session log files: one JSON Lines file a session, under ``logs/`` in the data directory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

#: bytes of a file name before its suffix; file systems end at 255
NAME_BYTES = 200


class LogEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a session log: a transcript message as JSON and when it joined, in unix seconds.

    ``index`` is its place in the conversation where the writer knows it: an entry whose place is taken already
    replaces that message and all after it (an undo, an edited history).
    """

    at: float
    message: msgspec.Raw
    message_id: str = ""
    index: int | None = None


_ENTRIES = msgspec.json.Decoder(LogEntry)


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


def log_line(at: float, message: bytes, message_id: str = "", index: int | None = None) -> bytes:
    """Return one line of a session log, without its newline; ``message`` is a transcript message."""
    return msgspec.json.encode(LogEntry(at, msgspec.Raw(message), message_id, index))


def read_log(path: Path) -> Iterator[LogEntry]:
    """Yield the entries of a log file, oldest first; a line torn by a power loss is passed over. Raises OSError."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield _ENTRIES.decode(line)
            except msgspec.DecodeError:
                continue


def logged_messages(path: Path) -> list[bytes]:
    """Return the conversation a log file holds, replaced messages left out. Raises OSError."""
    messages: list[bytes] = []
    for entry in read_log(path):
        if entry.index is not None:
            del messages[entry.index :]
        messages.append(bytes(entry.message))
    return messages
