"""The text of an answer while it comes: characters that were cut in two joined, thoughts in tags left out."""

from __future__ import annotations

from collections.abc import Callable

from shared.loose_json import mend_surrogates
from worker.agent.models.port import CallWatch
from worker.agent.models.tool_calls import PartialCall
from worker.agent.models.written_calls import CALLS_IN_TEXT, OPENINGS, WrittenCalls

#: how models without a reasoning field set their thoughts apart, with what ends each (DeepSeek R1 and Qwen, Gemini's
#: OpenAI door, Magistral)
THOUGHT_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "[THINK]": "[/THINK]",
    "<|channel|>analysis<|message|>": "<|end|>",  # gpt-oss, where its server does not read its channels
}
#: what gpt-oss sets before the words that are to be seen
CHANNEL_HEADS = (
    "<|start|>assistant<|channel|>final<|message|>",
    "<|start|>assistant<|channel|>commentary<|message|>",
    "<|channel|>final<|message|>",
    "<|channel|>commentary<|message|>",
)
#: the end of an answer, as some servers pass it on
END_TOKENS = (
    "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|return|>", "<|end|>", "<|eom_id|>",
    "<end_of_turn>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
_CHANNEL_END, _CHANNEL = "<|end|>", "<|start|>"
_FENCE = "```"
_BLANKS = " \t\r\n"


class AnswerText:
    """Collects an answer's text and tells ``on_text`` what of it is to be seen, as soon as that is sure.

    Thoughts count only where their tag begins a line outside a code block, so that an answer may speak of the tags.
    ``characters`` counts all that came. With ``written`` what looks like calls in the text is held back, and is in
    ``calls`` in place of the text where it is some.
    """

    def __init__(
        self, on_text: Callable[[str], None] | None, watch: CallWatch, written: WrittenCalls | None = None
    ) -> None:
        self.characters = 0
        self.calls: list[PartialCall] = []
        self._written = written
        self._openings = OPENINGS if written else ()
        self._tags = (*THOUGHT_TAGS, *CHANNEL_HEADS, *self._openings, _FENCE)
        self._in_calls = False
        self._tail = ""
        self._on_text = on_text
        self._watch = watch
        self._seen: list[str] = []
        self._held = ""
        self._closing = ""
        self._half = ""
        self._line_begins = True
        self._in_code = False

    def add(self, piece: str) -> None:
        """Take the next piece of text."""
        self.characters += len(piece)
        if self._half or not piece.isascii():
            piece = self._half + piece
            cut = len(piece) - ("\ud800" <= piece[-1:] <= "\udbff")
            piece, self._half = mend_surrogates(piece[:cut]), piece[cut:]
        if self._tail or "<" in piece:
            piece = self._without_tail(self._tail + piece)
        if self._held or self._closing or self._line_begins or "\n" in piece:
            self._held += piece
            self._read()
        elif piece:
            self._show(piece)

    def end(self) -> str:
        """Return the whole text that is to be seen."""
        if self._half:
            self._half = ""
            self.add("\ufffd")
        if self._tail:
            tail, self._tail = self._tail, ""
            self._held += tail if tail not in END_TOKENS else ""
        if self._in_calls and self._written is not None:
            self.calls = [PartialCall(None, "", *written) for written in self._written.read(self._held)]
        if not self._closing and self._held and not self.calls:
            held, self._held = self._held, ""
            self._show(held)
        text = "".join(self._seen)
        answer = _behind_thoughts(text)
        if answer != text:  # they began with the prompt, so nothing told them from an answer until now
            self._watch.restarted()
            self._seen = []
            if answer:
                self._show(answer)
        return answer

    @property
    def oddities(self) -> list[str]:
        """What came in another place than it should."""
        return [CALLS_IN_TEXT] if self.calls else []

    def _without_tail(self, piece: str) -> str:
        """Keep back what may be the beginning of an end token, and begin a line where gpt-oss begins a channel."""
        piece = piece.replace(_CHANNEL_END + _CHANNEL, f"{_CHANNEL_END}\n{_CHANNEL}")
        at = piece.rfind(_CHANNEL_END)
        if at < 0 or not _CHANNEL.startswith(piece[at + len(_CHANNEL_END) :]):
            at = piece.rfind("<")
        is_tail = at >= 0 and any(token.startswith(piece[at:]) for token in (*END_TOKENS, _CHANNEL_END + _CHANNEL))
        self._tail = piece[at:] if is_tail else ""
        return piece[:at] if is_tail else piece

    def _read(self) -> None:
        while self._held and not self._in_calls:
            if self._closing:
                thought, tag, behind = self._held.partition(self._closing)
                if not tag:
                    self._held = thought[-len(self._closing) + 1 :]
                    return
                self._held, self._closing, self._line_begins = behind.lstrip(_BLANKS), "", True
            elif self._line_begins:
                if not self._begin_line():
                    return
            else:
                line, newline, self._held = self._held.partition("\n")
                self._line_begins = bool(newline)
                self._show(line.removesuffix(_CHANNEL_END) + newline)

    def _begin_line(self) -> bool:
        """Look at what a line begins with; False while that is not known yet."""
        word = self._held.lstrip(_BLANKS)
        if any(tag.startswith(word) and tag != word for tag in self._tags):
            return False
        if not self._in_code and word.startswith(self._openings):
            self._in_calls = True
            return True
        if not self._in_code and word.startswith(CHANNEL_HEADS):
            self._held = word.partition("<|message|>")[2]
            return True
        tag = next((tag for tag in THOUGHT_TAGS if word.startswith(tag)), "")
        if tag and not self._in_code:
            self._closing, self._held = THOUGHT_TAGS[tag], word[len(tag) :]
            return True
        self._in_code ^= word.startswith(_FENCE)
        blanks = self._held[: len(self._held) - len(word)]
        self._held, self._line_begins = word, False
        if blanks:
            self._show(blanks)
        return True

    def _show(self, text: str) -> None:
        self._seen.append(text)
        if self._on_text is not None:
            self._on_text(text)


def _behind_thoughts(text: str) -> str:
    """Return an answer without the thoughts before a closing tag that nothing opened: the prompt's template had."""
    for closing in THOUGHT_TAGS.values():
        thought, tag, answer = text.partition(closing)
        if tag and _FENCE not in thought and (answer[:1] in {"", "\n"} or thought.endswith("\n")):
            return answer.lstrip(_BLANKS)
    return text
