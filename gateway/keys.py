"""The keys of the API and the console: who holds one, and which of them a request shows.

They stand in ``GATEHOUSE_API_KEYS`` and in ``keys.json`` of the data directory, which ``python -m gateway key`` writes
and a running gateway reads again when it has changed.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway import tickets
from shared.api_keys import SHARED_ACCOUNT, ApiKey, Role, check_name, digest_of, new_secret, parse_entry
from shared.errors import GatehouseError
from shared.settings import Settings

KEY_FILE = "keys.json"
#: what the audit trail calls it
KEY_ADDED = "key_added"
#: the name of the key that the first start makes
FIRST = "first"
#: how long a browser stays signed in, and how long the ticket of a command is good, seconds
SIGNED_IN_S = 30 * 86400.0
COMMAND_S = 60.0
#: the subject of a command's ticket: no key has this name
COMMAND = ":command"
_BEARER_TICKET = "gt_"


class KeyRefused(GatehouseError):
    """Raised when a key cannot be added or revoked; the command line says why."""


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request."""

    name: str  #: the key's name; ``api`` where no key is needed
    role: Role  #: what it may do

    @property
    def account(self) -> str:
        """The second part of the keys of its sessions: a key that may only chat has sessions of its own."""
        return self.name if self.role is Role.CHAT else SHARED_ACCOUNT


#: who asks where no key is needed
ANYBODY = Caller("api", Role.ADMIN)


class KeyFile:
    """The keys that commands have made, in one file that is replaced as a whole."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / KEY_FILE
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[ApiKey, ...] = ()

    def read(self) -> tuple[ApiKey, ...]:
        """Return the keys as the file has them now; those read last where it cannot be read."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, ()
            return ()
        except OSError:
            return self._keys
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._seen:
            try:
                self._keys = msgspec.json.decode(self._path.read_bytes(), type=tuple[ApiKey, ...])
            except (OSError, msgspec.DecodeError):
                return self._keys
            self._seen = stamp
        return self._keys

    def write(self, keys: tuple[ApiKey, ...]) -> None:
        """Replace the file. Raises OSError."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = self._path.with_suffix(f".{secrets.token_hex(4)}")
        made.touch(0o600, exist_ok=False)
        try:
            made.write_bytes(msgspec.json.format(msgspec.json.encode(keys)) + b"\n")
            os.replace(made, self._path)  # noqa: PTH105 - one call, as the standard names it
        finally:
            made.unlink(missing_ok=True)


class Keys:
    """Every key there is, and the tickets that stand for one."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._listed = tuple(map(parse_entry, settings.api_keys))
        self._file = KeyFile(settings.data_dir)
        self._data_dir = settings.data_dir
        self._needed = key_needed(settings)
        self._clock = clock

    @property
    def listed(self) -> tuple[ApiKey, ...]:
        """The keys of ``GATEHOUSE_API_KEYS``."""
        return self._listed

    def all(self) -> tuple[ApiKey, ...]:
        """Return every key, those of the environment first."""
        return self._listed + self._file.read()

    @property
    def needed(self) -> bool:
        """Whether a request needs a key."""
        return self._needed or bool(self.all())

    def by_secret(self, secret: str) -> Caller | None:
        """Return whose secret this is, None if nobody's."""
        if secret.startswith(_BEARER_TICKET):
            return self.by_ticket(secret.removeprefix(_BEARER_TICKET))
        digest = digest_of(secret)
        # all of them are compared, so that time tells nothing
        found = [key for key in self.all() if hmac.compare_digest(key.digest, digest)]
        return Caller(found[0].name, found[0].role) if found else None

    @property
    def generation(self) -> object:
        """What changes with the keys that commands have made."""
        return [key.digest for key in self._file.read()]

    def ticket(self, secret: str) -> str | None:
        """Return a ticket for a browser that showed this key, None for one that is none. Raises OSError."""
        digest = digest_of(secret)
        key = next((key for key in self.all() if hmac.compare_digest(key.digest, digest)), None)
        if key is None:
            return None
        return tickets.sign(tickets.make_secret(self._data_dir), key.name, key.digest, self._clock() + SIGNED_IN_S)

    def by_ticket(self, ticket: str) -> Caller | None:
        """Return whom a ticket is for, None for one that is none: also once its key is revoked."""
        secret, subject = tickets.read_secret(self._data_dir), tickets.subject_of(ticket, self._clock())
        if secret is None or subject is None:
            return None
        if subject == COMMAND:
            return Caller("command", Role.ADMIN) if tickets.verify(secret, ticket, "") else None
        # two keys may have one name, where the environment and the file each have one
        named = [key for key in self.all() if key.name == subject and tickets.verify(secret, ticket, key.digest)]
        return Caller(named[0].name, named[0].role) if named else None

    def add(self, name: str, role: Role) -> tuple[ApiKey, str]:
        """Make a key and return it with its secret, which is kept nowhere. Raises KeyRefused and OSError."""
        try:
            check_name(name, role)
        except ValueError as error:
            raise KeyRefused(str(error)) from None
        if self._named(name):
            raise KeyRefused(f"there is a key {name!r} already; revoke it first, or take another name")
        secret = new_secret()
        key = ApiKey(name, role, digest_of(secret), self._clock())
        self._file.write((*self._file.read(), key))
        return key, secret

    def revoke(self, name: str) -> None:
        """Remove a key; a running gateway refuses it from its next request on. Raises KeyRefused and OSError."""
        if any(key.name == name for key in self._listed):
            raise KeyRefused(f"{name!r} stands in GATEHOUSE_API_KEYS: remove it there and start the gateway again")
        kept = tuple(key for key in self._file.read() if key.name != name)
        if len(kept) == len(self._file.read()):
            raise KeyRefused(f"there is no key {name!r}")
        self._file.write(kept)

    def _named(self, name: str) -> ApiKey | None:
        return next((key for key in self.all() if key.name == name), None)


def key_needed(settings: Settings) -> bool:
    """Tell whether the API needs a key even where none is set: some stranger can reach this process."""
    return bool(settings.api_keys) or settings.reached_from_internet


def make_first_key(settings: Settings) -> str | None:
    """Make an admin key where one is needed and there is none; return its secret, to be shown once. Raises OSError."""
    keys = Keys(settings)
    if not keys.needed or keys.all():
        return None
    return keys.add(FIRST, Role.ADMIN)[1]


def command_credential(settings: Settings, now: float) -> str | None:
    """Return what a command on this machine shows as its bearer key, None where it has nothing to show."""
    plain = [word for word in settings.api_keys if digest_of(word) == parse_entry(word).digest]
    if plain:
        return plain[0]
    secret = tickets.read_secret(settings.data_dir)
    return None if secret is None else _BEARER_TICKET + tickets.sign(secret, COMMAND, "", now + COMMAND_S)
