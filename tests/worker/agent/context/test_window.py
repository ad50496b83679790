from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.attachments import Attachment
from shared.messages import Summary
from tests.worker.agent.scripted import decoded
from tests.worker.agent.transcripts import PARTS, valid_for_a_provider
from worker.agent.attachments import with_attachments
from worker.agent.context import transcript
from worker.agent.context.prompts import ASKED, LEFT_OUT, LISTED, SUMMARIZED
from worker.agent.context.repair import estimate_tokens, repair, role_of
from worker.agent.context.window import READ, TODO_LIMIT_CHARS, Window, head_text
from worker.tools.spec import ToolCall

MILK = b'[{"id":"1","content":"buy milk","status":"pending"},{"id":"2","content":"call mum","status":"completed"}]'


def talk(count: int, letters: int = 400) -> list[bytes]:
    return [transcript.user(f"{number:0{letters}}") for number in range(count)]


def roles(messages: list[bytes]) -> list[str]:
    return [role_of(message) for message in messages]


def test_images_count_into_the_size_of_a_window() -> None:
    image = Attachment("a.png", "image/png", 3, "d1")
    bare = transcript.user("look")
    shown = with_attachments(bare, (image, msgspec.structs.replace(image, digest="d2")))
    assert Window([shown]).tokens - Window([bare]).tokens > 2 * 1000
    assert Window([shown] * 20 + [bare]).surplus(20_000) > 0


def test_what_fits_is_shown_as_it_is() -> None:
    messages = talk(3)
    window = Window(messages)
    assert window.shown == messages
    assert window.tokens == sum(map(estimate_tokens, messages))
    assert window.surplus(window.tokens) == 0
    window.add(transcript.assistant("yes"))
    assert window.shown == window.messages == [*messages, transcript.assistant("yes")]
    assert Window([]).surplus(1) == 0


@settings(max_examples=300)
@given(PARTS, st.integers(1, 400), st.integers(0, 3))
def test_a_cut_window_is_a_valid_end_of_the_transcript_behind_its_head(
    messages: list[bytes], keep: int, unfinished: int
) -> None:
    window = Window(messages, first=7)
    count = window.surplus(keep, unfinished)
    assert count <= max(0, len(messages) - max(1, unfinished))
    if count == 0:
        return
    window.drop(count, Summary(7 + count, "so far"))
    assert (window.first, window.messages) == (7 + count, messages[count:])
    assert role_of(window.shown[0]) == "user"
    shown = [message for message in window.shown if role_of(message) in {"user", "assistant", "tool", "system"}]
    assert valid_for_a_provider(shown)
    kept = repair(messages[count:])
    assert window.shown[len(window.shown) - len(kept) :] == kept
    again = Window(messages[count:], 7 + count, Summary(7 + count, "so far"))
    assert again.shown == window.shown


@settings(max_examples=200)
@given(PARTS, st.integers(0, 30), st.integers(0, 30))
def test_the_same_summary_shows_the_same_whatever_was_read_with_it(
    messages: list[bytes], covers: int, first: int
) -> None:
    covers = min(covers, len(messages))
    first = min(first, covers)
    summary = Summary(covers, "so far", MILK)
    whole, rest = Window(messages[first:], first, summary), Window(messages[covers:], covers, summary)
    assert whole.shown == rest.shown
    assert (whole.first, whole.messages) == (rest.first, rest.messages) == (covers, messages[covers:])


def test_a_call_and_its_results_are_not_torn_and_the_newest_stay() -> None:
    call = ToolCall("a", "t", "{}")
    step = [transcript.assistant("", [call]), transcript.tool(call, "x" * 4000)]
    assert Window([*talk(2), *step]).surplus(10) == 2
    assert Window([*step, *talk(2)]).surplus(200) == 3
    assert Window([*talk(3), *step]).surplus(1100) == 3
    assert Window([*talk(3), *step]).surplus(1200) == 2
    assert Window(step).surplus(1) == 0


def test_the_unfinished_stay_whatever_they_cost() -> None:
    assert Window(talk(5)).surplus(1, unfinished=3) == 2
    assert Window(talk(5)).surplus(1, unfinished=5) == 0
    assert Window(talk(5)).surplus(1) == 4


def test_a_head_tells_the_summary_the_list_and_what_was_asked() -> None:
    text = head_text(Summary(9, "Ann likes tea.", MILK, "What else?"))
    assert text == (
        f"{SUMMARIZED}\n\nAnn likes tea.\n\n{LISTED}\n\n- id 1, pending: buy milk\n- id 2, completed: call mum\n\n"
        f"{ASKED}\n\nWhat else?"
    )
    assert head_text(Summary(9, "", b"[]")) == head_text(None) == LEFT_OUT


def test_a_long_list_is_told_within_bounds() -> None:
    items = [{"id": str(n), "content": f"{n} " + "x" * 4000, "status": "pending"} for n in range(256)]
    text = head_text(Summary(1, "s", json.dumps(items).encode()))
    assert len(text) < TODO_LIMIT_CHARS + 500
    assert "more, which the todo tool shows" in text


def test_no_two_users_messages_follow_each_other_behind_a_head() -> None:
    summary = Summary(4, "so far")
    shown = Window([transcript.user("hello")], 4, summary).shown
    assert roles(shown) == ["user", "assistant", "user"]
    assert decoded(shown)[1] == {"role": "assistant", "content": READ}
    call = ToolCall("a", "t", "{}")
    step = [transcript.assistant("", [call]), transcript.tool(call, "x")]
    assert roles(Window(step, 4, summary).shown) == ["user", "assistant", "tool"]
    assert roles(Window([], 4, summary).shown) == ["user"]


def test_what_begins_later_without_a_summary_says_so() -> None:
    call = ToolCall("a", "t", "{}")
    shown = Window([transcript.tool(call, "an orphan"), transcript.assistant("so")], 12).shown
    assert decoded(shown) == [{"role": "user", "content": LEFT_OUT}, {"role": "assistant", "content": "so"}]
    new = [transcript.user("a conversation that began anew")]
    assert Window(new, 12).shown == new


def test_system_messages_at_the_beginning_are_told_apart() -> None:
    rules = b'{"role":"system","content":"be kind"}'
    window = Window([rules, rules, *talk(2), rules])
    assert window.opening == (rules, rules)
    window.drop(3, Summary(3, "so far", opening=window.opening))
    assert roles(window.shown) == ["system", "system", "user", "assistant", "user", "system"]
    assert window.opening == (rules, rules)


def test_a_summary_of_more_than_there_is_stands_for_nothing() -> None:
    messages = talk(3)
    assert Window(messages, 0, Summary(4, "of another conversation")).shown == messages


@pytest.mark.parametrize("sound", [True, False])
def test_a_window_knows_whether_it_had_to_be_repaired(sound: bool) -> None:
    call = ToolCall("a", "t", "{}")
    messages = [
        transcript.user("x"),
        transcript.assistant("", [call]),
        *([transcript.tool(call, "y")] if sound else []),
    ]
    window = Window(messages)
    assert window.repaired is sound
    assert window.messages == messages
    assert Window(window.messages, repaired=window.repaired).shown == window.shown
