"""JSON schemas of strangers' tools, made such that every provider takes them, and arguments made back.

What providers refuse, each of them some: a schema that is no object, ``oneOf``, ``anyOf`` and ``allOf`` at its top,
references, arrays without items, a list of required names that have no property, and property names outside of
``[A-Za-z0-9_.-]{1,64}``. See the function calling pages of Anthropic, OpenAI and Gemini.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

#: what every provider takes as the name of a property
PROPERTY_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: characters of a name, of a property or a tool, that every provider takes
NAME_LIMIT_CHARS = 64
#: bytes of the longest schema that a model is shown
SIZE_LIMIT_BYTES = 100_000
#: how deep a schema may nest; what is deeper may be anything
DEPTH_LIMIT = 16
#: how many parts a schema may have once its references are written out
PARTS_LIMIT = 5000

_UNIONS = ("oneOf", "anyOf", "allOf")
#: keywords whose values are schemas by name, one schema, or several
_BY_NAME = ("properties", "patternProperties", "dependentSchemas")
_ONE = ("additionalProperties", "propertyNames", "contains", "not", "if", "then", "else", "unevaluatedProperties")
_SEVERAL = (*_UNIONS, "prefixItems")
#: keywords that a model is shown; others are about the document, or some provider does not know them
_SHOWN = frozenset(
    (
        "type enum const default examples title description format pattern minimum maximum exclusiveMinimum "
        "exclusiveMaximum multipleOf minLength maxLength minItems maxItems uniqueItems minProperties maxProperties "
        "items required nullable deprecated contentEncoding contentMediaType dependentRequired"
    ).split()
) | {*_BY_NAME, *_ONE, *_SEVERAL}
_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")

Schema = dict[str, Any]


class PortableSchema(msgspec.Struct, frozen=True):
    """A schema that every provider takes."""

    #: a JSON schema object
    schema: Schema
    #: properties that go by another name, and the name that the tool knows
    renamed: dict[str, str] = {}

    def restore(self, arguments: Any) -> Any:
        """Return a model's arguments under the names that the tool knows."""
        if not self.renamed:
            return arguments
        if isinstance(arguments, dict):
            return {self.renamed.get(name, name): self.restore(value) for name, value in arguments.items()}
        return [self.restore(value) for value in arguments] if isinstance(arguments, list) else arguments


def portable_schema(schema: object) -> PortableSchema:
    """Return what a model can be shown for a schema. Raises ValueError, which says why it cannot be shown."""
    if schema is None or schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise ValueError("its input schema is no object")
    names = {name for name in _property_names(schema) if not PROPERTY_NAME.fullmatch(name)}
    taken = set(_property_names(schema))
    renames = {name: _other_name(name, taken) for name in sorted(names)}
    top = _Reader(schema, renames).read()
    kind = top.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise ValueError(f"its arguments are of type {kind}, and a tool's arguments are an object")
    top = {"type": "object", "properties": {}} | _merged(top) | {"type": "object"}
    if len(msgspec.json.encode(top)) > SIZE_LIMIT_BYTES:
        raise ValueError(f"its input schema is longer than {SIZE_LIMIT_BYTES} bytes")
    return PortableSchema(top, {new: name for name, new in renames.items()})


class _Reader:
    """Reads one document with its references written out."""

    def __init__(self, document: Schema, renames: Mapping[str, str]) -> None:
        self._document = document
        self._renames = renames
        self._parts = 0

    def read(self) -> Schema:
        return self._schema(self._document, 0, ())

    def _schema(self, schema: object, depth: int, inside: tuple[str, ...]) -> Schema:
        """Return a part of the document; what is no schema, or too deep, may be anything."""
        self._parts += 1
        if not isinstance(schema, dict) or depth > DEPTH_LIMIT or self._parts > PARTS_LIMIT:
            return {"not": {}} if schema is False else {}
        reference = schema.get("$ref", schema.get("$dynamicRef"))
        if reference is not None:
            beside = {key: value for key, value in schema.items() if key not in {"$ref", "$dynamicRef"}}
            return self._referred(reference, depth, inside) | self._schema(beside, depth, inside)
        made = {key: self._keyword(key, value, depth, inside) for key, value in schema.items() if key in _SHOWN}
        return _sound(made)

    def _referred(self, reference: object, depth: int, inside: tuple[str, ...]) -> Schema:
        """Return what a reference names; one that leads to itself or elsewhere may be anything."""
        if not isinstance(reference, str) or not reference.startswith("#") or reference in inside:
            return {}
        found: Any = self._document
        for part in reference[1:].strip("/").split("/") if reference != "#" else ():
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        return self._schema(found, depth + 1, (*inside, reference))

    def _keyword(self, key: str, value: object, depth: int, inside: tuple[str, ...]) -> Any:
        def read(part: object) -> Schema:
            return self._schema(part, depth + 1, inside)

        if key in _BY_NAME and isinstance(value, dict):
            named = {name: read(part) for name, part in value.items()}
            return {self._renames.get(name, name): part for name, part in named.items()}
        if key in _SEVERAL and isinstance(value, list):
            return [read(part) for part in value]
        if key == "items":
            return {"anyOf": [read(part) for part in value]} if isinstance(value, list) and value else read(value)
        if key in _ONE:
            return value if isinstance(value, bool) else read(value)
        if key == "required" and isinstance(value, list):
            return [self._renames.get(name, name) for name in value if isinstance(name, str)]
        return value


def _sound(schema: Schema) -> Schema:
    """Return the schema without what is no JSON schema, and an array with items."""
    kind = schema.get("type")
    if isinstance(kind, list):
        schema["type"] = [one for one in kind if one in _TYPES] or ["string"]
    elif kind is not None and kind not in _TYPES:
        del schema["type"]
    for key in _BY_NAME:
        if key in schema and not isinstance(schema[key], dict):
            del schema[key]
    for key in (*_SEVERAL, "required", "enum", "examples"):
        if key in schema and not (isinstance(schema[key], list) and (schema[key] or key == "required")):
            del schema[key]
    if "description" in schema and not isinstance(schema["description"], str):
        del schema["description"]
    if schema.get("type") == "array" or (isinstance(kind, list) and "array" in kind):
        schema.setdefault("items", {})
    return schema


def _merged(schema: Schema) -> Schema:
    """Return a top without unions: the properties of all their members, and in words what belongs together."""
    own = {key: value for key, value in schema.items() if key not in {*_UNIONS, "not", "if", "then", "else", "enum"}}
    properties: Schema = {}
    required: list[str] = list(own.get("required", ()))
    notes: list[str] = []
    for key in _UNIONS:
        members = [_merged(member) for member in schema.get(key, ())]
        for member in members:
            for name, part in member.get("properties", {}).items():
                properties.setdefault(name, part)
        wanted = [member.get("required", []) for member in members]
        if key == "allOf":
            required += [name for names in wanted for name in names]
        elif wanted:
            required += [name for name in wanted[0] if all(name in names for names in wanted)]
            if len({tuple(names) for names in wanted}) > 1:
                sets = " or ".join("(" + (", ".join(names) or "none of them") + ")" for names in wanted)
                notes.append(f"Give {'one' if key == 'oneOf' else 'at least one'} of these sets of arguments: {sets}.")
    own["properties"] = {**properties, **own.get("properties", {})}
    own["required"] = [name for name in dict.fromkeys(required) if name in own["properties"]]
    if notes:
        own["description"] = " ".join([*([own["description"]] if own.get("description") else []), *notes])
    return own


def _property_names(schema: object, depth: int = 0) -> Iterator[str]:
    """Yield every name of a property, at any depth."""
    if depth > 4 * DEPTH_LIMIT:
        return
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from (name for name in properties if isinstance(name, str))
        for part in schema.values():
            yield from _property_names(part, depth + 1)
    elif isinstance(schema, list):
        for part in schema:
            yield from _property_names(part, depth + 1)


def told_apart(plain: str, name: str) -> str:
    """Return a plain name that another has too with a part of the hash of what it stands for, the same for each."""
    return f"{plain[: NAME_LIMIT_CHARS - 9]}_{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _other_name(name: str, taken: set[str]) -> str:
    """Return a name that every provider takes, the same for the same name, and remember that it is taken."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip("_")[:NAME_LIMIT_CHARS] or "property"
    if plain in taken:
        plain = told_apart(plain, name)
    taken.add(plain)
    return plain
