"""What the headers of a call ask for: the session it belongs to, and what it does while that is busy."""

from __future__ import annotations

from contextlib import suppress

from starlette.requests import Request

from gateway.responses import Refused
from shared.when_busy import WhenBusy

SESSION_NAME_LIMIT = 200


def session_name(request: Request) -> str | None:
    """Return the session the header names, None without one. Raises Refused."""
    raw = request.headers.get("x-gatehouse-session")
    if raw is None:
        return None
    with suppress(UnicodeDecodeError):
        raw = raw.encode("latin-1").decode("utf-8")  # header values arrive as latin-1, people write UTF-8
    name = raw.strip()
    if not name or len(name) > SESSION_NAME_LIMIT or not name.isprintable():
        raise Refused(
            400,
            f"X-Gatehouse-Session has to be 1 to {SESSION_NAME_LIMIT} printable characters",
            param="X-Gatehouse-Session",
        )
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
