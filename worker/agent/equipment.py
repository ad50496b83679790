"""What the turns of a worker use: who answers them, by profile, and what they share."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shared.texts import ENGLISH, Texts
from worker.agent.attachments import AttachmentCache
from worker.agent.models.port import Model
from worker.agent.session_cache import SessionCache
from worker.agent.session_log import SessionLog
from worker.frames import WorkerConfig
from worker.shared_page import SharedPage
from worker.tools.toolbox import Toolbox


class Agent(msgspec.Struct, frozen=True):
    """Who answers a turn."""

    model: Model
    toolbox: Toolbox
    system_prompt: str
    #: how much of a conversation the model is shown, in tokens
    context_tokens: int
    #: what the product itself says
    texts: Texts = ENGLISH


class Equipment(msgspec.Struct, frozen=True):
    """What every turn of a worker uses."""

    config: WorkerConfig
    model: Model
    toolbox: Toolbox
    cache: SessionCache
    log: SessionLog
    attachments: AttachmentCache = msgspec.field(default_factory=AttachmentCache)
    #: the memory shared with the pool, None where there is none
    page: SharedPage | None = None
    #: by the name of the profile
    agents: Mapping[str, Agent] = {}

    def agent(self, profile: str) -> Agent:
        """Return who answers a turn of a profile; an empty name, or one that is not known, is that of none."""
        config = self.config
        default = Agent(self.model, self.toolbox, config.system_prompt, config.context_tokens, config.texts)
        return self.agents.get(profile) or default
