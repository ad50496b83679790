"""What a model server and all before it have to stand, whichever it is and whatever wire it speaks."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx2

from tests.e2e.bot import Bot
from tests.real.foreign import ForeignServer, wait_until

TURNS = 10
SESSIONS = 8
AWAY_S = 20.0


def ask(bot: Bot, text: str, session: str = "", **fields: Any) -> dict[str, Any]:
    """Return the whole answer of the chat API."""
    headers = bot.gateway.headers | ({"X-Gatehouse-Session": session} if session else {})
    body = {"model": "gatehouse", "messages": [{"role": "user", "content": text}], **fields}
    answer = httpx2.post(f"{bot.gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def said(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def streamed(bot: Bot, text: str) -> str:
    """Return a streamed answer, put together."""
    body = {"model": "gatehouse", "stream": True, "messages": [{"role": "user", "content": text}]}
    url, pieces = f"{bot.gateway.url}/v1/chat/completions", []
    with httpx2.stream("POST", url, json=body, headers=bot.gateway.headers, timeout=120) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                pieces += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
    return "".join(pieces)


def history(bot: Bot, session: str) -> list[dict[str, Any]]:
    """Return a session's messages."""
    key = next(row["key"] for row in bot.gateway.get("/v1/sessions")["sessions"] if row["key"].endswith(f":{session}"))
    found: list[dict[str, Any]] = bot.gateway.get(f"/v1/sessions/{key}")["messages"]
    return found


def busy_slots(llama: ForeignServer) -> int:
    """Return how many slots of llama.cpp work."""
    return sum(slot["is_processing"] for slot in httpx2.get(f"{llama.url}/slots", timeout=10).json())


def writes(llama: ForeignServer) -> bool:
    """Tell whether llama.cpp is in the middle of an answer."""
    slots = httpx2.get(f"{llama.url}/slots", timeout=10).json()
    return any(token["n_decoded"] > 5 for slot in slots if slot["is_processing"] for token in slot["next_token"])


def ten_turns_of_one_session(bot: Bot) -> None:
    for number in range(TURNS):
        assert said(ask(bot, f"What came in year {number}?", "ten", max_tokens=20)), number
    assert [message["role"] for message in history(bot, "ten")] == ["user", "assistant"] * TURNS


def a_stop_in_mid_stream_frees_the_slot(bot: Bot, llama: ForeignServer) -> None:
    bot.say("stopped", "Tell me a long story.")
    bot.wait_until(lambda: writes(llama), 60, "the server writes")
    bot.say("stopped", "/stop")
    bot.wait_until(lambda: len(bot.replies("stopped")) == 2, 10, "both are answered")
    assert {reply.text.partition(" ")[0] for reply in bot.replies("stopped")} >= {"Stopped."}
    bot.wait_until(lambda: busy_slots(llama) == 0, 5, "the slot is free")


def eight_sessions_at_once_are_all_answered(bot: Bot) -> None:
    sessions = [f"queue-{number}" for number in range(SESSIONS)]
    for session in sessions:
        bot.say(session, "Tell me a story.")
    bot.wait_until(lambda: all(bot.replies(session) for session in sessions), 180, "all are answered")
    assert [bot.replies(session)[0].status for session in sessions] == ["replied"] * SESSIONS


def an_outage_delays_and_loses_nothing(bot: Bot, server: ForeignServer, llama: ForeignServer) -> None:
    """``server`` is killed in mid-stream and comes back; ``llama`` writes what it hands on."""
    bot.say("mid-stream", "Tell me a story.")
    bot.wait_until(lambda: writes(llama), 60, "the server writes")
    server.kill()
    back_at = time.monotonic() + AWAY_S
    bot.say("while-away", "Tell me a story.")
    wait_until(lambda: time.monotonic() > back_at, AWAY_S + 10, "its time away is over")
    assert not bot.replies("while-away")
    server.start()
    sessions = ("mid-stream", "while-away")
    bot.wait_until(lambda: all(bot.replies(session) for session in sessions), 120, "both are answered")
    assert [[reply.status for reply in bot.replies(session)] for session in sessions] == [["replied"]] * 2
    assert bot.gateway.get("/v1/dead")["dead"] == []
