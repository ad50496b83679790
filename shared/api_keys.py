"""API keys: a name, what its holder may do, and the hash of a secret that only the holder has.

An entry of ``GATEHOUSE_API_KEYS`` is ``name:role:sha256:HEX``, or a key in plain text, which may do everything.
"""

from __future__ import annotations

import enum
import hashlib
import re
import secrets

import msgspec

#: names stand in session keys and in metrics
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
#: the account of the sessions of keys that may see all of them
SHARED_ACCOUNT = "default"
_HASHED = re.compile(r"(?P<name>[^:]*):(?P<role>[^:]*):(?:sha256[:=$-])?(?P<digest>[0-9a-fA-F]{64})")
_MEANT_AS_HASHED = re.compile(r"[^:]*:(?:[^:]*:sha256|(?:chat|read|admin):)")

#: what a new key begins with, so that people and scanners of secrets recognize it
PREFIX = "gk_"


class Role(enum.StrEnum):
    """What the holder of a key may do."""

    CHAT = "chat"  #: call the models, in sessions of its own
    READ = "read"  #: look at everything, change nothing
    ADMIN = "admin"  #: everything

    def may(self, needed: Role | None) -> bool:
        """Tell whether this role does for a route that needs that one, or None for any key."""
        return needed is None or self in {needed, Role.ADMIN}


class ApiKey(msgspec.Struct, frozen=True):
    """One key, without its secret."""

    name: str  #: who holds it; the user of its calls
    role: Role  #: what it may do
    digest: str  #: SHA-256 of the secret, in hex
    created_at: float = 0.0  #: when it was made, unix seconds; 0 where that is not known


def new_secret() -> str:
    """Return a new secret of 256 bits."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """Return what is kept of a secret: a slow hash would add nothing to 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def parse_entry(word: str) -> ApiKey:
    """Read one entry of ``GATEHOUSE_API_KEYS``. Raises ValueError, which does not repeat the entry."""
    if (found := _HASHED.fullmatch(word)) is None:
        if _MEANT_AS_HASHED.match(word):
            raise ValueError("an entry is name:role:sha256:HEX with 64 hex digits, or a key in plain text")
        digest = digest_of(word)
        return ApiKey(f"key-{digest[:8]}", Role.ADMIN, digest)
    if found["role"] not in set(Role):
        raise ValueError(f"{found['role']!r} is no role; there are {', '.join(Role)}")
    check_name(found["name"], Role(found["role"]))
    return ApiKey(found["name"], Role(found["role"]), found["digest"].lower())


def entry_of(key: ApiKey) -> str:
    """Return a key as an entry of ``GATEHOUSE_API_KEYS``."""
    return f"{key.name}:{key.role}:sha256:{key.digest}"


def check_name(name: str, role: Role) -> None:
    """Raise ValueError for a name that no key of this role can have."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r}: a key's name is 1 to 64 of A-Z a-z 0-9 . _ @ -, a letter or digit first")
    if role is Role.CHAT and name == SHARED_ACCOUNT:
        raise ValueError(f"{name!r} is no name for a chat key: the sessions of all other keys are under it")
