"""The answers of the API as structs, for its description: what each route's JSON holds."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.call_history import MessagePart
from shared.approvals import Question
from shared.traces import AuditEntry, CallTrace, DeadLetter, ReplyTrace, SessionSummary, UnansweredMessage


class ErrorDetail(msgspec.Struct, frozen=True):
    """What is wrong."""

    message: str  #: in words
    type: str
    param: str | None  #: the field that is wrong
    code: str | None


class Error(msgspec.Struct, frozen=True):
    """Every error, in the form that OpenAI's clients read."""

    error: ErrorDetail


class Function(msgspec.Struct, frozen=True):
    """The function that the client is to run; ``arguments`` is JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a client's tool."""

    id: str
    type: str
    function: Function


class AnswerMessage(msgspec.Struct, frozen=True):
    """The assistant's message."""

    role: str
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCall] = []


class Choice(msgspec.Struct, frozen=True):
    """The one answer; ``finish_reason`` is stop, length, tool_calls or content_filter."""

    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: None


class CompletionUsage(msgspec.Struct, frozen=True):
    """What a call used, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class ChatCompletion(msgspec.Struct, frozen=True):
    """An answer of chat completions."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage


class ResponseObject(msgspec.Struct, frozen=True):
    """A response; its ``output`` items are messages and function calls."""

    id: str
    object: str
    created_at: int
    status: str
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
    error: dict[str, Any] | None


class ResponseDeleted(msgspec.Struct, frozen=True):
    """A response that is there no longer."""

    id: str
    object: str
    deleted: bool


class InputItemList(msgspec.Struct, frozen=True):
    """A page of items: messages, calls of tools, and their results."""

    object: str
    data: list[dict[str, Any]]
    has_more: bool
    first_id: str | None
    last_id: str | None


class ModelEntry(msgspec.Struct, frozen=True):
    """A model."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelList(msgspec.Struct, frozen=True):
    """The models that a client may name."""

    object: str
    data: list[ModelEntry]


class SessionList(msgspec.Struct, frozen=True):
    """A page of sessions; ``next`` is what ``?after=`` takes for the page behind it."""

    sessions: list[SessionSummary]
    next: str | None


class SessionShown(SessionSummary, frozen=True, kw_only=True, omit_defaults=False):
    """One session."""

    messages: list[dict[str, Any]]  #: of the transcript, in the form of chat completions
    todos: list[dict[str, Any]]
    turn: dict[str, Any] | None  #: the running turn
    pending: list[UnansweredMessage]  #: messages that wait or are in their turn
    usage: dict[str, Any]  #: what the session has used in its life
    question: Question | msgspec.UnsetType = msgspec.UNSET  #: what its sender is asked about tool calls now
    earlier: list[dict[str, Any]] = msgspec.field(
        default_factory=list
    )  #: what was said before its present conversation
    #: when each of the messages was kept, unix seconds; 0 where nobody knows
    times: list[float] = msgspec.field(default_factory=list)


class SessionInterrupted(msgspec.Struct, frozen=True):
    """Whether there was a turn to stop."""

    session: str
    interrupted: bool


class SessionDeleted(msgspec.Struct, frozen=True):
    """The session is gone."""

    session: str
    deleted: bool


class MessageShown(msgspec.Struct, frozen=True):
    """Where one message is; times are unix seconds, null until it happened."""

    id: str
    session: str
    platform: str
    user: str
    state: str
    attempts: int
    suspect: bool
    worker: str
    error: str
    accepted_at: float
    claimed_at: float | None
    settled_at: float | None
    running: bool
    usage: dict[str, Any]
    replies: list[ReplyTrace]
    steps: int
    calls: list[CallTrace]
    joined: str
    text: str  #: what its sender wrote, its first 2,000 characters
    stacks: str  #: of a dead letter: every thread's stack when its last worker was killed
    said: str  #: what a running tool told last of how far it is
    title: str  #: what people call its session, empty where nobody knows
    timeline: list[MessagePart]  #: model calls, tool calls and lost attempts that this gateway remembers


class BudgetList(msgspec.Struct, frozen=True):
    """Every budget with who has spent most of it."""

    budgets: list[dict[str, Any]]


class WorkerTable(msgspec.Struct, frozen=True):
    """The workers."""

    workers: list[dict[str, Any]]
    spares: int
    restarts: int
    mcp: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET  #: servers that all workers share
    hosts: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


class WorkerKilled(msgspec.Struct, frozen=True):
    """The worker is killed; its turns resume in another."""

    n: int
    killed: bool
    host: str | msgspec.UnsetType = msgspec.UNSET


class WorkerRecycled(msgspec.Struct, frozen=True):
    """The worker's slot is another's; it ends once its turns are parked."""

    n: int
    recycled: bool


class Pairing(msgspec.Struct, frozen=True):
    """A stranger who waits to be let in."""

    sender: str
    code: str


class PairingList(msgspec.Struct, frozen=True):
    """The pairing codes that wait to be approved."""

    pairings: list[Pairing]
    approved: list[str]  #: senders that were let in by one


class PairingApproved(msgspec.Struct, frozen=True):
    """Whether the sender may talk from now on."""

    sender: str
    approved: bool


class KeyEntry(msgspec.Struct, frozen=True):
    """A key, without its secret."""

    name: str
    role: str
    created_at: float  #: unix seconds, 0 where that is not known


class KeyList(msgspec.Struct, frozen=True):
    """Who holds a key."""

    keys: list[KeyEntry]


class TurnList(msgspec.Struct, frozen=True):
    """The turns that run or wait for a slot, those that have run longest first."""

    turns: list[dict[str, Any]]
    #: what people call their sessions, by their keys, where that is known
    titles: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class HangList(msgspec.Struct, frozen=True):
    """Workers that were killed for a hang, latest first."""

    hangs: list[dict[str, Any]]


class DeadList(msgspec.Struct, frozen=True):
    """Dead letters, newest first."""

    dead: list[DeadLetter]
    #: what people call their sessions, by their keys, where that is known
    titles: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    next: str | msgspec.UnsetType = msgspec.UNSET  #: where there are more: the ``after`` of the next page
    total: int | msgspec.UnsetType = msgspec.UNSET  #: where there are more, how many; not with q, platform or older


class DeadChanged(msgspec.Struct, frozen=True):
    """What became of a dead letter."""

    id: str
    state: str


class DeadChangedAll(msgspec.Struct, frozen=True):
    """What became of the dead letters that fit."""

    state: str
    count: int
    ids: list[str]


class AuditList(msgspec.Struct, frozen=True):
    """What operators did and what was refused, newest first."""

    audit: list[AuditEntry]


class LoadList(msgspec.Struct, frozen=True):
    """Samples of the load in the last hour, oldest first."""

    every_s: float
    samples: list[dict[str, Any]]


class LoginFacts(msgspec.Struct, frozen=True):
    """Whether a key is needed, and whose key this browser has shown."""

    key_needed: bool
    signed_in: dict[str, str] | None


class SignedIn(msgspec.Struct, frozen=True):
    """Whose key was shown."""

    name: str
    role: str


class SignedOut(msgspec.Struct, frozen=True):
    """Nobody is signed in any more."""

    signed_in: None
