"""Bearer tokens that platforms sign: JSON Web Tokens, verified with public keys that the gateway fetched. RFC 7519."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jwt
import msgspec
from cryptography.x509 import load_pem_x509_certificate
from jwt.types import Options

from gateway.platforms.port import WebhookRequest
from gateway.platforms.signature import required_header
from shared.errors import SignatureRejected

#: how far the clocks may differ, in seconds
LEEWAY_S = 300

#: the claims are checked here: the library reads a clock of its own
UNCHECKED: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def token_of(req: WebhookRequest) -> str:
    """Return a request's bearer token. Raises SignatureRejected."""
    scheme, _, token = required_header(req.headers, "authorization").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise SignatureRejected("the authorization header holds no bearer token")
    return token


def key_id(req: WebhookRequest) -> str:
    """Return the id of the key that a request's token names, empty where it names none."""
    try:
        found = jwt.get_unverified_header(token_of(req)).get("kid", "")
    except (jwt.PyJWTError, SignatureRejected, ValueError, TypeError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""


def read_token(req: WebhookRequest, issuers: Collection[str], audiences: Collection[str]) -> dict[str, Any]:
    """Return the claims of a request's token, signed with RS256 and in force. Raises SignatureRejected."""
    raw = req.keys.get(key_id(req), b"")
    if not raw:
        raise SignatureRejected("the bearer token is signed with none of the platform's keys")
    try:
        key: Any = jwt.PyJWK.from_json(raw.decode()).key if raw.startswith(b"{") else public_key(raw)
        claims = jwt.decode(token_of(req), key, algorithms=["RS256"], options=UNCHECKED)
    except Exception as error:  # noqa: BLE001 - whatever a library raises on a stranger's bytes, it is no proof
        raise SignatureRejected(f"the bearer token does not verify ({type(error).__name__})") from None
    check_times(claims, req.now)
    if claims.get("iss") not in issuers:
        raise SignatureRejected("the bearer token is of another issuer")
    if claims.get("aud") not in audiences:
        raise SignatureRejected("the bearer token is made out to somebody else")
    return claims


def public_key(certificate: bytes) -> object:
    """Return the key of a PEM certificate. Raises ValueError."""
    return load_pem_x509_certificate(certificate).public_key()


def check_times(claims: dict[str, Any], now: float) -> None:
    """Check that a token is in force. Raises SignatureRejected."""
    begins, ends = claims.get("nbf", 0), claims.get("exp")
    if not isinstance(begins, int | float) or not isinstance(ends, int | float):
        raise SignatureRejected("the bearer token does not say how long it holds")
    if not begins - LEEWAY_S <= now <= ends + LEEWAY_S:
        raise SignatureRejected("the bearer token is out of date, or this machine's clock is wrong")


def endorsements(req: WebhookRequest) -> list[str] | None:
    """Return the channels that the key of a request's token may sign for, None where it is bound to none."""
    try:
        return msgspec.json.decode(req.keys.get(key_id(req), b""), type=_Endorsed).endorsements
    except msgspec.DecodeError:
        return None


class _Endorsed(msgspec.Struct, frozen=True):
    """What is read of a key."""

    endorsements: list[str] | None = None
