"""A chat command that changes a conversation: it has its place in the session's order, like a message."""

from __future__ import annotations

import enum

import msgspec


class CommandKind(enum.StrEnum):
    """What a command does to its session."""

    NEW = "new"  #: begins the conversation anew; the old one and the todo list are kept
    STOP = "stop"  #: ends the running turn
    UNDO = "undo"  #: takes the last exchange back, with what it did to the todo list
    APPROVE = "approve"  #: lets the tool calls that wait for it be made
    DENY = "deny"  #: refuses them
    RETRY = "retry"  #: takes the last exchange back and runs its words again


class Command(msgspec.Struct, frozen=True):
    """One command and the words for what may come of it.

    ``done`` answers it once it was carried out, ``nothing`` where there was nothing to do it to, ``waits`` where the
    message it is about has not begun; ``stopped`` tells the sender of a turn that it ends, ``withdrawn`` the sender of
    a message that it takes back. ``target`` is the store's: the number of the message it is about, 0 while open.
    """

    kind: CommandKind
    done: str
    nothing: str
    waits: str = ""
    stopped: str = ""
    withdrawn: str = ""
    target: int = 0
    #: the question that a button under it answers; empty where all that waits is meant
    question: str = ""
