"""What the platform and the gateways' API say about a round: whether it has come to its end, and what it left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self
from urllib.parse import quote

import httpx2
import msgspec

from loadtests.crash.evidence import Evidence, Heard, TranscriptMessage
from loadtests.crash.notes import Notebook
from loadtests.crash.plan import Round
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
        """Tell whether every message has its reply, recorded as sent."""
        ids = {message for ids in traffic.answered_ids.values() for message in ids}
        replied = {reply.body["message"] for reply in self._platform.received("standard")}
        if len(traffic.answered_ids) < len(plan.sayings) or not ids <= replied:
            return False
        return all(self._is_closed(message) for message in ids)

    def _is_closed(self, message: str) -> bool:
        try:
            trace = self._get(f"/v1/messages/{message}")
        except (httpx2.HTTPError, AssertionError):
            return False
        replies = trace["replies"]
        return trace["state"] != "waiting" and bool(replies) and all(reply["state"] == "sent" for reply in replies)

    def evidence(self, plan: Round, traffic: Traffic, offset: int) -> Evidence:
        """Return what a round left, whose notes begin at this byte of the notebook."""
        heard = [
            msgspec.convert(reply.body | {"key": reply.key}, Heard) for reply in self._platform.received("standard")
        ]
        histories = {talk[0].session: self._history(talk[0].session) for talk in plan.talks}
        dead = {letter["id"] for letter in self._get("/v1/dead")["dead"]}
        return Evidence(
            plan,
            self._notebook.read(offset),
            heard,
            dict(traffic.answered_ids),
            dict(traffic.statuses),
            dead,
            histories,
        )

    def _history(self, session: str) -> list[TranscriptMessage]:
        key = quote(f"standard:default:{session}", safe="")
        return msgspec.convert(self._get(f"/v1/sessions/{key}")["messages"], list[TranscriptMessage])

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
