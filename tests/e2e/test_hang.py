"""A hang costs nobody but itself."""

from __future__ import annotations

import time

import pytest

from tests.e2e.bot import Bot, processes_named


def test_six_hung_turns_leave_the_next_healthy_request_as_fast_as_before(model_bot: Bot) -> None:
    before_s = model_bot.seconds_to_reply("warm", "hello")
    for number in range(6):
        assert model_bot.say(f"hung{number}", "[[stall]]").status_code == 200
    model_bot.wait_for_model_calls(7)
    after_s = min(model_bot.seconds_to_reply(f"healthy{number}", "hello") for number in range(3))
    assert after_s < before_s + 1

    asked = time.monotonic()
    assert model_bot.gateway.terminate(within_s=25) == 0
    assert time.monotonic() - asked < 25


def in_stack(bot: Bot, function: str) -> bool:
    """Tell whether a stack in the log shows this function of the hostile tools."""
    stacks = [line["stacks"] for line in bot.gateway.events("worker_stacks")]
    stacks += [line["stack"] for line in bot.gateway.events("tool_leaked")]
    return any("hostile_tools.py" in stack and f" in {function}\n" in f"{stack}\n" for stack in stacks)


def grandchildren(bot: Bot) -> list[int]:
    """Return the programs that the hostile tools started, in whichever worker they ran."""
    workers = [line["pid"] for line in bot.gateway.events("worker_ready")]
    return [pid for worker in workers for pid in processes_named("sleep", f"987654.{worker}")]


@pytest.mark.parametrize("hang", ["sleep_in_a_thread", "block_the_loop", "hold_the_gil"])
def test_a_hung_tool_ends_its_sender_is_told_and_its_neighbours_answer(hanging_bot: Bot, hang: str) -> None:
    for number in range(4):
        assert hanging_bot.say(f"neighbour{number}", f"[[sleep 2]] number {number}").status_code == 200
    assert hanging_bot.say("culprit", f"[[tool {hang} {{}}]]").status_code == 200
    hanging_bot.wait_until(lambda: bool(grandchildren(hanging_bot)), 20, "the tool runs")
    hanging_bot.wait_for_replies(5, within_s=60)
    for number in range(4):
        (reply,) = hanging_bot.replies(f"neighbour{number}")
        assert (reply.status, f"number {number}" in reply.text) == ("replied", True)
    (told,) = hanging_bot.replies("culprit")
    assert told.status == "failed"
    hanging_bot.wait_until(lambda: in_stack(hanging_bot, hang), 10, "the stack of the hung call is in the log")
    hanging_bot.wait_until(lambda: not grandchildren(hanging_bot), 20, "no grandchild remains")


def test_a_message_that_kills_its_worker_becomes_a_dead_letter_and_its_sender_is_told(hanging_bot: Bot) -> None:
    accepted = hanging_bot.say("poison", "[[tool die {}]]")
    hanging_bot.wait_for_replies(1, within_s=60)
    (told,) = hanging_bot.replies("poison")
    assert told.status == "failed"
    (letter,) = hanging_bot.gateway.get("/v1/dead")["dead"]
    assert letter["id"] == accepted.headers["x-gatehouse-message"]
    assert letter["attempts"] == 2
