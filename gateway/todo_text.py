"""A todo list in words, for chat."""

from __future__ import annotations

import msgspec

from shared.texts import ENGLISH, Texts

MARKS = {"pending": "☐", "in_progress": "▶", "completed": "☑", "cancelled": "✗"}


class Item(msgspec.Struct, frozen=True):
    """What is shown of one item."""

    content: str = ""
    status: str = "pending"


def todo_text(todo: bytes | None, texts: Texts = ENGLISH) -> str:
    """Return a todo list (JSON array, None if there is none) as text, an item a line."""
    items = msgspec.json.decode(todo, type=list[Item]) if todo else []
    if not items:
        return texts.todo_none
    done = sum(item.status == "completed" for item in items)
    lines = [f"{MARKS.get(item.status, '☐')} {' '.join(item.content.split())}" for item in items]
    return "\n".join([texts.todo_list.format(done=done, count=len(items)), *lines])
