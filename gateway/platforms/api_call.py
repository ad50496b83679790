"""Calls of the platforms' HTTP APIs, and what their plain HTTP answers mean."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from gateway.platforms.port import ApiRequest, ApiResponse, Fail, Gone, SendResult, TryLater
from shared.attachments import Attachment
from shared.retry import retry_after_s

T = TypeVar("T")


def json_call(url: str, body: object, token: str = "", *, method: str = "POST", scheme: str = "Bearer") -> ApiRequest:
    """Build a call with a JSON body, with a token where one is given."""
    headers = {"content-type": "application/json; charset=utf-8"}
    if token:
        headers["authorization"] = f"{scheme} {token}"
    return ApiRequest(url, headers, msgspec.json.encode(body), method)


def form_call(url: str, fields: dict[str, str], authorization: str = "") -> ApiRequest:
    """Build a call with a form."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if authorization:
        headers["authorization"] = authorization
    return ApiRequest(url, headers, urlencode(fields).encode())


def multipart_call(
    url: str,
    fields: Mapping[str, str],
    field: str,
    file: Attachment,
    data: bytes,
    headers: Mapping[str, str] | None = None,
) -> ApiRequest:
    """Build a call with a form that has a file behind its fields (RFC 7578); the same for the same."""
    boundary = hashlib.sha256(repr((file.digest, sorted(fields.items()))).encode()).hexdigest()
    parts = [_part(boundary, f'name="{name}"', "", value.encode()) for name, value in fields.items()]
    named = f'name="{field}"; filename="{quoted_name(file.name)}"'
    parts.append(_part(boundary, named, file.media_type, data))
    body = b"".join((*parts, f"--{boundary}--\r\n".encode()))
    return ApiRequest(url, {**(headers or {}), "content-type": f"multipart/form-data; boundary={boundary}"}, body)


def quoted_name(name: str) -> str:
    """Return a file's name as it stands in the quotes of a form's part: not every server reads what is escaped."""
    return "".join({'"': "'", "\\": "_"}.get(sign, sign) for sign in name if sign.isprintable())


def _part(boundary: str, named: str, media_type: str, value: bytes) -> bytes:
    kind = f"content-type: {media_type}\r\n" if media_type else ""
    head = f"--{boundary}\r\ncontent-disposition: form-data; {named}\r\n{kind}\r\n"
    return head.encode() + value + b"\r\n"


def get_call(url: str, token: str = "") -> ApiRequest:
    """Build a call that only asks."""
    return ApiRequest(url, {"authorization": f"Bearer {token}"} if token else {}, b"", "GET")


def read_answer(answer: ApiResponse, kind: type[T]) -> T | None:
    """Decode an answer, None where it is not of this kind: a proxy's page, for example."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def refused(answer: ApiResponse, said: str, after_s: float | None = None) -> SendResult:
    """Say what an answer that is no success means by its status alone; ``said`` is the platform's own word."""
    reason = said[:200] or f"HTTP {answer.status}"
    wait_s = retry_after_s(answer.headers) if after_s is None else after_s
    match answer.status:
        case 401:
            return TryLater(f"{reason}: the platform does not accept our token", wait_s)
        case 403 | 404 | 410:
            return Gone(reason)
        case 408 | 425 | 429 | 409:
            return TryLater(reason, wait_s)
        case status if 400 <= status < 500:
            return Fail(reason)
        case _:
            return TryLater(reason, wait_s)


def short_key(idempotency_key: str, length: int = 24) -> str:
    """Return a key in the letters and the length that a platform takes, the same for the same key."""
    return hashlib.sha256(idempotency_key.encode()).hexdigest()[:length]
