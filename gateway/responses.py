"""HTTP answers: JSON bodies, and the one form every error has.

An error is ``{"error": {"message", "type", "param", "code"}}``, the form OpenAI clients read. Errors of the tree
that reach the edge of the app are turned into answers here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from shared.errors import InboxFull, NotFound, StaleClaim, StoreUnavailable
from shared.events import Event, Events
from shared.printable import printable

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    503: "unavailable",
}

#: what a client waits before it asks a store again that could not commit, seconds
STORE_RETRY_AFTER_S = 2

#: how the paths end that clients of the API add to its base url
API_ENDS = ("/chat/completions", "/responses", "/models")

#: entries of a list, where a request does not say how many, and at the most
LIST_LIMIT, LIST_LIMIT_MOST = 200, 1000


class Refused(HTTPException):
    """Raised when a request cannot be served; names the parameter and a code beside the status."""

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, message, headers)
        self.param = param
        self.code = code
        self.kind = kind


def list_limit(request: Request) -> int:
    """Return how many entries of a list ``?limit=`` asks for. Raises Refused."""
    limit = request.query_params.get("limit", str(LIST_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 0 < int(limit) <= LIST_LIMIT_MOST):
        raise Refused(400, f"limit has to be a whole number from 1 to {LIST_LIMIT_MOST}", param="limit")
    return int(limit)


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as a JSON answer; structs and ready-made ``msgspec.Raw`` parts are welcome."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def error_body(
    status: int, message: str, *, kind: str = "", param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return the body of an error; its type follows from the status unless named."""
    return {"error": {"message": message, "type": kind or KINDS.get(status, "api_error"), "param": param, "code": code}}


def error_response(
    status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as a JSON answer."""
    return json_response(error_body(status, message, code=code), status, headers)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return the request's body. Raises Refused with 413 as soon as it is known to exceed the limit."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise too_large(limit_bytes)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit_bytes:
            raise too_large(limit_bytes)
    return bytes(body)


def too_large(limit_bytes: int) -> Refused:
    return Refused(413, f"the body is larger than {limit_bytes} bytes", headers={"Connection": "close"})


def exception_handlers(events: Events) -> dict[Any, Callable[[Request, Any], Response]]:
    """Return what turns each error that reaches the edge of the app into its answer."""

    def unexpected(request: Request, error: Exception) -> Response:
        route = getattr(request.scope.get("route"), "path", "")
        events.emit(Event.REQUEST_FAILED, route=route, method=request.method, error=type(error).__name__)
        return error_response(500, "the gateway failed to answer; its log says why")

    return {
        HTTPException: on_refused,
        NotFound: lambda _, error: error_response(404, str(error) or "there is no such thing"),
        InboxFull: on_inbox_full,
        StoreUnavailable: on_store_unavailable,
        StaleClaim: lambda _, error: error_response(409, str(error)),
        ClientDisconnect: lambda _request, _error: Response(status_code=400),
        Exception: unexpected,
    }


def on_refused(request: Request, error: HTTPException) -> Response:
    if isinstance(error, Refused):
        body = error_body(error.status_code, error.detail, kind=error.kind, param=error.param, code=error.code)
    else:
        body = error_body(error.status_code, unserved(request, error))
    return json_response(body, error.status_code, error.headers)


def unserved(request: Request, error: HTTPException) -> str:
    """Return in words what there is no route for; who mistook the base url is told the right one."""
    if error.status_code not in {404, 405}:
        return error.detail
    path = printable(request.url.path[:200])
    advice = ""
    if error.status_code == 405 and (allowed := (error.headers or {}).get("Allow")):
        advice = f"; {allowed} is"
    if (path.endswith(API_ENDS) and not path.startswith("/v1/")) or path.startswith("/v1/v1/"):
        advice = "; the base url of the API ends with /v1"
    return f"{request.method} {path} is not served{advice}"


def on_inbox_full(_: Request, error: InboxFull) -> Response:
    return error_response(503, str(error), code="inbox_full", headers={"Retry-After": str(error.retry_after_s)})


def on_store_unavailable(_: Request, _error: StoreUnavailable) -> Response:
    message = "the message store cannot commit now; nothing was accepted"
    return error_response(503, message, code="store_unavailable", headers={"Retry-After": str(STORE_RETRY_AFTER_S)})
