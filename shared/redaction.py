"""Takes secrets out of what is written for people: known values, and what looks like a credential by its form.

The forms are those that issuers mark themselves (a prefix, a fixed length), so that ordinary text is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

import msgspec

MASK = b"***"
#: characters of the shortest secret that is looked for: a shorter one would be found in ordinary words
SHORTEST = 6

#: a part of a path that no person would give: long, with letters and digits
_KEY_IN_PATH = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_.~%+=-]{16,}")

#: not inside a longer word; a JSON escape such as ``\n`` before it is no part of one
_START = rb"(?:(?<![A-Za-z0-9_])|(?<=\\[nrtbf]))"

_BEARER = rb"([Bb]earer +|BEARER +)[A-Za-z0-9._~+/=-]{20,}"

#: a piece that all marks of a group have; what has to stand in a text before a form is looked for, and the form, of
#: which what is in a group is kept. Most texts have neither, and every piece that is looked for costs every turn.
_FORMS = tuple(
    (piece, tuple((mark, re.compile(_START + form)) for marks, form in forms for mark in marks))
    for piece, forms in (
        (b"earer", (((b"earer",), _BEARER),)),
        (b"sk-", (((b"sk-",), rb"sk-[A-Za-z0-9_-]{20,}"),)),
        (b"xox", (((b"xox",), rb"xox[abeoprs]-[A-Za-z0-9-]{10,}"),)),
        (b"gh", (((b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"), rb"gh[pousr]_[A-Za-z0-9]{30,}"),)),
        (b"github_pat_", (((b"github_pat_",), rb"github_pat_[A-Za-z0-9_]{30,}"),)),
        (
            b"A",
            (
                ((b"EARER",), _BEARER),
                ((b"AKIA",), rb"AKIA[0-9A-Z]{16}(?![0-9A-Za-z])"),
                ((b"AIza",), rb"AIza[0-9A-Za-z_-]{35}"),
                ((b":AA",), rb"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),
            ),
        ),
        (b"whsec_", (((b"whsec_",), rb"whsec_[A-Za-z0-9+/=]{24,}"),)),
        (b"J", (((b"eyJ",), rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),)),
    )
)


class Redaction:
    """Writes ``***`` for these secrets, and for what looks like one; JSON stays JSON."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        found = {form for secret in secrets for form in _written_forms(secret)}
        self._secrets = sorted(found, key=len, reverse=True)  # one may be the beginning of another

    def clean_text(self, text: str) -> str:
        """Return the text without them."""
        return self.clean(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def clean(self, text: bytes) -> bytes:
        """Return the text, JSON or plain, without them."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        for piece, forms in _FORMS:  # on every turn's way: a plain test of bytes, and no generator, for each
            if piece in text:
                for mark, form in forms:
                    if mark in text:
                        text = form.sub(lambda found: b"".join(found.groups()) + MASK, text)
        return text


def password_in(url: str) -> str:
    """Return the password that a url carries, empty if none."""
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""


def secrets_in(url: str) -> tuple[str, ...]:
    """Return the password, the values of the query, and what in the path looks like a key; as written and as meant."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ()
    written = [pair.partition("=")[2] for pair in parts.query.split("&")]
    written += [part for part in parts.path.split("/") if _KEY_IN_PATH.fullmatch(part)]
    found = dict.fromkeys([password_in(url), *written, *map(unquote, written)])
    return tuple(secret for secret in found if secret)


def _written_forms(secret: str) -> Iterable[bytes]:
    """Yield a secret as it stands in text, in JSON text, and in JSON text within JSON text."""
    if len(secret) < SHORTEST:
        return
    for _ in range(3):
        yield secret.encode("utf-8", "surrogatepass")
        secret = msgspec.json.encode(secret.encode("utf-8", "replace").decode())[1:-1].decode()
