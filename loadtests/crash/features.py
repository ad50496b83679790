"""What else is used while the kill falls: one feature a round, by the first session of it."""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping


class Feature(enum.StrEnum):
    """One feature; the value is also the name of the sender whose profile turns it on."""

    PLAIN = "plain"
    COMMANDS = "commands"  #: /new comes while the turn runs: it waits for its end and begins a new conversation
    STEER = "steer"  #: words that join the turn
    GATHER = "gather"  #: a fragment of the same thought
    INTERRUPT = "interrupts"  #: a newer message, or /stop, ends the turn
    TODO = "todo writes"  #: a step writes the todo list
    BUDGET = "budgets"  #: the budget runs out in the middle of the conversation
    COMPACTION = "compaction"  #: the conversation outgrows the model's window
    CHUNKS = "chunked replies"  #: answers of several messages, on every platform that cuts them
    STREAM = "streaming"  #: the call over the API is streamed

    @property
    def patient(self) -> bool:
        """Whether each message waits for the end of the one before it, so that what comes between meets that one."""
        return self in {Feature.COMMANDS, Feature.STEER, Feature.GATHER, Feature.INTERRUPT}

    @property
    def cuts_turns(self) -> bool:
        """Whether a turn may end before its script, with words of the gateway for an answer."""
        return self in {Feature.COMMANDS, Feature.INTERRUPT, Feature.BUDGET}

    @property
    def skips_calls(self) -> bool:
        """Whether tool calls of the script may never be asked for."""
        return self.cuts_turns or self is Feature.STEER

    def aside(self, chance: random.Random, name: str) -> str:
        """Return what is said while the turn of a message runs, empty for nothing; its answer is ``done NAME``."""
        match self:
            case Feature.COMMANDS:
                return "/new"
            case Feature.INTERRUPT if chance.random() < 0.3:
                return "/stop"
            case Feature.STEER | Feature.GATHER | Feature.INTERRUPT:
                return f"{name} [[say done {name}]]"
            case _:
                return ""

    @property
    def settings(self) -> Mapping[str, str]:
        """What of the gateway's settings it needs that no profile has."""
        return {"GATEHOUSE_GATHER": "0.2" if self is Feature.GATHER else "0"}


#: what GATEHOUSE_CONFIG names: a profile for each feature that is one of a sender's
CONFIG = """
[models.small]
model = "openai:scripted"
context = 1000

[profiles.steer]
user = "steer"
when_busy = "steer"

[profiles.interrupts]
user = "interrupts"
when_busy = "interrupt"

[profiles.budgets]
user = "budgets"
session_budget = "1500"

[profiles.compaction]
user = "compaction"
model = "small"
"""
#: what makes a message of a compacted conversation long, and an answer of several messages
PADDING = " ".join(["All work and no play makes for a long conversation."] * 25)
LINES = 150
