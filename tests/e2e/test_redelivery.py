"""The same signed request again: one turn, one reply."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.e2e.bot import Bot


def test_five_deliveries_at_once_and_one_after_a_restart_start_one_turn(bot: Bot) -> None:
    request = bot.request("twice", "hello there", message="msg_same")
    with ThreadPoolExecutor(5) as senders:
        answers = list(senders.map(lambda _: bot.post(request), range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-gatehouse-message"] for answer in answers}) == 1
    bot.wait_for_replies(1)

    assert bot.gateway.terminate() == 0
    bot.gateway.start()
    again = bot.post(request)
    assert again.status_code == 200
    assert again.headers["x-gatehouse-message"] == answers[0].headers["x-gatehouse-message"]

    assert bot.say("twice", "and now something else").status_code == 200
    bot.wait_for_replies(2)
    assert ["hello there" in reply.text for reply in bot.replies("twice")] == [True, False]
