"""Reading JSON of any content into structs, and texts of any content into what a store and a model can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from shared.command import CHAT_COMMANDS
from shared.errors import BodyRejected
from shared.loose_json import decode_mended, has_more_values

T = TypeVar("T")

#: a whole number that every engine can store
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

#: names and values of a body that is read once more without its nulls, on the loop: no platform's have a tenth of them
MOST_MENDED_VALUES = 20_000

#: longest title of a session, in code points
MOST_TITLE = 100

#: what a session key's inner parts may be made of
KEY_PART = re.compile(r"[A-Za-z0-9._@-]{1,128}")


def decode(raw: bytes, kind: type[T], what: str) -> T:
    """Decode JSON into a struct; ``what`` names the shape in the error. Raises BodyRejected.

    A field that is null counts as one that was left out.
    """
    try:
        try:
            return decode_mended(raw, kind)
        except msgspec.ValidationError:
            if b"null" not in raw or has_more_values(raw, MOST_MENDED_VALUES):
                raise
            told = without_nulls(decode_mended(raw, dict[str, Any]))
            return msgspec.json.decode(msgspec.json.encode(told), type=kind)
    except msgspec.ValidationError as error:
        raise BodyRejected(f"the body is not {what}: {error}") from None
    except RecursionError:
        raise BodyRejected("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise BodyRejected("the body is not UTF-8") from None
    except msgspec.DecodeError as error:
        raise BodyRejected(f"the body is not JSON: {error}") from None


def without_nulls(value: Any) -> Any:
    """Return a JSON value without the fields that are null."""
    match value:
        case dict():
            return {name: without_nulls(one) for name, one in value.items() if one is not None}
        case list():
            return [without_nulls(one) for one in value]
        case _:
            return value


def decode_or_none(raw: bytes, kind: type[T]) -> T | None:
    """Decode a part of a body that holds others, None where it cannot be read: the others still count."""
    try:
        return decode(raw, kind, "readable")
    except BodyRejected:
        return None


def each_readable(raws: Iterable[msgspec.Raw], kind: type[T]) -> Iterator[T]:
    """Decode the parts of a list one by one, so that one that is odd loses none of the others."""
    return (part for raw in raws if (part := decode_or_none(bytes(raw), kind)) is not None)


def read_form(raw: bytes) -> dict[str, str]:
    """Read a form's fields, the last of each name. Raises BodyRejected."""
    try:
        return dict(parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=100))
    except UnicodeDecodeError:
        raise BodyRejected("the body is not UTF-8") from None
    except ValueError:
        raise BodyRejected("the form has more than 100 fields") from None


def read_fields(raw: bytes, content_type: str) -> dict[str, str]:
    """Read the texts of a form or of a JSON object, as the content type says. Raises BodyRejected."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        return read_form(raw)
    return {name: value for name, value in decode(raw, dict[str, Any], "an object").items() if isinstance(value, str)}


def as_text(text: str) -> str:
    """Return a text without NUL characters, which not every engine can store, and without outer blanks."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").strip()


def as_title(*names: object) -> str:
    """Return the first of some names that a platform tells, as one short line; empty where it tells none.

    A name of an odd type is none: it is shown to operators alone, so no message is refused for it.
    """
    lines = (" ".join(as_text(name).split()) for name in names if isinstance(name, str))
    return next((line[:MOST_TITLE] for line in lines if line), "")


def as_command(name: str, said: str) -> str:
    """Return what a slash command says: a chat command of ours with its words; another is a way to speak them."""
    command = f"/{name.removeprefix('/')}"
    return f"{command} {said}".strip() if command in CHAT_COMMANDS else said or "/help"


def as_key_part(text: str, name: str) -> str:
    """Return a platform's id if it can be part of a session key. Raises BodyRejected."""
    if not KEY_PART.fullmatch(text):
        raise BodyRejected(f"{name} is not an id as the platform makes them")
    return text


def utf16_slice(text: str, offset: int, length: int) -> str:
    """Return a part of a text by UTF-16 units."""
    units = text.encode("utf-16-le")
    return units[2 * offset : 2 * (offset + length)].decode("utf-16-le", "replace")
