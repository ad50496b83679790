"""What a request says of where it comes from, as the proxies on its way have it, for `doctor` to read.

It tells whoever asks nothing but what came of their own request.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.access import came_through_proxy
from gateway.responses import json_response

#: it lies below what proxies publish
PATH = "/webhooks/"
MOST_CHARACTERS = 500


class RequestOrigin(msgspec.Struct, frozen=True):
    """What a request says of its origin; each header as it came, empty where there is none."""

    through_proxy: bool  #: whether anything shows that a proxy passed it on
    host: str  #: Host
    proto: str  #: X-Forwarded-Proto
    forwarded_for: str  #: X-Forwarded-For


def origin_route() -> Route:
    """Return the route that answers with the request's own origin."""
    return Route(PATH, tell_origin)


async def tell_origin(request: Request) -> Response:
    """Answer ``GET /webhooks/``."""
    host, proto, named = (
        request.headers.get(name, "")[:MOST_CHARACTERS] for name in ("host", "x-forwarded-proto", "x-forwarded-for")
    )
    origin = RequestOrigin(came_through_proxy(request), host, proto, named)
    return json_response(msgspec.to_builtins(origin), headers={"Cache-Control": "no-store"})


def proxy_problems(public_url: str, plain: RequestOrigin, claiming: RequestOrigin, claimed: str) -> list[str]:
    """Return what is wrong with the headers that a gateway gets behind its public address.

    ``claiming`` is what came of a request whose client claims the address ``claimed`` for itself.
    """
    scheme, host = urlsplit(public_url).scheme, urlsplit(public_url).hostname
    problems = []
    if scheme == "https" and not plain.through_proxy:
        problems.append(
            "nothing shows that requests come through a proxy, so they seem to be of this machine: let it set "
            "X-Forwarded-For, and set GATEHOUSE_API_KEYS"
        )
    if urlsplit(f"//{plain.host}").hostname != host:
        problems.append(
            f"the gateway is told the Host {plain.host!r}: let the proxy pass the client's (proxy_set_header Host "
            "$host), or the console's own page counts as a stranger's"
        )
    if scheme == "https" and "https" not in protocols(plain.proto):
        problems.append(
            "the gateway is not told that clients come over https: let the proxy set X-Forwarded-Proto, or a browser "
            "may send the console's cookie over http"
        )
    if plain.through_proxy and claiming.forwarded_for.rpartition(",")[2].strip() == claimed:
        problems.append(
            "X-Forwarded-For is passed as clients write it, so the audit trail names addresses they make up: let the "
            "proxy set it ($remote_addr)"
        )
    return problems


def protocols(value: str) -> set[str]:
    """Return what the proxies of a chain name in X-Forwarded-Proto."""
    return {one.strip().lower() for one in value.split(",")}
