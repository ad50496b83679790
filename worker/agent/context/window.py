"""The window: what a model is shown of a session. A head stands for what is not shown, then comes every message since.

    system messages ── head ── messages, as the transcript has them
                         └── the summary, the todo list at that time, what the user had asked

Between two summaries it only grows at its end, so a provider's prompt cache holds; after a restart or in another worker
the same bytes come out again, for the head is made of the summary alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec

from shared.messages import Summary
from worker.agent.context import transcript
from worker.agent.context.prompts import ASKED, LEFT_OUT, LISTED, SUMMARIZED
from worker.agent.context.repair import estimate_tokens, repair, role_of
from worker.agent.todo import TodoItem

SYSTEM_ROLES = frozenset({"system", "developer"})
TODO_LIMIT_CHARS = 8_000  #: characters of a todo list in a head
ITEM_LIMIT_CHARS = 300  #: characters of one of its items

#: what stands between a head and a user's message, for there are models that take no two in a row
READ = "Understood."


class Window:
    """Messages of a session's transcript from position ``first`` on, and the summary that stands for those before.

    ``shown`` is what a model is given: it begins with a user's message where anything is left out, and every tool call
    in it has its result. ``repaired`` says that the messages are known to be that way.
    """

    def __init__(
        self, messages: Sequence[bytes], first: int = 0, summary: Summary | None = None, *, repaired: bool = False
    ) -> None:
        covered = max(0, summary.covers - first) if summary else 0
        if covered > len(messages):  # it stands for more than there is: nothing can be placed behind it
            summary, covered = None, 0
        self.first = first + covered
        self.messages = list(messages[covered:])
        self.summary = summary
        self.repaired = repaired
        self.shown: list[bytes] = []
        self.tokens = 0
        self._show()

    def add(self, message: bytes) -> None:
        """Add a message that keeps the transcript valid."""
        self.messages.append(message)
        self.shown.append(message)
        self.tokens += estimate_tokens(message)

    @property
    def opening(self) -> tuple[bytes, ...]:
        """The system messages that the transcript begins with: whoever gave them means them to hold to the end."""
        if self.summary is not None:
            return self.summary.opening
        return tuple(itertools.takewhile(lambda message: role_of(message) in SYSTEM_ROLES, self.messages))

    def surplus(self, keep_tokens: int, unfinished: int = 0) -> int:
        """Return how many of the oldest messages are too many for this size.

        A tool call and its results go or stay together; the newest of them, and the last ``unfinished`` messages, stay
        whatever they cost.
        """
        end = len(self.messages)
        for start in self._group_starts():
            keep_tokens -= sum(map(estimate_tokens, self.messages[start:end]))
            if keep_tokens < 0 and end < len(self.messages) and end <= len(self.messages) - unfinished:
                return end
            end = start
        return 0

    def drop(self, count: int, summary: Summary) -> None:
        """Show the summary instead of the oldest messages."""
        del self.messages[:count]
        self.first += count
        self.summary = summary
        self._show()

    def _group_starts(self) -> Iterator[int]:
        """Yield where the groups begin that must not be torn, newest first: an assistant's calls with their results."""
        for place in reversed(range(len(self.messages))):
            if place == 0 or role_of(self.messages[place]) != "tool":
                yield place

    def _show(self) -> None:
        sound = self.messages if self.repaired else repair(self.messages)
        self.repaired = self.repaired or sound == self.messages
        self.shown = [*self._head(sound), *sound]
        self.tokens = sum(map(estimate_tokens, self.shown))

    def _head(self, behind: Sequence[bytes]) -> list[bytes]:
        if self.summary is None and (self.first == 0 or not behind or role_of(behind[0]) == "user"):
            return []
        opening = self.summary.opening if self.summary else ()
        head = [*opening, transcript.user(head_text(self.summary))]
        return [*head, transcript.assistant(READ)] if behind and role_of(behind[0]) == "user" else head


def head_text(summary: Summary | None) -> str:
    """Return what a model reads in place of what is not shown."""
    if summary is None:
        return LEFT_OUT
    parts = [f"{SUMMARIZED}\n\n{summary.text}" if summary.text else LEFT_OUT]
    items = msgspec.json.decode(summary.todo, type=list[TodoItem])
    if items:
        parts.append(f"{LISTED}\n\n{_listed(items)}")
    if summary.asked:
        parts.append(f"{ASKED}\n\n{summary.asked}")
    return "\n\n".join(parts)


def _listed(items: Sequence[TodoItem]) -> str:
    """Return a todo list, an item a line; a very long one is cut, and says so."""
    lines: list[str] = []
    left = TODO_LIMIT_CHARS
    for item in items:
        content = " ".join(item.content.split())
        line = f"- id {item.id}, {item.status.value}: {content[:ITEM_LIMIT_CHARS]}"
        left -= len(line)
        if left < 0:
            lines.append(f"- and {len(items) - len(lines)} more, which the todo tool shows")
            break
        lines.append(line + ("…" if len(content) > ITEM_LIMIT_CHARS else ""))
    return "\n".join(lines)
