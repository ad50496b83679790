"""Signed tickets: what a browser shows instead of a key, and what a command on this machine shows instead of one.

They are signed with a secret that lies in the data directory, so they outlive a restart, and whoever can make one
could read the database as well.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

SECRET_FILE = "console.secret"  # noqa: S105 - the name of a file


def make_secret(data_dir: Path) -> bytes:
    """Return the secret of this data directory, and make it if there is none. Raises OSError."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / SECRET_FILE
    with suppress(FileExistsError):
        made = path.with_suffix(f".{secrets.token_hex(4)}")
        made.touch(0o600, exist_ok=False)
        try:
            made.write_bytes(secrets.token_hex(32).encode())
            os.link(made, path)  # whole or not at all, and the first one stands
        finally:
            made.unlink()
    return path.read_bytes()


def read_secret(data_dir: Path) -> bytes | None:
    """Return the secret of this data directory, None where there is none that can be read."""
    try:
        return (data_dir / SECRET_FILE).read_bytes() or None
    except OSError:
        return None


def sign(secret: bytes, subject: str, binding: str, until: float) -> str:
    """Return a ticket for a subject, good until then (unix seconds) and as long as ``binding`` is the same."""
    body = f"{int(until)}.{subject}"
    return f"{_encode(body.encode())}.{_encode(_seal(secret, body, binding))}"


def subject_of(ticket: str, now: float) -> str | None:
    """Return whom a ticket is for, unverified; None for one that is none, or that is past its time."""
    try:
        until, _, subject = _decode(ticket.partition(".")[0]).decode().partition(".")
        return subject if float(until) > now else None
    except ValueError:
        return None


def verify(secret: bytes, ticket: str, binding: str) -> bool:
    """Tell whether a ticket was signed with this secret and binding."""
    try:
        body, seal = (_decode(part) for part in ticket.split("."))
        return hmac.compare_digest(seal, _seal(secret, body.decode(), binding))
    except ValueError:
        return False


def _seal(secret: bytes, body: str, binding: str) -> bytes:
    return hmac.digest(secret, f"{body}\n{binding}".encode(), "sha256")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
