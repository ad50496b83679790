"""What one call of the API asks for beside its words; it travels with the message to the turn, as it is."""

from __future__ import annotations

from typing import Any

import msgspec


class ClientTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool that the client runs: the model may ask for it, and the call is handed to the client."""

    name: str
    description: str = ""
    #: a JSON schema object
    parameters: dict[str, Any] = {}


class ClientCall(msgspec.Struct, frozen=True):
    """A call of a client's tool, handed to the client."""

    id: str
    name: str
    #: JSON text, as the model wrote it
    arguments: str


class AnswerFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The form the answer has to have: a JSON object, or with a ``schema`` what follows that."""

    #: the schema's name, as the client calls it
    name: str = ""
    #: a JSON schema
    schema: dict[str, Any] | None = None
    #: whether the provider is asked to follow it strictly; None leaves that to it
    strict: bool | None = None

    def as_field(self) -> dict[str, Any]:
        """Return it as the field ``response_format`` of chat completions."""
        if self.schema is None:
            return {"type": "json_object"}
        told = {"name": self.name, "schema": self.schema} | ({} if self.strict is None else {"strict": self.strict})
        return {"type": "json_schema", "json_schema": told}


class CallOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one call asks for."""

    #: the client's tools
    tools: tuple[ClientTool, ...] = ()
    #: the form of the answer, None for plain text
    format: AnswerFormat | None = None
    #: tokens of one answer at most, None for what the model's settings say
    max_tokens: int | None = None
    #: the fields that steer a model, under the names of chat completions (temperature, stop, tool_choice …)
    fields: dict[str, Any] = {}
    #: joins the system prompt for this call alone
    system: str = ""
    #: transcript messages (JSON each) that open the turn where its text alone does not: results of the client's tools,
    #: the beginning of an answer
    opening: tuple[bytes, ...] = ()
    #: tells a repeated request from another one
    fingerprint: str = ""
    #: the request without its input (JSON), for whoever reads the answer later; empty where nobody will
    request: bytes = b""
