"""What the platform and the gateways' API say about a round: whether it has come to its end, and what it left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self
from urllib.parse import quote

import httpx2
import msgspec

from loadtests.crash.doors import Door, conversation, session_key
from loadtests.crash.evidence import Evidence, Heard, TranscriptMessage
from loadtests.crash.notes import Note, Notebook
from loadtests.crash.plan import Boundary, Round, Saying
from loadtests.crash.traffic import Traffic
from loadtests.platform import API_KEY, RunningPlatform


class Inspection:
    """Asks the platform, and whichever gateway answers of those that ``urls`` names."""

    def __init__(self, platform: RunningPlatform, notebook: Notebook, urls: Callable[[], Sequence[str]]) -> None:
        self._platform = platform
        self._notebook = notebook
        self._urls = urls
        self._client = httpx2.Client(timeout=10, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def all_is_closed(self, plan: Round, traffic: Traffic) -> bool:
        """Tell whether every message has its reply, recorded as sent, and whether all that was said meanwhile ended."""
        names = [saying.name for saying in plan.sayings]
        asides = [saying.aside_name for saying in plan.sayings if saying.aside]
        if any(not traffic.answered_ids.get(name) for name in (*names, *asides)):
            return False
        ids = {message for name in names for message in traffic.answered_ids[name]}
        aside_ids = {message for name in asides for message in traffic.answered_ids[name]}
        return all(map(self.has_ended, aside_ids)) and all(map(self._is_closed, ids))

    def has_ended(self, message: str) -> bool:
        """Tell whether a message waits no more."""
        trace = self._trace(message)
        return bool(trace) and trace["state"] != "waiting"

    def _is_closed(self, message: str) -> bool:
        trace = self._trace(message)
        if not trace or trace["state"] == "waiting":
            return False
        return bool(trace["replies"]) and all(reply["state"] == "sent" for reply in trace["replies"])

    def _trace(self, message: str) -> dict[str, Any]:
        """Return where a message is; empty if nobody can say now."""
        try:
            trace: dict[str, Any] = self._get(f"/v1/messages/{message}")
        except (httpx2.HTTPError, AssertionError):
            return {}
        return trace

    def evidence(self, plan: Round, traffic: Traffic, offset: int) -> Evidence:
        """Return what a round left, whose notes begin at this byte of the notebook."""
        notes = self._notebook.read(offset)
        heard = [reply for talk in plan.talks for reply in self._heard(talk, traffic, notes)]
        shown = {talk[0].session: self._session(talk[0]) for talk in plan.talks}
        dead = {letter["id"] for letter in self._get("/v1/dead")["dead"]}
        return Evidence(
            plan,
            notes,
            heard,
            dict(traffic.answered_ids),
            dict(traffic.statuses),
            dead,
            {
                session: msgspec.convert([*rows["earlier"], *rows["messages"]], list[TranscriptMessage])
                for session, rows in shown.items()
            },
            todos={session: tuple(todo["content"] for todo in rows["todos"] or ()) for session, rows in shown.items()},
            used={session: rows["usage"]["output_tokens"] for session, rows in shown.items()},
            held=sum(budget["held"] for budget in self._get("/v1/budgets")["budgets"]),
        )

    def _heard(self, talk: tuple[Saying, ...], traffic: Traffic, notes: list[Note]) -> list[Heard]:
        """Return the replies of a session as its platform took them, in their order."""
        door, session = talk[0].door, talk[0].session
        if door is Door.API:
            return [reply for reply in traffic.heard if reply.session == session]
        received = self._platform.received(door.value, conversation(door, session))
        if door is Door.STANDARD:
            return [msgspec.convert(reply.body | {"key": reply.key}, Heard) for reply in received]
        # these name no message: their texts were sent in the order of their keys, and each text names its message
        texts = [reply.text for reply in received if f"{session}m" in reply.text]
        ids = {message for saying in talk for message in traffic.answered_ids.get(saying.name, ())}
        sends = (key for note in notes if note.boundary is Boundary.SEND for key in note.keys)
        keys = list(dict.fromkeys(key for key in sends if key.rpartition(".")[0] in ids))
        key_of = dict(zip(dict.fromkeys(texts), keys, strict=False))
        return [Heard(session, "", text, "replied", key_of.get(text, text)) for text in texts]

    def _session(self, saying: Saying) -> dict[str, Any]:
        key = quote(session_key(saying.door, saying.session), safe="")
        try:
            shown: dict[str, Any] = self._get(f"/v1/sessions/{key}?earlier=1")
        except httpx2.HTTPStatusError:  # none of its messages was taken
            shown = {"earlier": [], "messages": [], "todos": [], "usage": {"output_tokens": 0}}
        return shown

    def _get(self, path: str) -> Any:
        """Ask each gateway until one answers."""
        problem: httpx2.HTTPError | None = None
        for url in self._urls():
            try:
                answer = self._client.get(url + path, headers={"Authorization": f"Bearer {API_KEY}"})
                answer.raise_for_status()
            except httpx2.HTTPError as error:
                problem = error
            else:
                return answer.json()
        raise problem or httpx2.ConnectError("no gateway listens")
