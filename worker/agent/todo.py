"""The todo list of a session: its items, the tool that reads and writes it, and reading it back from a transcript."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

CONTENT_LIMIT = 4_000  #: characters of an item's content
ITEM_LIMIT = 256  #: items of a list
ID_LIMIT = 200  #: characters of an item's id
SCAN_LIMIT = 100  #: messages of a bare history that are looked at
EMPTY = b"[]"  #: a list without items, which is more than no list

#: the tool's name, and the one that old histories know it by
TOOL_NAMES = frozenset({"todo", "todo_list"})


class TodoStatus(enum.StrEnum):
    """Where an item is."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class TodoItem(msgspec.Struct, frozen=True):
    """One item of a todo list."""

    id: str
    content: str
    status: TodoStatus = TodoStatus.PENDING


class _WrongShape(Exception):
    """Raised when todos are not what the tool takes; the model reads why."""


class TodoStore:
    """One session's todo list; the items themselves are immutable, so a copy costs nothing.

    A list that was emptied is not the same as none: it is a change, is kept like any other, and no older list that a
    history still shows takes its place. ``items`` of None is a session that never had one.
    """

    __slots__ = ("_items", "_kept", "writes")

    def __init__(self, items: Sequence[TodoItem] | None = None) -> None:
        self._items = None if items is None else tuple(items)
        self._kept = self._items
        self.writes = 0  #: how often the tool has written the list

    @property
    def items(self) -> tuple[TodoItem, ...]:
        """The items in their order."""
        return self._items or ()

    @property
    def changed(self) -> bool:
        """Whether the list differs from when it was made, or last taken by ``take_change``."""
        return self._items is not self._kept and self._items != self._kept

    def take_change(self) -> bytes | None:
        """Return the list as a JSON array if it changed since it was last taken, else None."""
        items = self._items  # once: the thread of a call that was given up may write still
        if items is None or items == self._kept:
            return None
        self._kept = items
        return msgspec.json.encode(items)

    def taken(self) -> TodoStore:
        """Return a store of its own with the list as it was last taken, or made."""
        return TodoStore(self._kept)

    def restore(self, todo: bytes) -> None:
        """Take the JSON array of a change that was made and not yet kept. Raises msgspec.DecodeError."""
        self._items = _ITEMS.decode(todo)

    def copy(self) -> TodoStore:
        """Return a store of its own with the same items, unchanged."""
        return TodoStore(self._items)

    def to_bytes(self) -> bytes:
        """Return the list as a JSON array."""
        return msgspec.json.encode(self.items)

    @classmethod
    def from_bytes(cls, todo: bytes | None) -> TodoStore:
        """Return the store of a JSON array that ``to_bytes`` gave; None is no list. Raises msgspec.DecodeError."""
        return cls(_ITEMS.decode(todo) if todo else None)

    @classmethod
    def adopted(cls, messages: Sequence[bytes]) -> TodoStore:
        """Return the store of a history that came without one: what it shows becomes the session's own.

        The list found, or an empty one, counts as a change, so it is kept and the history is never looked at again.
        """
        found = hydrate(messages)
        todo = cls()
        todo.restore(found.to_bytes() if found else EMPTY)
        return todo

    def call(self, arguments: Mapping[str, Any]) -> str:
        """Run the todo tool and return its result: the whole list with a summary, or an error, as JSON."""
        try:
            todos = _list_of(arguments.get("todos"))
            merge = _flag(arguments.get("merge"))
            if todos is not None:
                self._items = _merged(self.items, todos) if merge else _replaced(todos)
                self.writes += 1
        except _WrongShape as wrong:
            return msgspec.json.encode({"error": str(wrong)}).decode()
        return self.result()

    def result(self) -> str:
        """Return the tool's result: ``{"todos": […], "summary": {total, pending, …}}``."""
        counts = Counter(item.status for item in self.items)
        summary = {"total": len(self.items)} | {status.value: counts[status] for status in TodoStatus}
        return msgspec.json.encode({"todos": self.items, "summary": summary}).decode()


_ITEMS = msgspec.json.Decoder(tuple[TodoItem, ...])


def _list_of(todos: object) -> Sequence[object] | None:
    if isinstance(todos, str):
        try:
            todos = msgspec.json.decode(todos) if todos.strip() else None
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _WrongShape("todos is text that is not a JSON array") from error
    if todos is None:
        return None
    if not isinstance(todos, list | tuple):
        raise _WrongShape("todos must be an array of {id, content, status} objects")
    return todos


def _flag(merge: object) -> bool:
    if isinstance(merge, str):
        merge = {"true": True, "false": False}.get(merge.strip().lower(), merge)
    if merge is None or isinstance(merge, bool):
        return bool(merge)
    raise _WrongShape("merge must be true or false")


def _replaced(todos: Sequence[object]) -> tuple[TodoItem, ...]:
    """Make a new list of them: of equal ids the last counts, in its last place."""
    items: dict[str, TodoItem] = {}
    for number, entry in enumerate(todos, 1):
        item = _whole_item(_fields(entry, number), number)
        items.pop(item.id, None)
        items[item.id] = item
    return tuple(items.values())[:ITEM_LIMIT]


def _merged(old: Sequence[TodoItem], todos: Sequence[object]) -> tuple[TodoItem, ...]:
    """Update items by id, in their places, and append the new ones."""
    items = {item.id: item for item in old}
    for number, entry in enumerate(todos, 1):
        fields = _fields(entry, number)
        known = items.get(fields["id"])
        if known is None:
            items[fields["id"]] = _whole_item(fields, number)
        else:
            items[known.id] = TodoItem(
                known.id, fields.get("content") or known.content, TodoStatus(fields.get("status") or known.status)
            )
    return tuple(items.values())[:ITEM_LIMIT]


def _whole_item(fields: Mapping[str, str], number: int) -> TodoItem:
    if not fields.get("content"):
        raise _WrongShape(f"todo {number} ({fields['id']!r}) has no content")
    return TodoItem(fields["id"], fields["content"], TodoStatus(fields.get("status") or TodoStatus.PENDING))


def _fields(entry: object, number: int) -> dict[str, str]:
    """Read what one entry gives of id, content and status."""
    if not isinstance(entry, Mapping):
        raise _WrongShape(f"todo {number} must be an object with id, content and status")
    fields = {name: _text(entry[name], name, number) for name in ("id", "content", "status") if name in entry}
    if not 0 < len(fields.get("id", "")) <= ID_LIMIT:
        raise _WrongShape(f"todo {number} needs an id of 1 to {ID_LIMIT} characters")
    if "content" in fields:
        fields["content"] = fields["content"][:CONTENT_LIMIT]
    if "status" in fields:
        fields["status"] = fields["status"].lower()
        if fields["status"] not in {"", *TodoStatus}:
            raise _WrongShape(
                f"todo {number} has the status {fields['status']!r}; it is one of {', '.join(TodoStatus)}"
            )
    return fields


def _text(value: object, name: str, number: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _WrongShape(f"the {name} of todo {number} must be text")
    return str(value).encode("utf-8", "replace").decode().strip()


class _Function(msgspec.Struct):
    name: str = ""


class _Call(msgspec.Struct):
    id: str = ""
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    """What hydration reads of a transcript message; anything may stand in a history that was given to us."""

    role: str = ""
    content: Any = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_Call] | None = None


_MESSAGES = msgspec.json.Decoder(_Message)


def hydrate(messages: Sequence[bytes], scan_limit: int = SCAN_LIMIT) -> TodoStore | None:
    """Read the todo list from the last ``scan_limit`` messages of a bare history; None if they hold none.

    One pass, newest first. A tool result counts only if the nearest earlier assistant message made a todo call
    with its ``tool_call_id`` and no user or system message stands between: else any tool's output could forge a list.
    """
    found: dict[str, TodoStore] = {}
    for message in reversed(messages[-scan_limit:] if scan_limit > 0 else ()):
        if not found and b'todos\\"' not in message:
            continue  # neither a result nor something that pairs one; most messages end here, unparsed
        seen = _peek(message)
        match seen.role:
            case "tool":
                store = _listed(seen)
                if store is not None and seen.tool_call_id:
                    found.setdefault(seen.tool_call_id, store)
            case "assistant":
                calls = Counter(call.id for call in seen.tool_calls or ())
                todo_calls = {call.id for call in seen.tool_calls or () if call.function.name in TOOL_NAMES}
                for call_id, store in found.items():
                    if call_id in todo_calls and calls[call_id] == 1:
                        return store
                found.clear()
            case _:
                found.clear()
    return None


def _peek(message: bytes) -> _Message:
    try:
        return _MESSAGES.decode(message)
    except msgspec.DecodeError:
        return _Message()


def _listed(seen: _Message) -> TodoStore | None:
    """Return the list that a tool message claims to give."""
    if not isinstance(seen.content, str) or seen.name not in {None, "", *TOOL_NAMES}:
        return None
    try:
        result = msgspec.json.decode(seen.content)
        return TodoStore(_replaced(_list_of(result["todos"]) or ()))
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError, TypeError, _WrongShape):
        return None
