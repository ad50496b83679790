"""Who may talk to the agent, and who may use the API and the console.

Senders: ``GATEHOUSE_ALLOW`` lists them; where it is unset, members of workspace platforms and holders of a signing
secret may talk, and a stranger on an open platform gets a pairing code that an operator approves. API and console:
bearer keys; without keys they are open on loopback, but not to a web page of another origin.
"""

from __future__ import annotations

import enum
import hmac
import ipaddress
import secrets
from urllib.parse import urlsplit

from cachetools import LRUCache
from starlette.requests import Request

from gateway.announcements import Announcements
from gateway.platforms.port import Adapter, Inbound
from gateway.responses import Refused
from shared.settings import Settings
from shared.store.port import Store

#: letters and digits that nobody takes for another
CODE_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
CODE_LENGTH = 8

#: how often a stranger who goes on writing is told the code again
ANNOUNCED_AGAIN_S = 3600.0

#: senders known to be approved, so that their every message needs no look into the store
MOST_KNOWN = 10_000


class Admission(enum.StrEnum):
    """Whether a sender may talk."""

    ALLOWED = "allowed"
    REFUSED = "refused"  #: not listed in GATEHOUSE_ALLOW
    STRANGER = "stranger"  #: has a pairing code that nobody has approved yet


class Access:
    """Decides who may talk and checks bearer keys."""

    def __init__(self, settings: Settings, store: Store, announcements: Announcements) -> None:
        self._store = store
        self._announcements = announcements
        self._listed = frozenset(settings.allow)
        self._keys = tuple(key.encode() for key in settings.api_keys)
        self._known: LRUCache[str, bool] = LRUCache(MOST_KNOWN)

    async def admit(self, platform: Adapter, inbound: Inbound) -> Admission:
        """Tell whether a sender may talk; a stranger is sent the pairing code. Raises StoreUnavailable."""
        sender = f"{platform.name}:{inbound.user}"
        if self._listed:
            named = {"*", f"{platform.name}:*", sender} & self._listed
            return Admission.ALLOWED if named else Admission.REFUSED
        if not (platform.capabilities.open_to_strangers or inbound.outsider) or sender in self._known:
            return Admission.ALLOWED
        if await self._store.sessions.approved(sender):
            self._known[sender] = True
            return Admission.ALLOWED
        await self._announce_code(platform, sender, inbound)
        return Admission.STRANGER

    async def _announce_code(self, platform: Adapter, sender: str, inbound: Inbound) -> None:
        code = await self._store.sessions.pair(sender, new_code())
        text = (
            "Hello! I do not know you yet. Please give this pairing code to the person who runs me; "
            f"once it is approved, we can talk: {code}"
        )
        await self._announcements.announce(platform, inbound, text, (f"pairing:{sender}",), ANNOUNCED_AGAIN_S)

    def authorize(self, request: Request) -> None:
        """Return if this request may use the API. Raises Refused: 401 without a key, 403 for a page elsewhere."""
        if self._keys:
            self._check_key(request.headers.get("authorization", ""))
        else:
            check_is_local(request)

    def _check_key(self, authorization: str) -> None:
        scheme, _, given = authorization.partition(" ")
        offered = given.strip().encode("latin-1", "replace")
        matches = [hmac.compare_digest(offered, key) for key in self._keys]  # all of them: time tells nothing
        if scheme.lower() != "bearer" or not any(matches):
            raise Refused(
                401,
                "this needs `Authorization: Bearer <key>` with one of GATEHOUSE_API_KEYS",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def new_code() -> str:
    """Return a new pairing code: 8 signs, 40 bits."""
    return "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_LENGTH))


def check_is_local(request: Request) -> None:
    """Refuse what a web page of another origin makes a browser on this machine send, DNS rebinding included."""
    host = request.headers.get("host", "")
    if not is_loopback(host):
        raise Refused(
            403, "without GATEHOUSE_API_KEYS this answers only under a loopback name; set keys to serve others"
        )
    for origin in request.headers.getlist("origin"):
        parts = host_of(origin)
        if parts is None or parts.lower() != host.lower():
            raise Refused(
                403, "this request comes from a web page of another origin; set GATEHOUSE_API_KEYS to allow it"
            )


def host_of(origin: str) -> str | None:
    """Return an origin's host and port as a Host header has them, None for ``null`` and what is no url."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc if parts.scheme in {"http", "https"} else None


def is_loopback(host: str) -> bool:
    """Tell whether a Host header names this machine and nothing else."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
