"""What can go wrong with a model call, told as the errors of this project: pure functions of a provider's answer."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

import msgspec

from shared.errors import ContextTooLong, ModelError, ModelRejected, ModelUnavailable
from shared.retry import retry_after_s

_TOLD_CHARACTERS = 300

#: statuses that may pass: timeouts, conflicts, limits, and every 5xx (529 is Anthropic's "overloaded")
_PASSING = frozenset({408, 409, 425, 429})

_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size|limit)|prompt is too long|maximum (model|prompt) length|"
    r"too many (input )?tokens|request_too_large|reduce the length",
    re.IGNORECASE,
)


class Stalled(ModelUnavailable):
    """Raised when a model sent no byte for the stall timeout, or its server could not be reached in time."""


class EmptyAnswer(ModelUnavailable):
    """Raised when a model ended its answer with neither text nor a tool call."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where calls go, for the words of an error: a key is held only to be taken out of them."""

    provider: str
    model: str
    api_key: str = ""

    @property
    def name(self) -> str:
        """The model as the settings spell it."""
        return f"{self.provider}:{self.model}"

    @property
    def key_setting(self) -> str:
        """The setting that holds its key."""
        return f"{self.provider.upper()}_API_KEY"

    @property
    def url_setting(self) -> str:
        """The setting that holds its url."""
        return f"{self.provider.upper()}_BASE_URL"


def from_status(where: Endpoint, status: int, words: str, headers: Mapping[str, str]) -> ModelError:
    """Return the error for an answer with this HTTP status; ``words`` are the provider's own, shown cut and keyless."""
    told = tell(where, words)
    wish = retry_after_s(headers, time.time())
    match status:
        case 401 | 403:
            return ModelRejected(f"{where.name} refused the key ({status}): look at {where.key_setting}")
        case 402:
            return ModelRejected(f"{where.name} wants to be paid ({status}): {told}")
        case 404:
            return ModelRejected(
                f"{where.name} was not found ({status}): {told}; look at GATEHOUSE_MODEL and {where.url_setting}"
            )
        case 413:
            return ContextTooLong(f"{where.name} was sent too much ({status}): {told}")
        case 400 | 422 if _TOO_LONG.search(words):
            return ContextTooLong(f"{where.name} was sent too much ({status}): {told}")
        case 429 if "insufficient_quota" in words:
            return ModelRejected(
                f"{where.name} has no quota left ({status}): look at the account of {where.key_setting}"
            )
        case _ if status in _PASSING or status >= 500:
            return ModelUnavailable(f"{where.name} is not available ({status}): {told}", wish)
        case _:
            return ModelRejected(
                f"{where.name} refused the request ({status}): {told}; look at GATEHOUSE_MODEL and {where.url_setting}"
            )


def tell(where: Endpoint, words: str) -> str:
    """Return a provider's words fit for a log line: its message alone where there is one, on one line, no key."""
    told = " ".join(_message(words).split())
    if where.api_key:
        told = told.replace(where.api_key, "***")
    return told[:_TOLD_CHARACTERS] or "no words given"


def _message(words: str) -> str:
    """Return the ``error.message`` (or ``error``, or ``message``) of a JSON error body, or the words themselves."""
    try:
        body = msgspec.json.decode(words)
    except msgspec.DecodeError:
        return words
    inner = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(inner, dict):
        inner = inner.get("message", words)
    return inner if isinstance(inner, str) else words
