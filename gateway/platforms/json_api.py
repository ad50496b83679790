"""Platforms with a JSON API: what their adapters have in common, so that each says its own facts and nothing else.

An adapter declares its places, how long a message is and how it is written, where an answer says what, and what the
error codes mean. The calls, and what it does about a thread or a token that is lost, are its methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import msgspec

from gateway.chunking import Measure, cut, utf16_units
from gateway.formatting import PLAIN, Dialect
from gateway.platforms.api_call import refused
from gateway.platforms.port import (
    EMPTY,
    Adapter,
    ApiResponse,
    Chat,
    Fail,
    Gone,
    Rate,
    Reformat,
    SendResult,
    Sent,
    TryLater,
    WithoutThread,
)
from shared.messages import Reply
from shared.retry import LONGEST_S, retry_after_s


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a reply goes; the first field names the chat, whatever thread of it the others speak of."""

    @classmethod
    def of(cls, address: bytes) -> Self:
        """Read an address."""
        return msgspec.json.decode(address, type=cls)

    @property
    def packed(self) -> bytes:
        """The address of this place."""
        return msgspec.json.encode(self)

    def but(self, **changes: Any) -> bytes:
        """Return the address of this place with some fields changed."""
        return msgspec.json.encode(msgspec.structs.replace(self, **changes))

    @property
    def chat_key(self) -> str:
        """What names the chat."""
        return str(getattr(self, self.__struct_fields__[0]))


class TextLimit(msgspec.Struct, frozen=True):
    """How long one message is at the most, and how it is written."""

    #: in units of ``measure``
    most: int
    dialect: Dialect = PLAIN
    measure: Measure = utf16_units
    #: the platform counts what is seen, not its markup
    seen_only: bool = False


class AnswerShape(msgspec.Struct, frozen=True, kw_only=True):
    """Where an API's answer says what: fields and numbers of array elements, dots between them; empty for nowhere."""

    #: the id of what was sent
    id: str
    #: what kind of error it is
    code: str = ""
    #: the error in words
    said: str = ""
    #: the time to wait, and how many seconds its unit is
    wait: tuple[str, float] = ("", 1.0)
    #: true where the whole app is to wait
    whole_app: str = ""
    #: there, and not false, where the call was carried out; else the HTTP status tells that
    ok: str = ""
    #: an answer that is no JSON object is not the API's, whatever its status
    always_json: bool = True


class ErrorCodes(msgspec.Struct, frozen=True, kw_only=True):
    """What a platform's own error codes mean; of every other one the HTTP status tells it."""

    #: pass by themselves, or can be mended while the reply waits
    passing: frozenset[int | str] = frozenset()
    #: the receiver is not there any more
    gone: frozenset[int | str] = frozenset()
    #: the markup cannot be read
    markup: frozenset[int | str] = frozenset()
    #: seconds to wait for those that name none
    waits_s: Mapping[int | str, float] = {}


class ApiAnswer(msgspec.Struct, frozen=True):
    """What an answer says of a call."""

    status: int
    ok: bool
    id: str
    code: int | str
    said: str
    #: None where it asks for no time
    wait_s: float | None
    whole_app: bool

    @property
    def reason(self) -> str:
        """The code and the words, for people."""
        known = [str(part) for part in (self.code, self.said) if part]
        return " ".join(dict.fromkeys(known))[:200] or f"HTTP {self.status}"


class JsonApiAdapter(Adapter, frozen=True):
    """What the adapters of platforms with a JSON API share."""

    place: ClassVar[type[Place]]
    writes: ClassVar[TextLimit]
    answers: ClassVar[AnswerShape]
    codes: ClassVar[ErrorCodes] = ErrorCodes()
    #: what one chat takes, all that is sent there together
    chat_rates: ClassVar[tuple[Rate, ...]] = ()

    def chunks(self, markdown: str) -> list[str]:
        """Cut an answer into the platform's dialect."""
        limit = self.writes
        return cut(markdown, limit.most, limit.dialect, limit.measure, seen_only=limit.seen_only) or [EMPTY]

    def chat(self, address: bytes) -> Chat:
        """Return what the platform counts requests of: the chat that a place names."""
        return Chat(self.place.of(address).chat_key, self.chat_rates)

    def result(self, reply: Reply, answer: ApiResponse) -> SendResult:
        """Read an answer by its declared shape."""
        found = self.read(answer)
        if found is None:
            reason = f"HTTP {answer.status} with a body that is not {self.name}'s"
            return TryLater(reason, retry_after_s(answer.headers))
        if found.ok:
            return Sent(found.id)
        elsewhere = self.elsewhere(reply, found)
        return self.judge(found, answer) if elsewhere is None else WithoutThread(elsewhere, found.reason)

    def elsewhere(self, reply: Reply, found: ApiAnswer) -> bytes | None:  # noqa: ARG002 - a platform without threads
        """Return where a chunk goes once more since its thread, quote or token is lost, None where it is not."""
        return None

    def judge(self, found: ApiAnswer, answer: ApiResponse) -> SendResult:
        """Say what an error means: by its code, else by its HTTP status."""
        code, reason = found.code, found.reason
        if code in self.codes.passing:
            return TryLater(reason, self.codes.waits_s.get(code, found.wait_s))
        if code in self.codes.markup:
            return Reformat(reason)
        if code in self.codes.gone:
            return Gone(reason)
        if code and answer.status < 300:  # an API that says all of it in the body
            return Fail(reason)
        outcome = refused(answer, reason, found.wait_s)
        if isinstance(outcome, TryLater) and found.whole_app:
            return msgspec.structs.replace(outcome, whole_app=True)
        return outcome

    def read(self, answer: ApiResponse) -> ApiAnswer | None:
        """Return what an answer says, None where it is not the API's: a proxy's page, for example."""
        shape = self.answers
        try:
            body = msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            body = None
        if not isinstance(body, dict) and shape.always_json:
            return None
        wait, code = field_at(body, shape.wait[0]), field_at(body, shape.code)
        asked_s = wait * shape.wait[1] if isinstance(wait, int | float) else None
        return ApiAnswer(
            answer.status,
            bool(field_at(body, shape.ok)) if shape.ok else answer.status < 300,
            text_of(field_at(body, shape.id)),
            code if isinstance(code, int | str) else "",
            text_of(field_at(body, shape.said)),
            retry_after_s(answer.headers) if asked_s is None else min(max(asked_s, 0.0), LONGEST_S),
            field_at(body, shape.whole_app) is True,
        )


def field_at(body: object, path: str) -> Any:
    """Return a field of a JSON value, None where there is none."""
    for name in path.split(".") if path else ():
        if isinstance(body, dict):
            body = body.get(name)
        elif isinstance(body, list) and name.isdigit() and int(name) < len(body):
            body = body[int(name)]
        else:
            return None
    return body if path else None


def text_of(value: object) -> str:
    """Return a text or a number as text; empty for anything else."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
