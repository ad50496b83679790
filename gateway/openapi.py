"""The JSON routes described by OpenAPI 3.1: one table, from which ``/openapi.json`` and docs/api.md are made.

``python -m gateway.openapi`` prints docs/api.md; a test holds it, and the routes of the app, against this table.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import openapi_schemas as answers
from gateway.dead_filter import DeadFilter
from gateway.login import LoginBody
from gateway.openai_api.chat_body import ChatBody
from gateway.openai_api.responses_body import ResponsesBody
from gateway.request_origin import RequestOrigin
from shared.api_keys import Role
from shared.version import VERSION

REF = "#/components/schemas/{name}"
NDJSON = "application/x-ndjson"
STREAM = "text/event-stream"
TEXT = {"type": "string"}
WHOLE = {"type": "integer", "minimum": 0, "maximum": 999_999_999}


INTRODUCTION = """\
# The API

Made from the table in `gateway/openapi.py` by `python -m gateway.openapi > docs/api.md`; a running gateway answers the
same as OpenAPI 3.1 at `/openapi.json`. Keys go as `Authorization: Bearer KEY` or `x-api-key: KEY`; `python -m gateway
key add NAME --role chat|read|admin` makes them. A key of the role chat has sessions of its own; its name is the user
that budgets and metrics count. An error is `{"error": {"message", "type", "param", "code"}}` everywhere. Every answer
under `/v1/` carries `x-request-id`.

A call with `X-Gatehouse-Session` has its history on the server: its last user message counts, or the results of the
client's tools. A request that is sent again with the same `Idempotency-Key`, or as the official clients do it with
`x-stainless-retry-count`, waits for the first one's answer and gets it; another request under that key is a 422. A
stateless call whose client leaves is ended.

A response is kept in a session of its own (or a named one), but with `store: false`. With `previous_response_id` a call
goes on with it, and branches off where later ones do already. With `background: true` it is answered at once; what has
not ended can be cancelled, in the background or not. The last one of a conversation can be deleted. Tools may be
functions, custom ones (a grammar is told to the model, not enforced) and namespaces of both; those that run at OpenAI
(`web_search`, `file_search`, `mcp` …), `conversation`, `prompt`, log probabilities and `starting_after` are refused by
their names, and so are other routes of OpenAI's.
"""


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a query, or a header."""

    name: str
    what: str
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: dict(TEXT))
    place: str = "query"


class Operation(msgspec.Struct, frozen=True):
    """One method of one path."""

    method: str
    path: str
    #: one line: what it does
    summary: str
    #: the struct of its answer, None for one that is no JSON
    answer: Any
    #: the role that a key needs; ``""`` for any key, None where no key is needed
    role: Role | str | None = Role.READ
    #: the struct of its JSON body, None for none
    body: Any = None
    parameters: tuple[Parameter, ...] = ()
    #: media types of its answer beside JSON
    also: tuple[str, ...] = ()


SESSION = Parameter("X-Gatehouse-Session", "the session that the server keeps; without it the call is stateless", {
    "type": "string", "pattern": r"^[!-~]{1,200}$",
}, "header")  # fmt: skip
BUSY = Parameter("X-Gatehouse-When-Busy", "what a message does while its session is busy", {
    "type": "string", "enum": ["enqueue", "interrupt", "steer", "reject"],
}, "header")  # fmt: skip
AGAIN = Parameter("Idempotency-Key", "a request that is sent again with it gets the first one's answer", {
    "type": "string", "pattern": r"^[!-~]{1,255}$",
}, "header")  # fmt: skip
DEAD_MARK = {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]+)?,[0-9]{1,15},[!-+--~]*,"}
LIMIT = Parameter("limit", "entries at most", {"type": "integer", "minimum": 1, "maximum": 1000})

OPERATIONS = (
    Operation("POST", "/v1/chat/completions", "Answer a chat, as OpenAI's API does", answers.ChatCompletion, Role.CHAT,
              ChatBody, (SESSION, BUSY, AGAIN), (STREAM,)),
    Operation("POST", "/v1/responses", "Answer a chat, as OpenAI's Responses API does in its common subset",
              answers.ResponseObject, Role.CHAT, ResponsesBody, (SESSION, BUSY, AGAIN), (STREAM,)),
    Operation("GET", "/v1/responses/{id}", "A stored response as it is now, or its events once more",
              answers.ResponseObject, Role.CHAT, parameters=(Parameter("stream", "true: its events"),), also=(STREAM,)),
    Operation("DELETE", "/v1/responses/{id}", "Remove a response with its words, if no later one goes on with it",
              answers.ResponseDeleted, Role.CHAT),
    Operation("POST", "/v1/responses/{id}/cancel", "End a response that is not over", answers.ResponseObject,
              Role.CHAT),
    Operation("GET", "/v1/responses/{id}/input_items", "What the model was given to answer, a page at a time",
              answers.InputItemList, Role.CHAT, parameters=(
        Parameter("order", "desc (the latest first), or asc", {"type": "string", "enum": ["asc", "desc"]}),
        Parameter("limit", "entries at most", {"type": "integer", "minimum": 1, "maximum": 100}),
        Parameter("after", "the id of the last entry of the page before"),
    )),
    Operation("GET", "/v1/models", "The models that a client may name", answers.ModelList, ""),
    Operation("GET", "/v1/models/{id}", "One model", answers.ModelEntry, ""),
    Operation("GET", "/v1/sessions", "Sessions, latest first, a page at a time", answers.SessionList, parameters=(
        Parameter("q", "what the key holds"), Parameter("platform", "the platform it is held on"),
        Parameter("state", "what it does", {"type": "string", "enum": ["", "running", "waiting"]}), LIMIT,
        Parameter("after", "``next`` of the page before", {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]+)?,"}),
    )),
    Operation("GET", "/v1/sessions/{key}", "One session with its messages, todo list and running turn",
              answers.SessionShown, parameters=(
        Parameter("last", "only so many of the latest messages", WHOLE),
        Parameter("earlier", "1: also what was said before its present conversation"),
        Parameter("times", "1: also when each of the messages was kept"),
    )),
    Operation("DELETE", "/v1/sessions/{key}", "Remove a session with all that was said in it", answers.SessionDeleted,
              Role.ADMIN),
    Operation("GET", "/v1/sessions/{key}/log", "The session's log, a JSON object a line", None, also=(NDJSON,)),
    Operation("POST", "/v1/sessions/{key}/interrupt", "Stop the running turn", answers.SessionInterrupted, Role.ADMIN),
    Operation("GET", "/v1/messages/{id}", "Where is my message: every stage with its time", answers.MessageShown),
    Operation("GET", "/v1/budgets", "Every budget with who has spent most of it", answers.BudgetList),
    Operation("GET", "/v1/workers", "The workers", answers.WorkerTable),
    Operation("POST", "/v1/workers/{worker}/kill", "Kill one worker, n or HOST/n", answers.WorkerKilled, Role.ADMIN),
    Operation("POST", "/v1/workers/{n}/recycle", "Replace one worker", answers.WorkerRecycled, Role.ADMIN),
    Operation("GET", "/v1/turns", "The turns that run or wait for a slot", answers.TurnList),
    Operation("GET", "/v1/hangs", "Workers that were killed for a hang, with their stacks", answers.HangList),
    Operation("GET", "/v1/keys", "Who holds a key, and what it may do", answers.KeyList),
    Operation("GET", "/v1/stats", "Samples of the load in the last hour", answers.LoadList),
    Operation("GET", "/v1/dead", "Dead letters, newest first", answers.DeadList, parameters=(
        Parameter("kind", "what died", {"type": "string", "enum": ["message", "model", "reply"]}),
        Parameter("platform", "of one platform"),
        Parameter("q", "what its words, its session, its sender or its error hold"),
        Parameter("older", "seconds since it died, at the least", {"type": "number", "minimum": 0}), LIMIT,
        Parameter("after", "``next`` of the page before", DEAD_MARK),
    )),
    Operation("POST", "/v1/dead/retry", "Retry every dead letter that fits", answers.DeadChangedAll, Role.ADMIN,
              DeadFilter),
    Operation("POST", "/v1/dead/purge", "Remove every dead letter that fits", answers.DeadChangedAll, Role.ADMIN,
              DeadFilter),
    Operation("POST", "/v1/dead/{id}/retry", "Let a dead letter run again", answers.DeadChanged, Role.ADMIN),
    Operation("DELETE", "/v1/dead/{id}", "Remove a dead letter for good", answers.DeadChanged, Role.ADMIN),
    Operation("GET", "/v1/pairings", "The pairing codes that wait to be approved", answers.PairingList),
    Operation("POST", "/v1/pairings/{code}/approve", "Let the sender of a pairing code in", answers.PairingApproved,
              Role.ADMIN),
    Operation("POST", "/v1/pairings/{sender}/revoke", "Let a sender in no longer", answers.PairingApproved, Role.ADMIN),
    Operation("GET", "/v1/audit", "What operators did and what was refused", answers.AuditList, parameters=(LIMIT,)),
    Operation("POST", "/v1/login", "Show a key once, and get a cookie for it", answers.SignedIn, None, LoginBody),
    Operation("POST", "/v1/logout", "Take the cookie away", answers.SignedOut, None),
    Operation("GET", "/webhooks/", "What a request says of where it comes from", RequestOrigin, None),
    Operation("GET", "/console.json", "Whether a key is needed", answers.LoginFacts, None),
)  # fmt: skip


def document() -> dict[str, Any]:
    """Return the description."""
    structs = {one for operation in OPERATIONS for one in (operation.answer, operation.body) if one is not None}
    _, components = msgspec.json.schema_components([*structs, answers.Error], ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gatehouse",
            "version": VERSION,
            "description": "The gateway between chat platforms and AI agents. Errors have one form everywhere.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def described(operation: Operation) -> dict[str, Any]:
    """Return one operation as OpenAPI has it."""
    content = {kind: {"schema": TEXT} for kind in operation.also}
    if operation.answer is not None:
        content["application/json"] = {"schema": schema_of(operation.answer)}
    error = {"description": "an error", "content": {"application/json": {"schema": schema_of(answers.Error)}}}
    found: dict[str, Any] = {
        "summary": operation.summary,
        "description": needed(operation),
        "operationId": operation_id(operation),
        "parameters": parameters_of(operation),
        "responses": {"200": {"description": "done", "content": content}, "4XX": error, "5XX": error},
        "security": [] if operation.role is None else [{"bearer": []}, {"header": []}, {}],
    }
    if operation.body is not None:
        schema = {"application/json": {"schema": schema_of(operation.body)}}
        found["requestBody"] = {"required": operation.body is not DeadFilter, "content": schema}
    return found


def parameters_of(operation: Operation) -> list[dict[str, Any]]:
    """Return the parameters of an operation, those of its path first."""
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    schemas = {"n": WHOLE}
    named = {"type": "string", "minLength": 1}
    in_path = [{"name": name, "in": "path", "required": True, "schema": schemas.get(name, named)} for name in names]
    return in_path + [
        {"name": one.name, "in": one.place, "description": one.what, "schema": one.schema}
        for one in operation.parameters
    ]


def needed(operation: Operation) -> str:
    """Return in words which key an operation needs."""
    match operation.role:
        case None:
            return "No key is needed."
        case Role.ADMIN | Role.READ | Role.CHAT:
            others = "" if operation.role is Role.ADMIN else " or admin"
            return f"Needs a key of the role {operation.role}{others}, where keys are needed."
        case _:
            return "Needs a key of any role, where keys are needed."


def operation_id(operation: Operation) -> str:
    """Return a name that programs give the operation."""
    words = operation.path.replace("/v1/", "").translate(str.maketrans("/.{}-", "____ ")).replace(" ", "_")
    return f"{operation.method.lower()}_{'_'.join(part for part in words.split('_') if part)}"


def schema_of(struct: type) -> dict[str, str]:
    """Return the reference to a struct's schema."""
    return {"$ref": REF.format(name=struct.__name__)}


def openapi_route() -> Route:
    """Return the route of the description, which holds no data of anybody's."""
    body = msgspec.json.encode(document())  # once: anybody may ask for it

    async def describe(_: Request) -> Response:
        return Response(body, media_type="application/json")

    return Route("/openapi.json", describe)


def markdown() -> str:
    """Return docs/api.md."""
    components = document()["components"]["schemas"]
    lines = [INTRODUCTION]
    for operation in OPERATIONS:
        lines += [f"## {operation.method} {operation.path}", "", f"{operation.summary}. {needed(operation)}", ""]
        lines += [f"- `{one.name}` ({one.place}): {one.what}" for one in operation.parameters]
        if operation.parameters:
            lines.append("")
        for what, struct in (("Body", operation.body), ("Answer", operation.answer)):
            if struct is not None:
                fields = ", ".join(f"`{name}`" for name in components[struct.__name__].get("properties", {}))
                lines += [f"{what} (`{struct.__name__}`): {fields}.", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
