"""Signing in to the console: a key is shown once, and the browser keeps a cookie that no script can read.

The cookie is sent to this site alone (SameSite=Strict), and what changes something has to come from a page of this
gateway besides (``access.check_same_origin``).
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.access import COOKIE, Access, check_same_origin
from gateway.audit import Audit
from gateway.keys import SIGNED_IN_S
from gateway.request_origin import protocols
from gateway.responses import Refused, json_response, read_body
from shared.api_keys import Role

BODY_LIMIT_BYTES = 4096
#: what a key that may only chat is for, and what any key may see
CHAT_PATHS = frozenset({"/v1/chat/completions", "/v1/responses"})
ANY_PATH = "/v1/models"


class LoginBody(msgspec.Struct, frozen=True):
    """What a browser shows to sign in."""

    key: str  #: an API key


class Login:
    """Answers what the console asks before it may ask for anything else."""

    def __init__(self, access: Access, audit: Audit) -> None:
        self._access = access
        self._audit = audit

    def routes(self) -> list[Route]:
        """Return the routes; no key is needed for them."""
        return [
            Route("/console.json", self.facts),
            Route("/v1/login", self.login, methods=["POST"]),
            Route("/v1/logout", self.logout, methods=["POST"]),
        ]

    def guarded_routes(self) -> list[Route]:
        """Return the routes that need a key like any other."""
        return [Route("/v1/keys", self.keys)]

    async def keys(self, _: Request) -> Response:
        """Answer who holds a key, and what it may do; secrets are known to nobody."""
        listed = self._access.keys.all()
        return json_response(
            {"keys": [{"name": key.name, "role": key.role, "created_at": key.created_at} for key in listed]}
        )

    async def facts(self, request: Request) -> Response:
        """Answer whether a key is needed, and whose key this browser has shown."""
        needed = self._access.keys.needed
        caller = self._access.caller(request) if needed else None
        signed_in = {"name": caller.name, "role": caller.role} if caller else None
        return json_response({"key_needed": needed, "signed_in": signed_in}, headers={"Cache-Control": "no-store"})

    async def login(self, request: Request) -> Response:
        """Take a key, and let the browser keep a ticket for it. Raises Refused with 401 for a wrong one."""
        refuse_foreign_page(request)
        try:
            given = msgspec.json.decode(await read_body(request, BODY_LIMIT_BYTES), type=LoginBody).key
        except msgspec.DecodeError:
            raise Refused(400, 'the body has to be {"key": "…"}') from None
        caller = self._access.keys.by_secret(given.strip())
        ticket = self._access.keys.ticket(given.strip()) if caller else None
        if caller is None or ticket is None:
            await self._audit.key_refused(request)
            raise Refused(401, "that key does not open this gateway", code="invalid_api_key")
        answer = json_response({"name": caller.name, "role": caller.role})
        set_cookie(request, answer, ticket, int(SIGNED_IN_S))
        return answer

    async def logout(self, request: Request) -> Response:
        """Take the ticket away."""
        refuse_foreign_page(request)
        answer = json_response({"signed_in": None})
        set_cookie(request, answer, "", 0)
        return answer


def role_needed(request: Request) -> Role | None:
    """Return the role that a guarded route needs: reading is for readers, what changes something for admins."""
    path = request.url.path
    if path in CHAT_PATHS or path.startswith("/v1/responses/"):
        return Role.CHAT
    if path == ANY_PATH or path.startswith(f"{ANY_PATH}/"):
        return None
    return Role.READ if request.method in {"GET", "HEAD"} else Role.ADMIN


def refuse_foreign_page(request: Request) -> None:
    """Refuse a page of another origin that would sign its reader in or out; programs say nothing of an origin."""
    if "origin" in request.headers or "sec-fetch-site" in request.headers:
        check_same_origin(request)


def set_cookie(request: Request, answer: Response, ticket: str, max_age_s: int) -> None:
    """Let the browser keep a ticket; where it came over TLS, it is sent over nothing else."""
    secure = "https" in {request.url.scheme, *protocols(request.headers.get("x-forwarded-proto", ""))}
    answer.set_cookie(COOKIE, ticket, max_age=max_age_s, httponly=True, samesite="strict", secure=secure)
