"""The text of an answer while it comes: characters that were cut in two joined, thoughts in tags left out."""

from __future__ import annotations

from collections.abc import Callable

from shared.loose_json import mend_surrogates
from worker.agent.models.port import CallWatch

#: how models without a reasoning field set their thoughts apart, with what ends each (DeepSeek R1 and Qwen, Gemini's
#: OpenAI door, Magistral)
THOUGHT_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "[THINK]": "[/THINK]",
}
_FENCE = "```"
_BLANKS = " \t\r\n"


class AnswerText:
    """Collects an answer's text and tells ``on_text`` what of it is to be seen, as soon as that is sure.

    Thoughts count only where their tag begins a line outside a code block, so that an answer may speak of the tags.
    ``characters`` counts all that came.
    """

    def __init__(self, on_text: Callable[[str], None] | None, watch: CallWatch) -> None:
        self.characters = 0
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
        if not self._closing and self._held:
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

    def _read(self) -> None:
        while self._held:
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
                self._show(line + newline)

    def _begin_line(self) -> bool:
        """Look at what a line begins with; False while that is not known yet."""
        word = self._held.lstrip(_BLANKS)
        if any(tag.startswith(word) for tag in (*THOUGHT_TAGS, _FENCE)) and word not in {*THOUGHT_TAGS, _FENCE}:
            return False
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
