"""JSON that follows a schema, as the offline model makes it: the plainest value, its texts from the user's words."""

from __future__ import annotations

from typing import Any

DEEPEST = 12
MOST_ITEMS = 100
MOST_CHARACTERS = 1000


def example(schema: Any, words: str) -> Any:
    """Return a value of a JSON schema."""
    definitions: dict[str, Any] = {}
    for holder in ("$defs", "definitions"):
        found = schema.get(holder) if isinstance(schema, dict) else None
        if isinstance(found, dict):
            definitions |= {f"#/{holder}/{name}": inner for name, inner in found.items()}
    return _value(schema, words, definitions, 0)


def _value(schema: Any, words: str, definitions: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > DEEPEST:
        return None
    match schema:
        case {"const": constant}:
            return constant
        case {"enum": [first, *_]}:
            return first
        case {"$ref": str(reference)}:
            return _value(definitions.get(reference), words, definitions, depth + 1)
        case {"anyOf": [*choices]} | {"oneOf": [*choices]}:
            return _value(_plainest(choices), words, definitions, depth + 1)
        case {"allOf": [first, *_]}:
            return _value(first, words, definitions, depth + 1)
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object" | None:
            named, needed = schema.get("properties") or {}, schema.get("required") or ()
            return {name: _value(named.get(name), words, definitions, depth + 1) for name in needed}
        case "array":
            item = _value(schema.get("items"), words, definitions, depth + 1)
            return [item] * min(schema.get("minItems") or 0, MOST_ITEMS)
        case "string":
            least = min(schema.get("minLength") or 0, MOST_CHARACTERS)
            return words[: schema.get("maxLength") or MOST_CHARACTERS].ljust(least, ".")
        case "integer" | "number":
            return schema.get("minimum", schema.get("maximum", 0))
        case "boolean":
            return False
        case _:
            return None


def _plainest(choices: list[Any]) -> Any:
    """Return the first choice that is no null."""
    return next((one for one in choices if isinstance(one, dict) and one.get("type") != "null"), None)
