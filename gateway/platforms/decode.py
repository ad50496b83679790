"""Reading JSON of any content into structs, and texts of any content into what a store and a model can hold."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec

from shared.errors import BodyRejected

T = TypeVar("T")

#: a whole number that every engine can store
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

#: what a session key's inner parts may be made of
KEY_PART = re.compile(r"[A-Za-z0-9._@-]{1,128}")


def decode(raw: bytes, kind: type[T], what: str) -> T:
    """Decode JSON into a struct; ``what`` names the shape in the error. Raises BodyRejected."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise BodyRejected(f"the body is not {what}: {error}") from None
    except RecursionError:
        raise BodyRejected("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise BodyRejected("the body is not UTF-8") from None
    except msgspec.DecodeError as error:
        raise BodyRejected(f"the body is not JSON: {error}") from None


def as_text(text: str) -> str:
    """Return a text without NUL characters, which not every engine can store, and without outer blanks."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").strip()


def as_key_part(text: str, name: str) -> str:
    """Return a platform's id if it can be part of a session key. Raises BodyRejected."""
    if not KEY_PART.fullmatch(text):
        raise BodyRejected(f"{name} is not an id as the platform makes them")
    return text
