"""Who may talk to the agent, and who may use the API and the console.

Senders: ``GATEHOUSE_ALLOW`` lists them, ``slack:*`` for the members of the organization that installed the bot and
``slack:guests`` for everybody from outside of it, such as the other side of a shared channel. Where it is unset,
members of workspace platforms and holders of a signing secret may talk, and a stranger on an open platform gets a
pairing code that an operator approves. API and console: keys with a role (gateway/keys.py); where none is needed they
are open on loopback, but not to a web page of another origin.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.requests import Request

from gateway.keys import ANYBODY, Caller, Keys
from gateway.pairings import Pairings
from gateway.peer_owner import is_foreign
from gateway.platforms.port import Adapter, Inbound
from gateway.responses import Refused
from shared.api_keys import Role
from shared.settings import Settings

#: the cookie of a browser that has signed in
COOKIE = "gatehouse_login"
#: who of a platform an entry of GATEHOUSE_ALLOW means that names no one person
MEMBERS, GUESTS = "*", "guests"
#: what changes nothing, so that a page elsewhere may make a browser ask for it
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

#: what proxies add to a request: RFC 7239, RFC 9110, and what came before them
PROXY_HEADERS = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip"})
PROXY_PREFIXES = ("x-forwarded", "x-original-", "x-envoy-", "cf-", "fly-", "fastly-", "x-amzn-", "x-appengine-")


class Admission(enum.StrEnum):
    """Whether a sender may talk."""

    ALLOWED = "allowed"
    REFUSED = "refused"  #: not listed in GATEHOUSE_ALLOW
    STRANGER = "stranger"  #: was not let in by a pairing


class Access:
    """Decides who may talk, and checks the keys of requests."""

    def __init__(self, settings: Settings, pairings: Pairings) -> None:
        self.keys = Keys(settings)
        self._cors_origins = frozenset(settings.cors_origins)
        self._pairings = pairings
        self._listed = frozenset(settings.allow)

    async def admit(self, platform: Adapter, inbound: Inbound) -> Admission:
        """Tell whether a sender may talk. Raises StoreUnavailable."""
        sender = f"{platform.name}:{inbound.user}"
        if self._listed:
            group = GUESTS if inbound.outsider else MEMBERS
            named = {"*", f"{platform.name}:{group}", sender} & self._listed
            return Admission.ALLOWED if named else Admission.REFUSED
        if not (platform.capabilities.open_to_strangers or inbound.outsider):
            return Admission.ALLOWED
        return Admission.ALLOWED if await self._pairings.approved(sender) else Admission.STRANGER

    def authorize(self, request: Request, needed: Role | None = Role.ADMIN) -> Caller:
        """Return who makes this request. Raises Refused: 401 without a key, 403 for one whose role does not do."""
        if not self.keys.needed:
            if offered_secret(request) is None or self.caller(request) is None:  # a command of ours shows a ticket
                check_is_local(request, self._cors_origins)
            return ANYBODY
        caller = self.caller(request)
        if caller is None:
            raise Refused(
                401,
                "this needs `Authorization: Bearer <key>` with one of GATEHOUSE_API_KEYS, or of `gateway key list`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not caller.role.may(needed):
            raise Refused(
                403, f"the key {caller.name!r} has the role {caller.role}; this needs {needed}", code="role_missing"
            )
        return caller

    def admits(self, request: Request, needed: Role) -> bool:
        """Tell whether a request that was taken would be taken now."""
        try:
            self.authorize(request, needed)
        except Refused:
            return False
        return True

    def caller(self, request: Request) -> Caller | None:
        """Return whose key a request shows, None without one. Raises Refused for a cookie sent by a page elsewhere."""
        if (offered := offered_secret(request)) is not None:
            return self.keys.by_secret(offered)
        if (ticket := request.cookies.get(COOKIE)) is None:
            return None
        if request.method not in SAFE_METHODS:
            check_same_origin(request)
        return self.keys.by_ticket(ticket)


def shows_key(request: Request) -> bool:
    """Tell whether a request shows a key or a cookie, be it a good one or not."""
    return offered_secret(request) is not None or COOKIE in request.cookies


def offered_secret(request: Request) -> str | None:
    """Return the key that the headers show: as OpenAI's clients send it, or as Anthropic's did."""
    authorization = request.headers.get("authorization")
    if authorization is None:
        return decoded(request.headers.get("x-api-key"))
    scheme, _, given = authorization.partition(" ")
    return decoded(given.strip()) if scheme.lower() == "bearer" else ""


def decoded(value: str | None) -> str | None:
    """Return a header's value as it was written: it arrives as latin-1, and people write UTF-8."""
    return None if value is None else value.encode("latin-1").decode("utf-8", "surrogateescape")


def check_same_origin(request: Request) -> None:
    """Refuse what a browser does not say to come from this gateway's own page: a cookie is sent by other pages too."""
    site = request.headers.get("sec-fetch-site")
    origin = host_of(request.headers.get("origin", "")) or ""
    if site == "same-origin" or (site is None and origin and origin.lower() == request.headers.get("host", "").lower()):
        return
    raise Refused(403, "this request does not come from a page of this gateway", code="cross_origin")


def check_is_local(request: Request, cors_origins: Collection[str] = ()) -> None:
    """Refuse what comes through a proxy, whose own address is local while its clients' are not.

    And what a web page of another origin makes a browser on this machine send, DNS rebinding included; pages of
    ``cors_origins`` may, ``*`` among them is for those who have a key.
    """
    if came_through_proxy(request) or came_from_another_user(request):
        raise Refused(
            403,
            "this request came through a proxy or from another user of this machine, so anybody may have sent it; "
            "make a key (`python -m gateway key add`)",
            code="key_needed",
        )
    host = request.headers.get("host", "")
    if not is_loopback(host):
        raise Refused(
            403, "without GATEHOUSE_API_KEYS this answers only under a loopback name; set keys to serve others"
        )
    for origin in request.headers.getlist("origin"):
        if origin in cors_origins:
            continue
        parts = host_of(origin)
        if parts is None or parts.lower() != host.lower():
            raise Refused(
                403, "this request comes from a web page of another origin; set GATEHOUSE_API_KEYS to allow it"
            )


def came_through_proxy(request: Request) -> bool:
    """Tell whether a request shows signs of a proxy; nginx adds no header by default, but speaks HTTP/1.0."""
    if request.scope.get("http_version", "1.1") in {"0.9", "1.0"}:
        return True
    names = request.headers.keys()
    return any(name in PROXY_HEADERS or name.startswith(PROXY_PREFIXES) for name in names)


def came_from_another_user(request: Request) -> bool:
    """Tell whether another user's program is at the far end, as a proxy is; False where the system does not tell."""
    client, server = request.client, request.scope.get("server")
    return client is not None and server is not None and is_foreign((client.host, client.port), tuple(server))


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
