"""Profiles: who is answered by which models, with which prompt, tools, budgets and busy rule.

    [profiles.support]
    platform = "slack"              # who it is for: each condition that is given has to hold; one word or a list
    account = "T0123"               # the workspace, bot or number written to: the second part of a session's key
    channel = ["C01", "C02"]        # the chat: the third part of the key
    user = "U777"                   # the sender's id on the platform
    model = ["local", "anthropic:claude-sonnet-4-5"]    # what it changes; what it leaves out is as without it
    prompt = "You answer questions on orders."
    tools = ["todo", "search_*"]    # names of tools, * stands for any end
    mcp_servers = ["shop"]          # servers whose tools are offered
    when_busy = "steer"
    session_budget = "200000"       # as GATEHOUSE_SESSION_BUDGET has it
    user_budget = "$5/day"
    language = "de"                 # of what the product itself says; see shared/texts.py

The first profile of the file that fits holds. A turn's is told by its session and the sender of its message, whenever
it is asked for: nothing of it is stored, so a changed file holds for every turn from the next start on.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import msgspec

from shared.budgets import Budgets
from shared.model_spec import ModelSpec
from shared.texts import ENGLISH, Texts
from shared.when_busy import BusyRules, WhenBusy

SomeWords = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class ProfileSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a section ``[profiles.NAME]`` may say; the module's text says what each means."""

    platform: str | SomeWords = ()
    account: str | SomeWords = ()
    channel: str | SomeWords = ()
    user: str | SomeWords = ()
    model: str | SomeWords = ()
    prompt: str | None = None
    tools: tuple[str, ...] | None = None
    mcp_servers: tuple[str, ...] | None = None
    when_busy: WhenBusy | None = None
    session_budget: str = ""
    user_budget: str = ""
    language: str = ""


class ToolChoice(msgspec.Struct, frozen=True):
    """Which tools are offered."""

    #: their names, or patterns of them; None for every name
    names: tuple[str, ...] | None = None
    #: the MCP servers whose tools are offered; None for every one
    servers: tuple[str, ...] | None = None

    def offers(self, name: str, server: str) -> bool:
        """Tell whether a tool is offered; ``server`` lends it, empty for none."""
        if server and self.servers is not None and server not in self.servers:
            return False
        return self.names is None or any(fnmatchcase(name, pattern) for pattern in self.names)


class AgentProfile(msgspec.Struct, frozen=True):
    """What a worker has to know of a profile."""

    name: str
    #: the chain, in the order in which they are asked
    models: tuple[ModelSpec, ...]
    #: what every request begins with
    system_prompt: str
    #: how much of a conversation a model is shown, in tokens
    context_tokens: int
    tools: ToolChoice = ToolChoice()
    #: what the product itself says
    texts: Texts = ENGLISH


class Profile(msgspec.Struct, frozen=True):
    """One profile: whom it is for, and what it changes."""

    agent: AgentProfile
    budgets: Budgets
    #: each condition that is not empty has to hold
    platforms: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    #: None where the rules of GATEHOUSE_WHEN_BUSY hold
    when_busy: WhenBusy | None = None

    def fits(self, session: str, user: str) -> bool:
        """Tell whether it is for a sender's messages in a session."""
        platform, account, channel, *_ = [*session.split(":", 3), "", ""]
        asked = (
            (self.platforms, platform),
            (self.accounts, account),
            (self.channels, channel),
            (self.users, user),
        )
        return all(not wanted or found in wanted for wanted, found in asked)


class Profiles(msgspec.Struct, frozen=True):
    """Every profile, in the order of the file."""

    profiles: tuple[Profile, ...] = ()
    #: what the product says to those who have no profile
    texts: Texts = ENGLISH

    def texts_of(self, session: str, user: str) -> Texts:
        """Return what the product says to a sender in a session."""
        profile = self.of(session, user)
        return profile.agent.texts if profile else self.texts

    def of(self, session: str, user: str) -> Profile | None:
        """Return the profile that holds for a sender's messages in a session, None where none fits."""
        return next((profile for profile in self.profiles if profile.fits(session, user)), None)

    def name_of(self, session: str, user: str) -> str:
        """Return its name, empty where none fits."""
        profile = self.of(session, user)
        return profile.agent.name if profile else ""

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The models of all profiles."""
        return tuple(model for profile in self.profiles for model in profile.agent.models)


class ProfileBusyRules(BusyRules, frozen=True):
    """The rules of the settings, but for whom a profile has another mode."""

    profiles: Profiles = Profiles()

    def mode(self, session: str, user: str = "") -> WhenBusy:
        """Return the mode of a sender's messages in a session."""
        profile = self.profiles.of(session, user)
        return profile.when_busy if profile and profile.when_busy else super().mode(session)


class ProfileBudgets(Budgets, frozen=True):
    """The budgets of the settings, but for whom a profile has others."""

    profiles: Profiles = Profiles()

    def __bool__(self) -> bool:
        return bool(self.budgets) or any(profile.budgets for profile in self.profiles.profiles)

    def of(self, session: str, user: str) -> Budgets:
        """Return the budgets that hold for a sender's messages in a session."""
        profile = self.profiles.of(session, user)
        return profile.budgets if profile else self
