"""Parameters of a tool: the JSON schema made from its function's types, and the arguments checked against them.

pydantic reads the types. What only msgspec knows, its structs among them, is read by msgspec inside the same schema.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pydantic
import typing_extensions
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from shared.errors import ToolError
from worker.tools.context import ToolContext

#: stands for a reference that pydantic is not to follow
_LATER_REF = "$msgspec-ref"
#: mistakes in one call that the model is told of
PROBLEMS_TOLD = 5
#: what pydantic calls a value of the wrong kind, and the type it should have had
_EXPECTED = {
    "string_type": "str",
    "int_type": "int",
    "int_parsing": "int",
    "float_type": "float",
    "float_parsing": "float",
    "bool_type": "bool",
    "bool_parsing": "bool",
    "list_type": "array",
    "tuple_type": "array",
    "set_type": "array",
    "frozen_set_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "dataclass_type": "object",
    "none_required": "null",
}
#: the words for what JSON text holds
_JSON_TYPES = {str: "str", int: "int", float: "float", bool: "bool", list: "array", dict: "object", type(None): "null"}


class Parameters:
    """The typed parameters of one function.

    ``schema`` is a JSON schema object. Any type serves that pydantic or msgspec can read from JSON: plain ones, lists,
    dicts, unions, Literal, enums, models, dataclasses, TypedDict, structs, dates, paths, urls. ``Annotated[int, "what
    it is"]`` describes one, ``Annotated[int, Field(ge=1)]`` bounds it. Raises TypeError for a function that cannot be
    called with named JSON values.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        hints = typing.get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
        self._context = tuple(name for name in signature.parameters if hints.get(name) is ToolContext)
        fields = [_field(given, hints) for given in signature.parameters.values() if given.name not in self._context]
        self._names = tuple(name for name, _, _ in fields)
        arguments = dataclasses.make_dataclass("Arguments", fields, kw_only=True)
        try:
            self._adapter = _adapter(arguments)
            self.schema = _schema(self._adapter, self._names)
        except (pydantic.errors.PydanticUserError, TypeError) as error:
            raise TypeError(_refusal(fields) or _reason(error)) from None

    def read(self, arguments: str, context: ToolContext) -> dict[str, Any]:
        """Return the keyword arguments of a call from the model's JSON text. Raises ToolError."""
        try:
            values = self._adapter.validate_json((arguments.strip() or "{}").encode())
        except pydantic.ValidationError as error:
            raise ToolError(problems(error)) from None
        except (UnicodeError, RecursionError) as error:  # a lone surrogate is no UTF-8
            raise ToolError(f"the arguments are not valid JSON: {error}") from None
        named = {name: getattr(values, name) for name in self._names}
        return named | dict.fromkeys(self._context, context)


def _field(parameter: inspect.Parameter, hints: dict[str, Any]) -> tuple[str, Any, Any]:
    """Return a dataclass field for a parameter: its name, its type and its default."""
    if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
        raise TypeError(f"parameter {parameter} cannot be given by name")
    hint, default = _readable(hints.get(parameter.name, Any)), parameter.default
    if default is parameter.empty:
        return parameter.name, hint, dataclasses.field()
    if isinstance(default, FieldInfo):
        if default.default is None:
            hint = _or_none(hint)
        return parameter.name, hint, default
    if default is None:
        hint = _or_none(hint)
    if default.__hash__ is None:  # a list, a dict: each call gets its own
        return parameter.name, hint, dataclasses.field(default_factory=functools.partial(copy.deepcopy, default))
    return parameter.name, hint, dataclasses.field(default=default)


def _or_none(hint: Any) -> Any:
    return hint if hint is Any else typing.Optional[hint]  # noqa: UP045 - a value here, and not every one supports |


def _readable(hint: Any) -> Any:
    """Return the type as pydantic reads it: a text is a description, and what is msgspec's is read by msgspec."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        kind, *notes = arguments
        return functools.reduce(
            lambda inner, note: typing.Annotated[inner, note], map(_readable_note, notes), _readable(kind)
        )
    if origin in {types.UnionType, typing.Union}:
        return typing.Union[tuple(_readable(argument) for argument in arguments)]  # noqa: UP007 - a value here
    if origin in {list, set, frozenset, tuple, dict}:
        return origin[tuple(argument if argument is ... else _readable(argument) for argument in arguments)]
    if typing.is_typeddict(hint) and not _known_to_pydantic(hint):
        return _typed_dict(hint)
    return typing.Annotated[Any, _MsgspecType(hint)] if _is_for_msgspec(hint) else hint


def _typed_dict(kind: Any) -> Any:
    """Return the same TypedDict as typing_extensions makes it: pydantic takes no other before Python 3.12."""
    required = kind.__required_keys__
    fields = {
        name: _readable(hint) if name in required else typing_extensions.NotRequired[_readable(hint)]
        for name, hint in typing.get_type_hints(kind, include_extras=True).items()
    }
    make: Any = typing_extensions.TypedDict  # to a type checker it is no function
    made = make(kind.__name__, fields)
    made.__doc__ = kind.__doc__
    return made


def _is_for_msgspec(kind: Any) -> bool:
    """Tell whether pydantic does not know the type, or would pass over the bounds that msgspec's notes set."""
    if dataclasses.is_dataclass(kind):
        notes = typing.get_type_hints(kind, include_extras=True).values()
        return any(_has_msgspec_note(note) for note in notes) or not _known_to_pydantic(kind)
    return not _known_to_pydantic(kind)


def _has_msgspec_note(hint: Any) -> bool:
    return isinstance(hint, msgspec.Meta) or any(map(_has_msgspec_note, typing.get_args(hint)))


def _known_to_pydantic(kind: Any) -> bool:
    try:
        pydantic.TypeAdapter(kind)
    except pydantic.errors.PydanticSchemaGenerationError:
        return False
    except pydantic.errors.PydanticUserError as error:  # others are refused with a reason of their own, later
        return error.code != "typed-dict-version"
    return True


def _readable_note(note: Any) -> Any:
    if isinstance(note, str):
        return pydantic.Field(description=note)
    if not isinstance(note, msgspec.Meta):
        return note
    names = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "title", "description")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(note, name)) is not None}
    if note.examples is not None:
        given["examples"] = list(note.examples)
    if note.extra_json_schema is not None:
        given["json_schema_extra"] = dict(note.extra_json_schema)
    return pydantic.Field(**given)


class _MsgspecType:
    """Reads a type that msgspec knows and pydantic does not, as part of a pydantic schema."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        """Let msgspec convert the decoded JSON. Raises TypeError for a type that it does not know either."""
        kind = self._kind
        msgspec.json.schema(kind)

        def convert(value: Any) -> Any:
            try:
                return msgspec.convert(value, kind, strict=False)
            except msgspec.ValidationError as error:
                raise ValueError(str(error)) from None

        return core_schema.no_info_plain_validator_function(convert)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return msgspec's schema; its definitions move to the top later, and pydantic must not look for them now."""
        (own,), definitions = msgspec.json.schema_components([self._kind], ref_template="#/$defs/{name}")
        whole = own | ({"$defs": definitions} if definitions else {})
        return typing.cast(JsonSchemaValue, _renamed(whole, "$ref", _LATER_REF))


class _JsonSchema(GenerateJsonSchema):
    """A schema without the titles that repeat a field's name, and silent about defaults that are no JSON."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Leave them out."""
        return False

    def complex_schema(self, schema: core_schema.ComplexSchema) -> JsonSchemaValue:  # noqa: ARG002
        """Refuse it: JSON has no complex numbers."""
        raise pydantic.errors.PydanticInvalidForJsonSchema("type complex is not supported")

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """Return the values in one order, however the union was written: a prompt cache lives of equal bytes."""
        made = super().literal_schema(schema)
        if isinstance(values := made.get("enum"), list) and all(isinstance(value, str) for value in values):
            made["enum"] = sorted(values)
        return made


def _adapter(arguments: type[Any]) -> pydantic.TypeAdapter[Any]:
    config = pydantic.ConfigDict(extra="forbid", val_json_bytes="base64", ser_json_bytes="base64")
    setattr(arguments, "__pydantic_config__", config)  # noqa: B010 - made at run time, so no type checker knows it
    return pydantic.TypeAdapter(arguments)


def _schema(adapter: pydantic.TypeAdapter[Any], names: Sequence[str]) -> dict[str, Any]:
    own = adapter.json_schema(schema_generator=_JsonSchema)
    own.pop("title", None)
    own["properties"] = {name: own["properties"][name] for name in names}  # in the function's own order
    own["required"] = [name for name in names if name in own.get("required", ())]
    own = typing.cast(dict[str, Any], _renamed(own, _LATER_REF, "$ref"))
    definitions = own.pop("$defs", {}) | _nested_definitions(own)
    if definitions:
        own["$defs"] = definitions
    return own


def _renamed(schema: Any, key: str, new: str) -> Any:
    """Return the schema with another name for a key, wherever that stands."""
    if isinstance(schema, dict):
        return {new if name == key else name: _renamed(part, key, new) for name, part in schema.items()}
    return [_renamed(part, key, new) for part in schema] if isinstance(schema, list) else schema


def _nested_definitions(schema: Any) -> dict[str, Any]:
    """Take out the definitions that msgspec's parts of the schema brought along."""
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    found = {name: kind for part in inner for name, kind in _nested_definitions(part).items()}
    return found | schema.pop("$defs", {}) if isinstance(schema, dict) else found


def _refusal(fields: list[tuple[str, Any, Any]]) -> str:
    """Return which parameter cannot be read from JSON, and why."""
    for name, hint, _ in fields:
        try:
            pydantic.TypeAdapter(hint).json_schema(schema_generator=_JsonSchema)
        except (pydantic.errors.PydanticUserError, TypeError) as error:
            return f"parameter {name}: {_reason(error)}"
    return ""


def _reason(error: Exception) -> str:
    """Return the part of a refusal that is about the type; both libraries surround it with advice about themselves."""
    lines = str(error).splitlines()
    return lines[-1] if isinstance(error, TypeError) else lines[0].split(". Set ")[0]


def problems(error: pydantic.ValidationError) -> str:
    """Return in words for the model what is wrong with its arguments."""
    found = error.errors(include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return f"the arguments are not valid JSON: {found[0]['msg']}"
    told = "; ".join(_problem(detail) for detail in found[:PROBLEMS_TOLD])
    more = len(found) - PROBLEMS_TOLD
    return f"the arguments do not fit: {told}" + (f"; and {more} more" if more > 0 else "")


def _problem(detail: ErrorDetails) -> str:
    kind, place = detail["type"], detail["loc"]
    match kind:
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"Object missing required field `{place[-1]}`{_at(place[:-1])}"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"Object contains unknown field `{place[-1]}`{_at(place[:-1])}"
        case _ if kind in _EXPECTED:
            given = _JSON_TYPES.get(type(detail["input"]), type(detail["input"]).__name__)
            return f"Expected `{_EXPECTED[kind]}`, got `{given}`{_at(place)}"
        case _:
            return f"{detail['msg']}{_at(place)}"


def _at(place: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f" - at `${''.join(parts)}`" if place else ""


def description(function: Callable[..., Any]) -> str:
    """Return what the model reads about a function: its docstring, unindented."""
    return inspect.getdoc(function) or ""
