"""What somebody wants of their todo list, read from plain words; no model is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from worker.agent.todo import TodoItem, TodoStatus

_BOX = {
    TodoStatus.PENDING: "[ ]",
    TodoStatus.IN_PROGRESS: "[~]",
    TodoStatus.COMPLETED: "[x]",
    TodoStatus.CANCELLED: "[-]",
}
_LIST_NAME = r"(?:(?:my|the|our|all|whole)\s+)*(?:to-?do\s+list|list|to-?dos?|tasks?)"
_ADD = re.compile(
    rf"(?:please\s+)?(?:add|to-?do:|remember\s+to|remind\s+me\s+to)\s*:?\s+"
    rf"(?P<what>.+?)(?:\s+(?:to|on|onto)\s+{_LIST_NAME})?\s*[.!]*",
    re.IGNORECASE,
)
_DONE = re.compile(
    r"(?:i\s+(?:am\s+|have\s+)?)?(?:done|finished|finish|completed|complete|check\s+off|tick\s+off)"
    r"(?:\s+with)?\s*:?\s+(?P<what>.+?)\s*[.!]*|"
    r"mark\s+(?P<marked>.+?)\s+(?:as\s+)?(?:done|finished|complete|completed)\s*[.!]*|"
    r"(?P<number>#?\d+)\s+(?:is\s+)?done\s*[.!]*",
    re.IGNORECASE,
)
_REMOVE = re.compile(
    rf"(?:please\s+)?(?:remove|delete)\s*:?\s+(?P<what>.+?)(?:\s+(?:from|off)\s+{_LIST_NAME})?\s*[.!]*",
    re.IGNORECASE,
)
_CLEAR = re.compile(
    rf"(?:please\s+)?(?:clear(?:\s+(?:all|everything|it))?|(?:clear|empty|reset)\s+{_LIST_NAME})\s*[.!]*", re.IGNORECASE
)
_LIST = re.compile(
    rf"(?:please\s+)?(?:(?:show|read|give|tell|list)(?:\s+me)?\s+)?{_LIST_NAME}\s*[?.!]*|"
    rf"(?:what(?:'s|\s+is)|anything)\s+(?:still\s+)?(?:left|open|next|on\s+{_LIST_NAME})(?:\s+to\s+do)?\s*[?.!]*|"
    r"what\s+(?:else\s+)?(?:do\s+i\s+have|is\s+there)(?:\s+left)?\s+to\s+do\s*[?.!]*",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"(?:(?:and|,|#|no\.?|numbers?|items?)?\s*\d+\s*)+", re.IGNORECASE)
_WISHES = (("clear", _CLEAR), ("list", _LIST), ("add", _ADD), ("done", _DONE), ("remove", _REMOVE))

LONGEST_WISH_CHARACTERS = 500


class OfflineCommand(msgspec.Struct, frozen=True):
    """One wish: ``kind`` is add, done, remove, clear or list; ``what`` the words or numbers it is about."""

    kind: str
    what: str = ""


class Change(msgspec.Struct, frozen=True):
    """What a wish comes to: the arguments of the todo call (None for no change), and the words to say first."""

    arguments: dict[str, object] | None
    words: str


def read_command(text: str) -> OfflineCommand | None:
    """Return what the text wishes for, None if it is not about the list."""
    words = " ".join(text.split())
    if not words or len(words) > LONGEST_WISH_CHARACTERS:
        return None
    for kind, pattern in _WISHES:
        found = pattern.fullmatch(words)
        if found is not None:
            return OfflineCommand(kind, next((words for words in found.groupdict().values() if words), ""))
    return None


def apply(wish: OfflineCommand, items: Sequence[TodoItem]) -> Change:
    """Return how the wish changes the list."""
    match wish.kind:
        case "add":
            return Change({"todos": [_fields(_next_id(items), wish.what)], "merge": True}, f"Added “{wish.what}”.")
        case "clear":
            return Change({"todos": [], "merge": False}, "Cleared the list.")
        case "list":
            return Change(None, "")
    found = find(wish.what, items, open_first=wish.kind == "done")
    if not found:
        return Change(None, f"I find no “{wish.what}” on the list.")
    names = ", ".join(f"“{item.content}”" for item in found)
    if wish.kind == "done":
        done = [_fields(item.id, item.content, TodoStatus.COMPLETED) for item in found]
        return Change({"todos": done, "merge": True}, f"Done: {names}.")
    rest = [_fields(item.id, item.content, item.status) for item in items if item not in found]
    return Change({"todos": rest, "merge": False}, f"Removed {names}.")


def find(what: str, items: Sequence[TodoItem], *, open_first: bool) -> list[TodoItem]:
    """Return the items meant: by their numbers, else the one whose words these are, else the first that holds them."""
    if _NUMBERS.fullmatch(what):
        numbers = {int(digits) for digits in re.findall(r"\d{1,9}", what)}
        return [item for number, item in enumerate(items, 1) if number in numbers]
    closed = {TodoStatus.COMPLETED, TodoStatus.CANCELLED}
    ordered = sorted(items, key=lambda item: item.status in closed) if open_first else list(items)
    sought = re.sub(r"^(?:the|my)\s+", "", what, flags=re.IGNORECASE).strip(" “”\"'").casefold()
    exact = [item for item in ordered if item.content.casefold() == sought]
    return (exact or [item for item in ordered if sought and sought in item.content.casefold()])[:1]


def numbered(items: Sequence[TodoItem]) -> str:
    """Return the list for people: ``1. [ ] buy milk``, an item a line."""
    if not items:
        return "The list is empty."
    return "\n".join(f"{number}. {_BOX[item.status]} {item.content}" for number, item in enumerate(items, 1))


def _next_id(items: Sequence[TodoItem]) -> str:
    return str(max((int(item.id) for item in items if re.fullmatch(r"[0-9]{1,9}", item.id)), default=0) + 1)


def _fields(id_: str, content: str, status: TodoStatus = TodoStatus.PENDING) -> dict[str, str]:
    return {"id": id_, "content": content, "status": status.value}
