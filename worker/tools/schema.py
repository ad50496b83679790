"""Parameters of a tool: the JSON schema made from its function's types, and the arguments checked against them."""

from __future__ import annotations

import copy
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from shared.errors import ToolError
from worker.tools.context import ToolContext


class Parameters:
    """The typed parameters of one function.

    ``schema`` is a JSON schema object. Any type msgspec can decode serves: plain ones, lists, dicts, unions, Literal,
    enums, dataclasses, structs; ``Annotated[int, "what it is"]`` describes one. Raises TypeError for a function
    that cannot be called with named JSON values.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        hints = typing.get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
        self._context = tuple(name for name in signature.parameters if hints.get(name) is ToolContext)
        fields = [_field(given, hints) for given in signature.parameters.values() if given.name not in self._context]
        self._names = tuple(field[0] for field in fields)
        self._struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        self._decoder = msgspec.json.Decoder(self._struct, strict=False)
        self.schema = _schema(self._struct)

    def read(self, arguments: str, context: ToolContext) -> dict[str, Any]:
        """Return the keyword arguments of a call from the model's JSON text. Raises ToolError."""
        try:
            values = self._decoder.decode(arguments.strip() or "{}")
        except msgspec.ValidationError as error:
            raise ToolError(f"the arguments do not fit: {error}") from None
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ToolError(f"the arguments are not valid JSON: {error}") from None
        named = {name: getattr(values, name) for name in self._names}
        return named | dict.fromkeys(self._context, context)


def _field(parameter: inspect.Parameter, hints: dict[str, Any]) -> tuple[str, Any] | tuple[str, Any, Any]:
    if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
        raise TypeError(f"parameter {parameter} cannot be given by name")
    hint = _described(hints.get(parameter.name, Any))
    if parameter.default is parameter.empty:
        return parameter.name, hint
    if parameter.default is None and hint is not Any:
        hint = typing.Optional[hint]  # noqa: UP045 - the hint is a value here, and not every one supports |
    if isinstance(parameter.default, list | dict | set):
        return parameter.name, hint, msgspec.field(default_factory=functools.partial(copy.copy, parameter.default))
    return parameter.name, hint, parameter.default


def _described(hint: Any) -> Any:
    """Turn ``Annotated[T, "text"]`` into what msgspec reads as a description."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint
    kind, *notes = typing.get_args(hint)
    meta = tuple(msgspec.Meta(description=note) if isinstance(note, str) else note for note in notes)
    return functools.reduce(lambda inner, note: typing.Annotated[inner, note], meta, kind)


def _schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    try:
        _, definitions = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    except TypeError as error:  # its last line names the type, the others are about msgspec
        raise TypeError(f"{str(error).splitlines()[-1]} as a parameter") from None
    own: dict[str, Any] = definitions.pop("Arguments")
    own.pop("title", None)
    if definitions:
        own["$defs"] = definitions
    return own


def description(function: Callable[..., Any]) -> str:
    """Return what the model reads about a function: its docstring, unindented."""
    return inspect.getdoc(function) or ""
