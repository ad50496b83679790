"""What a round left to be judged: by the platform, the people, the notebook and the gateway itself."""

from __future__ import annotations

import msgspec

from loadtests.crash.notes import Note
from loadtests.crash.plan import Round


class CallId(msgspec.Struct, frozen=True):
    id: str


class TranscriptMessage(msgspec.Struct, frozen=True):
    """One message of a session's history, as the API shows it."""

    role: str
    content: str | None = None
    tool_calls: tuple[CallId, ...] = ()
    tool_call_id: str = ""


class Heard(msgspec.Struct, frozen=True):
    """One reply as the platform took it, in the order of its session; ``key`` is its idempotency key.

    ``message`` is empty where the platform is not told it.
    """

    session: str
    message: str
    text: str
    status: str
    key: str


class Evidence(msgspec.Struct, frozen=True):
    """All there is; ``answered_ids`` are the ids that webhooks were answered with, by saying, and by aside.

    ``deaths`` counts the ends of gateways; ``in_time`` tells whether the round came to its end before its deadline.
    ``recovery_s`` is the time from the last kill to that end, ``strays`` counts processes that dead gateways have left.
    """

    plan: Round
    notes: list[Note]
    heard: list[Heard]
    answered_ids: dict[str, set[str]]
    statuses: dict[int, int]
    dead: set[str]
    histories: dict[str, list[TranscriptMessage]]
    seconds: float = 0.0
    recovery_s: float = 0.0
    #: how much of it went by until a gateway listened again
    start_s: float = 0.0
    strays: int = 0
    model_calls: int = 0
    deaths: int = 0
    in_time: bool = True
    #: what the todo list of each session says, and how many tokens its answers took, in all its attempts
    todos: dict[str, tuple[str, ...]] = {}
    used: dict[str, int] = {}
    #: what turns hold of the budgets still, in tokens
    held: int = 0
    #: what is wrong with the files beside the database: copies that are not whole, lines of a log that are not there
    broken_files: tuple[str, ...] = ()
