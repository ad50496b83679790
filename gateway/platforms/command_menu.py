"""The chat commands as a platform's menu offers them, and the slash command that only speaks to the agent."""

from __future__ import annotations

import msgspec

from shared.command import CHAT_COMMANDS
from shared.texts import ASK, ENGLISH, TRANSLATIONS


class MenuCommand(msgspec.Struct, frozen=True):
    """One command of a menu."""

    #: without its slash
    name: str
    #: what it does, in English
    what: str
    #: the same in other languages, by their codes
    translated: dict[str, str] = {}


#: what people say to the agent where a platform tells a bot of commands alone
ASKS = MenuCommand("ask", ASK)

#: every chat command, in the order in which /help tells them
MENU = tuple(
    MenuCommand(
        command[1:],
        ENGLISH.help_of(command),
        {code: texts.help_of(command) for code, texts in TRANSLATIONS.items()},
    )
    for command in CHAT_COMMANDS
)
