"""Calls that came as text: every family's form, in pieces of every size, and what is no call."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.agent.models.answer_text import AnswerText
from worker.agent.models.port import CallWatch
from worker.agent.models.written_calls import OPENINGS, WrittenCalls
from worker.tools.spec import ToolSpec

FIELDS = {"sides": {"type": "integer"}, "note": {"type": "string"}}
TOOLS = [ToolSpec("roll", "", {"type": "object", "properties": FIELDS}), ToolSpec("now", "", {"type": "object"})]
ROLLED, NOW = ("roll", '{"sides": 6}'), ("now", "{}")

CALLS = {
    "two of Hermes": (
        '<tool_call>\n{"name":"roll","arguments":"{\\"sides\\": 6}"}\n</tool_call>\n'
        '<tool_call>{"name":"now"}</tool_call>',
        [ROLLED, NOW],
    ),
    "typed by their schema": (
        "<tool_call>\n<function=roll>\n<parameter=sides>\n6\n</parameter>\n<parameter=note>\n12\n</parameter>\n</function>",
        [("roll", '{"sides":6,"note":"12"}')],
    ),
    "GLM without arguments": ("<tool_call>now\n</tool_call>", [NOW]),
    "Llama": ('<function=roll>{"sides": 6}</function><|eot_id|>', [ROLLED]),
    "two of Mistral": ('[TOOL_CALLS]roll{"sides": 6}[TOOL_CALLS]now{}', [ROLLED, NOW]),
    "DeepSeek 3.2": (
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="roll">\n<｜DSML｜parameter name="sides" string="false">6'
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        [("roll", '{"sides":6}')],
    ),
    "DeepSeek R1": (
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>roll\n```json\n{"sides": 6}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [ROLLED],
    ),
    "gpt-oss": ('<|start|>assistant to=functions.roll<|channel|>commentary json<|message|>{"sides": 6}', [ROLLED]),
    "Granite": ('<|tool_call|>[{"name": "now", "arguments": {}}]', [NOW]),
}
TEXTS = [
    '<tool_call>{"name":"launch","arguments":{}}</tool_call>',
    '```\n<tool_call>{"name":"now"}</tool_call>\n```',
    'Write <tool_call>{"name":"now"}</tool_call> so.',
    '<tool_call>{"name":"now"}</tool_call>\nand then wait.',
    '<function=roll>{"sides":',
    "<tool_call>",
    "hi <|im_",
    "a < b",
]


def read(text: str, size: int) -> tuple[str, list[tuple[str, str]]]:
    """Return what is seen of a text, and its calls; what was told while it came is the same."""
    heard: list[str] = []
    answer = AnswerText(heard.append, CallWatch(), WrittenCalls(TOOLS))
    for start in range(0, len(text), size):
        answer.add(text[start : start + size])
    seen = answer.end()
    assert "".join(heard) == seen
    return seen, [(call.name, call.arguments) for call in answer.calls]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_are_read_whatever_form_they_have_and_what_is_none_stays_text(size: int) -> None:
    for name, (text, calls) in CALLS.items():
        assert read(text, size) == ("", calls), name
        assert read("Rolling.\n" + text + "<|im_end|>", size) == ("Rolling.\n", calls), name
    for text in TEXTS:
        assert read(text, size) == (text, [])


@given(st.lists(st.sampled_from([*OPENINGS, "roll", "{", "}", '"', "</tool_call>", "\n", " ", "<parameter=a>", "x"])))
def test_whatever_is_made_of_the_marks_a_text_is_lost_only_to_calls(pieces: list[str]) -> None:
    answer = AnswerText(None, CallWatch(), WrittenCalls(TOOLS))
    for piece in pieces:
        answer.add(piece)
    assert answer.end() == "".join(pieces).removesuffix("<|end|>") or answer.calls or "<|channel|>" in "".join(pieces)


def test_a_long_text_full_of_marks_takes_no_time() -> None:
    began = time.monotonic()
    for text in ("<parameter=a>" * 10_000, "<tool_call>" * 10_000, " " * 100_000, "{" * 50_000, "} " * 50_000):
        for opening in ("<function=roll>", "[TOOL_CALLS]roll{", "<tool_call>roll", "<|channel|>commentary to=roll"):
            WrittenCalls(TOOLS).read(opening + text)
    assert time.monotonic() - began < 5
