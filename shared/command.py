"""A chat command that changes a conversation: it has its place in the session's order, like a message."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class CommandKind(enum.StrEnum):
    """What a command does to its session."""

    NEW = "new"  #: begins the conversation anew; the old one and the todo list are kept
    STOP = "stop"  #: ends the running turn
    RETRY = "retry"  #: takes the last exchange back and runs its words again
    UNDO = "undo"  #: takes the last exchange back, with what it did to the todo list
    APPROVE = "approve"  #: lets the tool calls that wait for it be made
    DENY = "deny"  #: refuses them


#: what orders are called; a new kind is one by itself
ORDERS: Mapping[str, CommandKind] = MappingProxyType({f"/{kind}": kind for kind in CommandKind})

#: every chat command, in the order in which people are told of them: orders, then questions. The text
#: ``help_<name>`` of every language (shared/texts.py) says what it does
CHAT_COMMANDS = (*ORDERS, "/todo", "/status", "/trace", "/help")


class Command(msgspec.Struct, frozen=True):
    """One command and the words for what may come of it.

    ``done`` answers it once it was carried out, ``nothing`` where there was nothing to do it to, ``waits`` where the
    message it is about has not begun; ``stopped`` tells the sender of a turn that it ends, ``withdrawn`` the sender of
    a message that it takes back; an empty text tells nothing. ``target`` is the store's: the number of the message it
    is about, 0 while open.
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
