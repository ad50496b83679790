"""What can go wrong with a model call, told as the errors of this project: pure functions of a provider's answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from shared.errors import ContextTooLong, ModelError, ModelRejected, ModelUnavailable
from shared.loose_json import decode_loose
from shared.redaction import SHORTEST
from shared.retry import retry_after_s
from worker.agent.models.error_words import (
    CALL_UNREADABLE,
    KEY_REFUSED,
    MODEL_UNKNOWN,
    NO_QUOTA,
    REQUEST_REFUSED,
    STATUS_OF,
    TOO_LARGE_FOR_A_MINUTE,
    TOO_LONG,
)

_TOLD_CHARACTERS = 300

#: statuses of a server that is away, or wants to be left alone, and may answer the same request later: limits, and
#: every 5xx but "not implemented" and "version not supported" (529 is Anthropic's "overloaded")
_AWAY = frozenset({429, *range(500, 600)} - {501, 505})
#: statuses that may pass by themselves: timeouts, conflicts, too early
_PASSING = frozenset({408, 409, 425})
#: statuses that say what is wrong with a request, where the words say it is too long
_TOO_LONG_STATUSES = frozenset({400, 413, 422, 500})


class ProviderAway(ModelUnavailable):
    """Raised when a provider cannot be reached, is overloaded or loads its model: nothing was asked of it yet."""


class Stalled(ModelUnavailable):
    """Raised when a model sent no byte for the stall timeout; ``began`` says whether it had begun to answer."""

    def __init__(self, problem: str, *, began: bool = False) -> None:
        super().__init__(problem)
        self.began = began


class BrokenOff(ModelUnavailable):
    """Raised when an answer that had begun did not come to its end."""


class MalformedAnswer(ModelUnavailable):
    """Raised when what came is no answer of this kind."""


class EmptyAnswer(ModelUnavailable):
    """Raised when a model ended its answer with neither text nor a tool call; ``finish`` is why it ended."""

    def __init__(self, problem: str, finish: str = "") -> None:
        super().__init__(problem)
        self.finish = finish


class Misconfigured(ModelRejected):
    """Raised when a provider refuses every request: a wrong key, an unknown model, no quota left."""


class Withheld(ModelRejected):
    """Raised when a model or its provider refused to answer this."""


class RequestRefused(ModelRejected):
    """Raised when a server refuses a request as it is: ``status`` and ``words`` are its own."""

    def __init__(self, problem: str, status: int, words: str) -> None:
        super().__init__(problem)
        self.status = status
        self.words = words


class Endpoint(msgspec.Struct, frozen=True):
    """Where calls go, for the words of an error: a key is held only to be taken out of them."""

    provider: str
    model: str
    api_key: str = ""
    #: the model as the settings name it, where that is not ``provider:model``
    section: str = ""
    #: the setting that holds its key, where that is not the SDK's own
    key_variable: str = ""

    @property
    def name(self) -> str:
        """The model as the settings spell it."""
        return self.section or f"{self.provider}:{self.model}"

    @property
    def key_setting(self) -> str:
        """The setting that holds its key."""
        return self.key_variable or f"{self.provider.upper()}_API_KEY"

    @property
    def url_setting(self) -> str:
        """The setting that holds its url."""
        return f"base_url of models.{self.section}" if self.section else f"{self.provider.upper()}_BASE_URL"


def from_status(where: Endpoint, status: int, words: str, headers: Mapping[str, str]) -> ModelError:
    """Return the error for an answer with this HTTP status; ``words`` are the provider's own, shown cut and keyless."""
    told = tell(where, words)
    wish = retry_after_s(headers)
    too_long = status in _TOO_LONG_STATUSES and TOO_LONG.search(words)
    if too_long or (status == 429 and TOO_LARGE_FOR_A_MINUTE.search(words)):
        return ContextTooLong(f"{where.name} was sent too much ({status}): {told}")
    if status in {400, 422} and CALL_UNREADABLE.search(words):
        return MalformedAnswer(f"{where.name} wrote a call that its server could not read ({status}): {told}")
    if status in {400, 401, 403, 404, 422, 429} and (told_by_words := _misconfigured(where, status, words, told)):
        return told_by_words
    match status:
        case 401 | 403:
            return Misconfigured(f"{where.name} refused the key ({status}): {told}; look at {where.key_setting}")
        case 402:
            return Misconfigured(f"{where.name} wants to be paid ({status}): {told}")
        case 404:
            return Misconfigured(
                f"{where.name} was not found ({status}): {told}; look at GATEHOUSE_MODEL and {where.url_setting}"
            )
        case 413:
            return ContextTooLong(f"{where.name} was sent too much ({status}): {told}")
        case _ if status >= 500 and REQUEST_REFUSED.search(words):
            return RequestRefused(f"{where.name} refused the request ({status}): {told}", status, words)
        case _ if status in _AWAY:
            return ProviderAway(f"{where.name} is not available ({status}): {told}", wish)
        case _ if status in _PASSING:
            return ModelUnavailable(f"{where.name} is not available ({status}): {told}", wish)
        case _:
            looking = f"look at GATEHOUSE_MODEL and {where.url_setting}"
            return RequestRefused(f"{where.name} refused the request ({status}): {told}; {looking}", status, words)


def _misconfigured(where: Endpoint, status: int, words: str, told: str) -> Misconfigured | None:
    """Return what is wrong with the settings, where a provider says that in its own words and an odd status."""
    if NO_QUOTA.search(words):
        return Misconfigured(
            f"{where.name} has no quota left ({status}): {told}; look at the account of {where.key_setting}"
        )
    if KEY_REFUSED.search(words):
        return Misconfigured(f"{where.name} refused the key ({status}): {told}; look at {where.key_setting}")
    if status in {400, 422} and MODEL_UNKNOWN.search(words):
        return Misconfigured(f"{where.name} is not known there ({status}): {told}; look at GATEHOUSE_MODEL")
    return None


def from_event(where: Endpoint, body: dict[str, Any]) -> ModelError | None:
    """Return the error that an event of a stream, or a body with status 200, tells of; None where it tells of none.

    Such as ``{"error": {…}}``, ``{"error": "words"}``, ``{"object": "error", …}`` (vLLM, SGLang), ``{"type": "error"}``
    (Anthropic), ``{"detail": …}`` (FastAPI), ``{"errors": […]}``, and ``{"message": "words", "code": 500}``.
    """
    error = body.get("error") or _named_otherwise(body)
    if error in (None, False, "", {}, []):
        is_error = "error" in (body.get("object"), body.get("type"))
        error = body if is_error else body.get("detail") or body.get("errors")
    if error in (None, False, "", {}, []) and isinstance(body.get("message"), str):
        error = body
    if error in (None, False, "", {}, []):
        return None
    words = msgspec.json.encode(body).decode()
    settings_are_wrong = NO_QUOTA.search(words) or KEY_REFUSED.search(words) or MODEL_UNKNOWN.search(words)
    return from_status(where, _status_of(error, body) or (400 if settings_are_wrong else 500), words, {})


def _named_otherwise(body: dict[str, Any]) -> Any:
    """Return the error of a body that has one under a name of its own: MiniMax's, Groq's and Bedrock's streams."""
    match body:
        case {"base_resp": {"status_code": int(code)}} if code:
            return body["base_resp"]
        case {"x_groq": {"error": error}}:
            return error
        case _:
            return next((value for name, value in body.items() if name.endswith("Exception") and value), None)


def from_words(where: Endpoint, words: str) -> ModelError:
    """Return the error of an event that is named one and holds bare words."""
    return from_status(where, 500, words, {})


def _status_of(*tellers: object) -> int:
    """Return the HTTP status that an error names, as a number, a text or a word; 0 where it names none."""
    for teller in tellers:
        if not isinstance(teller, dict):
            continue
        for name in ("code", "status", "status_code", "statusCode", "type"):
            word = str(teller.get(name))
            if re.fullmatch(r"[45][0-9]{2}", word):
                return int(word)
            if word in STATUS_OF:
                return STATUS_OF[word]
    return 0


def tell(where: Endpoint, words: str) -> str:
    """Return a provider's words fit for a log line: its message alone where there is one, on one line, no key."""
    told = " ".join(_message(words).split())
    if len(where.api_key) >= SHORTEST:
        told = told.replace(where.api_key, "***")
    return told[:_TOLD_CHARACTERS] or "no words given"


def _message(words: str) -> str:
    """Return the message inside a JSON error body, wherever servers put it, or the words themselves."""
    try:
        inner = decode_loose(words.encode("utf-8", "replace"))
    except ValueError:
        return words
    for _ in range(8):
        match inner:
            case str():
                return inner
            case [dict() as first, *_]:
                inner = first
            case dict():
                names = ("error", "errors", "message", "detail", "msg", "base_resp", "status_msg", "x_groq")
                inner = next((inner[name] for name in names if inner.get(name)), words)
            case _:
                return words
    return words
