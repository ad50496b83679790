"""What the headers of a call ask for: its session, what it does while that is busy, and whether it asks again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

from starlette.requests import Request

from gateway.responses import Refused
from shared.when_busy import WhenBusy

SESSION_NAME_LIMIT = 200
KEY_LIMIT = 255
#: what the official clients count their tries with, the first one as 0
TRIES = "x-stainless-retry-count"


def session_name(request: Request) -> str | None:
    """Return the session the header names, None without one. Raises Refused."""
    raw = request.headers.get("x-gatehouse-session")
    if raw is None:
        return None
    with suppress(UnicodeDecodeError):
        raw = raw.encode("latin-1").decode("utf-8")  # header values arrive as latin-1, people write UTF-8
    return checked_name(raw, "X-Gatehouse-Session")


def told_session(source: str, user: str, metadata: Mapping[str, str]) -> str | None:
    """Return the session that a body names where the settings say so, None where it names none. Raises Refused."""
    where, _, key = source.partition(":")
    name = user if where == "user" else metadata.get(key, "") if where == "metadata" else ""
    return checked_name(name, source.replace(":", ".")) if name else None


def checked_name(raw: str, param: str) -> str:
    """Return the name of a session. Raises Refused for what cannot be one."""
    name = raw.strip()
    if not name or len(name) > SESSION_NAME_LIMIT or not name.isprintable():
        raise Refused(400, f"{param} has to be 1 to {SESSION_NAME_LIMIT} printable characters", param=param)
    return name


def when_busy_wanted(request: Request) -> WhenBusy | None:
    """Return the mode the header asks for, None without one. Raises Refused."""
    mode = request.headers.get("x-gatehouse-when-busy")
    if mode is None:
        return None
    with suppress(ValueError):
        return WhenBusy(mode.strip().lower())
    known = ", ".join(WhenBusy)
    raise Refused(400, f"X-Gatehouse-When-Busy has to be one of {known}", param="X-Gatehouse-When-Busy")


def idempotency_key(request: Request, caller: str) -> str:
    """Return what stands for the key of a call that its client may send again, empty without one. Raises Refused."""
    key = request.headers.get("idempotency-key", "")
    if len(key) > KEY_LIMIT:
        raise Refused(400, f"Idempotency-Key has at most {KEY_LIMIT} characters", param="Idempotency-Key")
    return digest(caller, key) if key else ""


def fingerprint(request: Request, caller: str, body: bytes) -> str:
    """Return what tells this request from others, where the client is one that sends it again; empty for others."""
    if TRIES not in request.headers and "idempotency-key" not in request.headers:
        return ""
    return digest(caller, request.url.path, body)


def asks_again(request: Request) -> bool:
    """Tell whether the client says that it has sent this request before."""
    tries = request.headers.get(TRIES, "0")
    return tries.isascii() and tries.isdigit() and tries.strip("0") != ""


def digest(*parts: str | bytes) -> str:
    """Return 32 hexadecimal digits that stand for these parts."""
    found = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()[:32]
