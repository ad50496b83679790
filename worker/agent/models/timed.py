"""A model that says how long each answer took and what it used: what metrics and traces are made of."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.events import Event
from worker.agent.models.port import CallWatch, Model, ModelReply, ModelRequest


class TimedModel:
    """A Model around another one, which it leaves as it is."""

    def __init__(self, model: Model, emit: Callable[..., None]) -> None:
        self._model = model
        self._emit = emit

    @property
    def name(self) -> str:
        """The other one's name."""
        return self._model.name

    async def reply(
        self,
        request: ModelRequest,
        on_text: Callable[[str], None] | None = None,
        *,
        timeout: float = 300.0,
        watch: CallWatch | None = None,
    ) -> ModelReply:
        """Call the other one, and say MODEL_ANSWERED if it answers; it says itself what fails."""
        began_at = time.monotonic()
        reply = await self._model.reply(request, on_text, timeout=timeout, watch=watch)
        self._emit(
            Event.MODEL_ANSWERED,
            model=_configured_name(reply),
            answered_by=reply.model,
            session=request.session,
            seconds=round(time.monotonic() - began_at, 6),
            input_tokens=reply.usage.input_tokens,
            output_tokens=reply.usage.output_tokens,
            finish=reply.finish,
        )
        return reply

    async def close(self) -> None:
        """Close the other one."""
        await self._model.close()


def _configured_name(reply: ModelReply) -> str:
    """Return the name that the settings give the model that answered: what a server calls itself may be anything."""
    names = list(reply.usage.models)
    same = [name for name in names if name == f"{reply.provider}:{reply.model}"]
    return next(iter([*same, *reversed(names)]), reply.provider)
