"""The offline model, run as a turn runs it: its todo calls go to a real todo store."""

from __future__ import annotations

import re
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.messages import Summary
from worker.agent.context import transcript
from worker.agent.context.compaction import summary_request
from worker.agent.context.window import Window
from worker.agent.models.offline import OfflineModel
from worker.agent.models.offline_tools import read_tool_call
from worker.agent.models.port import ModelReply, ModelRequest
from worker.agent.todo import TodoStore
from worker.tools.spec import ToolSpec

TODO = ToolSpec("todo", "Read or write the list.", {"type": "object"})


class Chat:
    """A conversation with the offline model."""

    def __init__(self) -> None:
        self.todo = TodoStore()
        self.messages: list[bytes] = []
        self.model = OfflineModel()
        self.calls = 0

    async def say(self, text: str) -> str:
        self.messages.append(transcript.user(text))
        reply = await self._step()
        while reply.tool_calls:
            reply = await self._step()
        return reply.text

    async def _step(self) -> ModelReply:
        reply = await self.model.call(ModelRequest("", self.messages, (TODO,)))
        self.messages.append(transcript.assistant(reply.text, reply.tool_calls))
        for call in reply.tool_calls:
            self.calls += 1
            assert call.name == "todo"
            self.messages.append(transcript.tool(call, self.todo.call(msgspec.json.decode(call.arguments))))
        return reply


async def test_it_repeats_what_is_said() -> None:
    assert await Chat().say("the weather is nice") == "You said: the weather is nice"


async def test_a_greeting_is_told_what_can_be_done() -> None:
    reply = await Chat().say("Hello there")
    assert reply.startswith("You said: Hello there\n")
    assert "add buy milk" in reply


async def test_a_list_is_kept_from_plain_words() -> None:
    chat = Chat()
    assert await chat.say("add buy milk") == "Added “buy milk”.\n\n1. [ ] buy milk"
    assert chat.calls == 2
    assert (await chat.say("Add milk, eggs to my list")).endswith("1. [ ] buy milk\n2. [ ] milk, eggs")
    assert (await chat.say("remind me to call Ann.")).endswith("\n3. [ ] call Ann")
    assert (await chat.say("done 1")).startswith("Done: “buy milk”.\n\n1. [x] buy milk\n")
    assert (await chat.say("done milk")).endswith("1. [x] buy milk\n2. [x] milk, eggs\n3. [ ] call Ann")
    assert await chat.say("list") == "1. [x] buy milk\n2. [x] milk, eggs\n3. [ ] call Ann"
    assert (await chat.say("remove 1")).endswith("\n\n1. [x] milk, eggs\n2. [ ] call Ann")
    assert (await chat.say("done 1 and 2")).endswith("\n\n1. [x] milk, eggs\n2. [x] call Ann")
    assert (await chat.say("add one more")).endswith("\n3. [ ] one more")
    assert await chat.say("clear") == "Cleared the list.\n\nThe list is empty."
    assert await chat.say("what is left?") == "The list is empty."


async def test_what_is_not_on_the_list_is_said_and_nothing_changes() -> None:
    chat = Chat()
    await chat.say("add buy milk")
    assert await chat.say("done 7") == "I find no “7” on the list.\n\n1. [ ] buy milk"
    assert await chat.say("remove bread") == "I find no “bread” on the list.\n\n1. [ ] buy milk"


@pytest.mark.parametrize(
    "words", ["todo", "list", "Todos?", "show my list", "what's left?", "What is on my todo list?"]
)
async def test_ways_to_ask_for_the_list(words: str) -> None:
    chat = Chat()
    await chat.say("add buy milk")
    assert await chat.say(words) == "1. [ ] buy milk"


@pytest.mark.parametrize(
    "words",
    [
        "add",
        "I did add sugar",
        "everything",
        "it",
        "did you know",
        "check this out",
        "it is done",
        "clearly",
        "x" * 999,
    ],
)
async def test_chat_that_is_not_about_the_list(words: str) -> None:
    chat = Chat()
    assert words in await chat.say(words)
    assert chat.calls == 0


async def test_without_the_tool_it_only_chats() -> None:
    reply = await OfflineModel().call(ModelRequest("", [transcript.user("add buy milk")], ()))
    assert reply.text == "You said: add buy milk"


async def test_messages_sent_together_are_answered_together() -> None:
    messages = [transcript.user("one"), transcript.user("two")]
    assert (await OfflineModel().call(ModelRequest("", messages, ()))).text == "You said: one\ntwo"


async def test_a_tool_that_fails_is_told() -> None:
    messages = [transcript.user("add buy milk")]
    request = ModelRequest("", messages, (TODO,))
    (call,) = (await OfflineModel().call(request)).tool_calls
    messages += [transcript.assistant("", [call]), transcript.tool(call, '{"error": "broken"}')]
    assert "broken" in (await OfflineModel().call(request)).text


async def test_text_is_streamed_in_small_pieces() -> None:
    heard: list[str] = []
    reply = await OfflineModel().call(ModelRequest("", [transcript.user("word " * 20)], ()), heard.append)
    assert "".join(heard) == reply.text
    assert len(heard) > 5
    assert reply.usage.input_tokens > 20
    assert reply.usage.output_tokens > 20


VERBS = st.sampled_from(["add", "done", "remove", "Add:", "finished", "delete", "list", "clear"])


@settings(max_examples=60)
@given(st.lists(st.tuples(VERBS, st.sampled_from(["1", "2", "tea", "milk tea", "3 eggs", ""])), max_size=8))
async def test_any_words_leave_a_list_that_is_shown_as_it_is(said: list[tuple[str, str]]) -> None:
    chat = Chat()
    for verb, what in said:
        calls = chat.calls
        reply = await chat.say(f"{verb} {what}")
        if chat.calls > calls:
            shown = re.findall(r"^\d+\. \[.\] (.*)$", reply, re.MULTILINE)
            assert shown == [item.content for item in chat.todo.items]


def test_a_worker_without_sdks_needs_none() -> None:
    code = (
        "import sys; from worker.agent.models import build_chain; from worker.frames import ModelSpec, WorkerConfig;"
        "build_chain(WorkerConfig((ModelSpec('offline', 'offline'),), ''), print);"
        "sys.exit('anthropic' in sys.modules or 'openai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


async def test_it_summarizes_what_was_said_and_folds_an_earlier_summary_in() -> None:
    model, summary = OfflineModel(), None
    for first in (0, 15):
        said = [transcript.user(f"message {number} " + "x" * 300) for number in range(first, first + 15)]
        window = Window([*said, transcript.user("now")], first, summary)
        reply = await model.call(summary_request(window, 15, 100_000, "a:b:c"))
        summary = Summary(first + 15, reply.text)
    lines = summary.text.splitlines() if summary else []
    assert lines[0] == "The user said, among other things:"
    assert [line.split()[2] for line in lines[1:]] == [str(number) for number in range(10, 30)]
    assert all(len(line) < 130 for line in lines)


async def test_the_head_of_a_window_is_not_what_the_user_said() -> None:
    model, todo = OfflineModel(), TodoStore()
    window = Window([transcript.user("add tea")], 9, Summary(9, "They like tea."))
    reply = await model.call(ModelRequest("", window.shown, (TODO,)))
    (call,) = reply.tool_calls
    step = [transcript.assistant("", [call]), transcript.tool(call, todo.call({}))]
    cut = Window(step, 10, Summary(10, "They like tea.", asked="add tea"))
    reply = await model.call(ModelRequest("", cut.shown, (TODO,)))
    assert "tea" in reply.tool_calls[0].arguments


ROLL = ToolSpec(
    "roll",
    "Roll one die.",
    {"type": "object", "properties": {"sides": {"type": "integer"}}, "required": ["sides"]},
)
TELL = ToolSpec(
    "tell",
    "Tell somebody something.",
    {
        "type": "object",
        "properties": {"who": {"type": "string"}, "what": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "required": ["who"],
    },
)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("roll 6", {"sides": 6}),
        ("Roll sides=6", {"sides": 6}),
        ('roll {"sides": 6}', {"sides": 6}),
        ("roll six", {"sides": "six"}),
        ("roll", None),
        ("roll 6 7", None),
        ('roll {"dice": 6}', None),
        ("roll sides=6 sides=7", None),
        ("tell Ann it's late", {"who": "Ann", "what": "it's late"}),
        ("tell 'Ann Lee' 5", {"who": "Ann Lee", "what": "5"}),
        ("tell Ann", {"who": "Ann"}),
    ],
)
def test_a_tool_is_called_by_its_name_and_words(words: str, arguments: dict[str, object] | None) -> None:
    wanted = read_tool_call(words, [TODO, ROLL, TELL])
    assert wanted is not None
    assert wanted.arguments == arguments


@given(st.text())
def test_any_words_after_a_name_are_a_call_or_a_word_on_how_it_is_called(words: str) -> None:
    for spec in (ROLL, TELL):
        wanted = read_tool_call(f"{spec.name} {words}", [spec])
        assert wanted is None or wanted.arguments is None or set(wanted.arguments) <= {"sides", "who", "what"}
    assert read_tool_call(words, []) is None


async def test_what_a_tool_gave_is_said_and_a_call_that_does_not_fit_is_explained() -> None:
    model = OfflineModel()
    asked = transcript.user("roll 6")
    request = ModelRequest("", [asked], (TODO, ROLL))
    reply = await model.call(request)
    ((called, arguments),) = [(call.name, call.arguments) for call in reply.tool_calls]
    assert (called, arguments) == ("roll", '{"sides":6}')
    seen = [asked, transcript.assistant(reply.text, reply.tool_calls), transcript.tool(reply.tool_calls[0], "4")]
    assert (await model.call(ModelRequest("", seen, (TODO, ROLL)))).text == "roll: 4"
    unfit = await model.call(ModelRequest("", [transcript.user("roll")], (ROLL,)))
    assert unfit.text == "That is not how roll is called. Try: roll SIDES"
