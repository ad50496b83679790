"""Model adapters: one port, one file a provider, and the chain that retries and falls back."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared.events import Emit
from worker.agent.models.chain import Chain, Link
from worker.agent.models.images import ImageLink
from worker.agent.models.port import Model
from worker.agent.models.server import ModelServer
from worker.agent.models.timed import TimedModel

if TYPE_CHECKING:
    from worker.frames import ModelSpec, WorkerConfig

__all__ = ["build_chain", "build_chains"]


def build_chain(config: WorkerConfig, emit: Emit, ssl_context: ssl.SSLContext | None = None) -> Model:
    """Return the models of those who have no profile as one; see ``build_chains``."""
    return build_chains(config, emit, ssl_context)[""]


def build_chains(config: WorkerConfig, emit: Emit, ssl_context: ssl.SSLContext | None = None) -> dict[str, Model]:
    """Return the models of a worker as one, by profile: "" names those of none; call it once a worker.

    A model that stands in several chains is one, with its connections and places. ``emit`` is called with an event and
    its fields; ``ssl_context`` is shared by all where given, because making one takes longer than a call. Raises
    ValueError for an unknown provider.
    """
    folder = Path(config.log_dir).parent / "servers" if config.log_dir else None
    links = {spec: ImageLink(open_link(spec, ssl_context, emit, folder), spec) for spec in config.all_models}

    def chain(specs: Sequence[ModelSpec]) -> Model:
        found = Chain(
            [links[spec] for spec in specs],
            emit,
            call_timeout_s=config.api_timeout_s,
            stall_timeout_s=config.stall_timeout_s,
            limits={spec.name: (spec.api_timeout_s, spec.stall_timeout_s) for spec in specs},
        )
        return TimedModel(found, emit)

    return {"": chain(config.models), **{profile.name: chain(profile.models) for profile in config.profiles}}


def open_link(
    spec: ModelSpec, ssl_context: ssl.SSLContext | None = None, emit: Emit | None = None, folder: Path | None = None
) -> Link:
    """Return one model; its SDK is imported only here, as each costs up to two seconds. Raises ValueError.

    What its server is heard to say is shared with the other workers in ``folder``.
    """
    emit = emit or _emit_nothing
    server = ModelServer(f"{spec.provider} {spec.base_url}", folder, spec.parallel)
    match spec.provider:
        case "anthropic":
            from worker.agent.models.anthropic import AnthropicModel

            return AnthropicModel(spec, ssl_context, emit, server)
        case "openai":
            from worker.agent.models.openai import OpenAIModel

            return OpenAIModel(spec, ssl_context, emit, server)
        case "offline":
            from worker.agent.models.offline import OfflineModel

            return OfflineModel()
        case unknown:
            raise ValueError(f"no such provider: {unknown!r}")


def _emit_nothing(*_: object, **__: object) -> None:
    return None
