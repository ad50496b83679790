"""Text of others on its way to a terminal: what would steer it is shown as an escape instead."""

from __future__ import annotations

import re

#: C0 and C1 controls and DEL, and what turns the direction of writing; a line's end and a tab are looked at apart
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
#: what of them JSON leaves as it is
_STEERING_IN_JSON = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text of many lines with what would steer a terminal shown as an escape."""
    return _STEERING.sub(lambda found: repr(found[0])[1:-1], text)


def printable_line(text: str) -> str:
    """Return a text as one line, its line ends and tabs shown as escapes too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def printable_json(text: str) -> str:
    """Return JSON text, with what would steer a terminal written as JSON's own escape."""
    return _STEERING_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
