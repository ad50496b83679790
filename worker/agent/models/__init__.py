"""Model adapters: one port, one file a provider, and the chain that retries and falls back."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from worker.agent.models.chain import Chain, Link
from worker.agent.models.port import Model
from worker.agent.models.timed import TimedModel

if TYPE_CHECKING:
    from worker.frames import ModelSpec, WorkerConfig

__all__ = ["build_chain"]


def build_chain(config: WorkerConfig, say: Callable[..., None], ssl_context: ssl.SSLContext | None = None) -> Model:
    """Return the models of a worker as one; call it once a worker, since each holds its connections.

    ``say`` is called with an event and its fields; ``ssl_context`` is shared by all where given, because making one
    takes longer than a call. Raises ValueError for an unknown provider.
    """
    links = [open_link(spec, ssl_context) for spec in config.models]
    chain = Chain(links, say, call_timeout_s=config.api_timeout_s, stall_timeout_s=config.stall_timeout_s)
    return TimedModel(chain, say)


def open_link(spec: ModelSpec, ssl_context: ssl.SSLContext | None = None) -> Link:
    """Return one model; its SDK is imported only here, as each costs up to two seconds. Raises ValueError."""
    match spec.provider:
        case "anthropic":
            from worker.agent.models.anthropic import AnthropicModel

            return AnthropicModel(spec, ssl_context)
        case "openai":
            from worker.agent.models.openai import OpenAIModel

            return OpenAIModel(spec, ssl_context)
        case "offline":
            from worker.agent.models.offline import OfflineModel

            return OfflineModel()
        case unknown:
            raise ValueError(f"no such provider: {unknown!r}")
