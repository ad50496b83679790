"""The form that a client wants an answer in: whether a model kept to it, and how it is asked again."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from shared.call_options import AnswerFormat
from shared.errors import GatehouseError

REPAIR = (
    "Your answer is not in the form that was asked for: {problem}. "
    "Give the whole answer again, as JSON alone, without any other word."
)
_FENCED = re.compile(r"\A\s*```[A-Za-z]*[ \t]*\n(.*?)\n?```\s*\Z", re.DOTALL)
#: what of a schema is not checked: a client's pattern can take for ever, and nothing is fetched for one
_UNCHECKED = frozenset("pattern patternProperties format $schema $id $anchor $dynamicRef $dynamicAnchor".split())
#: where the names of a schema are the client's own, and where a value is no schema
_NAMED = frozenset({"properties", "dependentSchemas"})
_LITERAL = frozenset({"enum", "const", "default", "examples", "required"})
_DEFINITIONS = ("$defs", "definitions")
#: parts of a schema with its references in place; a larger one is not checked
MOST_PARTS = 10_000
PROBLEM_CHARS = 300


class FormatMissed(GatehouseError):
    """Raised when a model has twice not kept to the form; the turn tells its sender."""


def read_answer(text: str, format: AnswerFormat) -> tuple[str, str]:  # noqa: A002
    """Return the JSON of an answer, without a fence around it, and what is wrong with it; empty if nothing."""
    fenced = _FENCED.match(text)
    found = (fenced[1] if fenced else text).strip()
    try:
        value = msgspec.json.decode(found)
    except (msgspec.DecodeError, RecursionError) as error:
        return found, f"it is no JSON ({error})"[:PROBLEM_CHARS]
    if format.schema is None:
        return found, "" if isinstance(value, dict) else "it is no JSON object"
    return found, _mismatch(value, format.schema)


def _mismatch(value: object, schema: dict[str, Any]) -> str:
    """Return where a value does not follow a schema; what cannot be checked safely passes."""
    import jsonschema  # a tenth of a second, for those who ask for it

    try:
        validator = jsonschema.Draft202012Validator(_Plain(schema).schema)
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    except Exception:  # noqa: BLE001 - the boundary: a schema that is odd or huge is the client's, who knows it best
        return ""
    if error is None:
        return ""
    where = "".join(f"/{part}" for part in error.absolute_path)
    return f"{where or 'the whole'}: {error.message}"[:PROBLEM_CHARS]


class _Plain:
    """A schema with its references in place, without what is not checked; a recursive part ends where it recurs.

    Raises ValueError past MOST_PARTS.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._definitions = {name: schema[name] for name in _DEFINITIONS if isinstance(schema.get(name), dict)}
        self._parts = 0
        self.schema = self._schema(schema, ())

    def _schema(self, part: Any, within: tuple[str, ...]) -> Any:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise ValueError(f"the schema has more than {MOST_PARTS} parts")
        match part:
            case {"$ref": str(reference)}:
                return self._target(reference, within)
            case dict():
                return {
                    name: self._keyword(name, inner, within)
                    for name, inner in part.items()
                    if name not in _UNCHECKED and name not in _DEFINITIONS
                }
            case list():
                return [self._schema(inner, within) for inner in part]
            case _:
                return part

    def _keyword(self, name: str, value: Any, within: tuple[str, ...]) -> Any:
        if name in _LITERAL:
            return value
        if name in _NAMED and isinstance(value, dict):
            return {own: self._schema(inner, within) for own, inner in value.items()}
        return self._schema(value, within)

    def _target(self, reference: str, within: tuple[str, ...]) -> Any:
        holder, _, name = reference.removeprefix("#/").partition("/")
        target = self._definitions.get(holder, {}).get(name)
        if target is None or reference in within:
            return True
        return self._schema(target, (*within, reference))
