"""Tool calls that somebody has to allow: asked in the chat, kept over a restart, refused, or nobody answers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.bot import Bot


def ask(bot: Bot, session: str, text: str) -> None:
    before = len(bot.replies(session))
    assert bot.say(session, text).status_code == 200
    bot.wait_until(lambda: len(bot.replies(session)) > before, 20, f"a reply in {session}")


def results(bot: Bot, session: str) -> list[str]:
    messages: list[dict[str, Any]] = bot.gateway.get(f"/v1/sessions/standard:default:{session}")["messages"]
    return [message["content"] for message in messages if message["role"] == "tool"]


def answered(bot: Bot, session: str, text: str, within_s: float = 20) -> None:
    bot.wait_until(lambda: any(text in reply.text for reply in bot.replies(session)), within_s, f"{text!r}")


def test_a_call_is_made_once_when_it_is_allowed_though_the_host_died_meanwhile(model_bot: Bot, tmp_path: Path) -> None:
    paid = tmp_path / "paid"
    note = f'[[tool note {{"path": "{paid}", "line": "noted"}}]]'
    text = f'[[tool pay_out {{"path": "{paid}"}}]] {note} [[then]] [[say done]]'
    ask(model_bot, "ana", text)
    (question,) = model_bot.replies("ana")
    assert "- `pay_out` with" in question.text
    assert "/approve" in question.text
    assert "note" not in question.text.partition("/approve")[0].replace(str(paid), "")
    assert not paid.exists()
    assert [row["turns"] for row in model_bot.gateway.get("/v1/workers")["workers"]].count(1) == 0
    model_bot.gateway.kill_tree()
    model_bot.gateway.start()
    assert len(model_bot.replies("ana")) == 1
    ask(model_bot, "ana", "/approve")
    answered(model_bot, "ana", "done")
    assert sorted(paid.read_text().split()) == ["noted", "paid"]
    assert results(model_bot, "ana") == ["paid", "noted"]
    ask(model_bot, "ana", "/approve")
    assert model_bot.replies("ana")[-1].text == "Nothing waits for your approval here."


def test_a_call_that_is_refused_or_that_nobody_allows_is_not_made_and_the_model_is_told(
    model_bot: Bot, tmp_path: Path
) -> None:
    paid = tmp_path / "paid"
    ask(model_bot, "bob", f'[[tool pay_out {{"path": "{paid}"}}]] [[then]] [[say well]]')
    ask(model_bot, "bob", "/deny")
    answered(model_bot, "bob", "well")
    assert results(model_bot, "bob")[0].startswith("Error: the user refused this call.")
    assert not paid.exists()
    ask(model_bot, "eve", "[[tool pay_soon]] [[then]] [[say late]]")
    answered(model_bot, "eve", "late", 30)
    assert results(model_bot, "eve") == ["Error: nobody allowed this call in time, so it was not made."]


class ApiCall(threading.Thread):
    """One call of the API in a session of its own, in a thread."""

    def __init__(self, bot: Bot, session: str, text: str, *, stream: bool = False) -> None:
        super().__init__(daemon=True)
        self._bot, self._session, self._text, self._stream = bot, session, text, stream
        self.read: list[str] = []
        self.start()

    def run(self) -> None:
        asked = {"model": "gatehouse", "stream": self._stream, "messages": [{"role": "user", "content": self._text}]}
        url = f"{self._bot.gateway.url}/v1/chat/completions"
        headers = self._bot.gateway.headers | {"X-Gatehouse-Session": self._session}
        if not self._stream:
            answer = httpx2.post(url, json=asked, headers=headers, timeout=60).json()
            self.read.append(answer["choices"][0]["message"]["content"])
            return
        with httpx2.stream("POST", url, json=asked, headers=headers, timeout=60) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    self.read.append(json.loads(line[6:])["choices"][0]["delta"].get("content") or "")

    @property
    def text(self) -> str:
        return "".join(self.read)


def test_a_call_of_the_api_shows_the_question_and_the_answer_is_what_comes_of_it(
    model_bot: Bot, tmp_path: Path
) -> None:
    paid = tmp_path / "paid"
    text = f'[[tool pay_out {{"path": "{paid}"}}]] [[then]] [[say paid it]]'
    streamed = ApiCall(model_bot, "streamed", text, stream=True)
    model_bot.wait_until(lambda: "/approve" in streamed.text, 20, "the question is streamed")
    asked = model_bot.gateway.get("/v1/sessions/api:default:streamed")["question"]
    assert "`pay_out`" in asked["text"]
    another = ApiCall(model_bot, "streamed", f"/approve {'0' * 16}")
    another.join(20)
    assert another.text == "This question is answered already, or its time is over."
    approve = ApiCall(model_bot, "streamed", f"/approve {asked['id']}")
    streamed.join(20)
    approve.join(20)
    assert streamed.text.endswith("\n\npaid it")
    assert approve.text == "Approved. I go on."
    assert "question" not in model_bot.gateway.get("/v1/sessions/api:default:streamed")

    whole = ApiCall(model_bot, "whole", text)
    whole.join(20)
    assert "/approve" in whole.text
    model_bot.gateway.kill_tree()
    model_bot.gateway.start()
    assert "`pay_out`" in model_bot.gateway.get("/v1/sessions/api:default:whole")["question"]["text"]
    approve = ApiCall(model_bot, "whole", "/approve")
    approve.join(20)
    assert approve.text == "paid it"
    assert paid.read_text().split() == ["paid", "paid"]

    refused, silent = (
        ApiCall(model_bot, "refused", f'[[tool pay_out {{"path": "{paid}"}}]] [[then]] [[say well]]'),
        ApiCall(model_bot, "silent", "[[tool pay_soon]] [[then]] [[say late]]"),
    )
    refused.join(20)
    silent.join(20)
    assert "/deny" in refused.text
    assert "/deny" in silent.text
    deny = ApiCall(model_bot, "refused", "/deny")
    deny.join(20)
    assert deny.text == "well"
    model_bot.wait_until(lambda: "late" in said(model_bot, "silent"), 20, "the turn that nobody allowed ends")
    assert paid.read_text().split() == ["paid", "paid"]
    late = ApiCall(model_bot, "silent", "/approve")
    late.join(20)
    assert late.text == "Nothing waits for your approval here."


def said(bot: Bot, session: str) -> list[str]:
    messages: list[dict[str, Any]] = bot.gateway.get(f"/v1/sessions/api:default:{session}")["messages"]
    return [message["content"] for message in messages if message["role"] == "assistant"]


def test_a_turn_that_waits_for_a_word_can_be_stopped(model_bot: Bot, tmp_path: Path) -> None:
    ask(model_bot, "joe", f'[[tool pay_out {{"path": "{tmp_path}/paid"}}]]')
    ask(model_bot, "joe", "/stop")
    answered(model_bot, "joe", "Stopped.")
    ask(model_bot, "joe", "hello")
    answered(model_bot, "joe", "echo: hello")
