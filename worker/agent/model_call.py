"""One model call of a turn, and what the turn has to know of it."""

from __future__ import annotations

from collections.abc import Callable

from shared.usage import Usage
from worker.agent.models.port import CallWatch
from worker.agent.progress import TurnNews


class ModelCall(CallWatch):
    """Watches one call in a step that has used ``before``; ``on_restart`` is called when its text begins again."""

    def __init__(self, progress: TurnNews, before: Usage, on_restart: Callable[[], None]) -> None:
        super().__init__()
        self._progress = progress
        self._before = before
        self._on_restart = on_restart
        #: whether it runs and nothing of an answer has come
        self.is_silent = True
        #: why no model can answer it now
        self.failure: Exception | None = None

    def sent(self, usage: Usage) -> None:
        """Tell what the step has used if the request that goes out is cut off."""
        self._progress.call_sent(self._before + usage)

    def heard_of(self) -> None:
        """Note that the model has begun to answer."""
        self.is_silent = False

    def restarted(self) -> None:
        """Pass on that the text told so far is void."""
        self._on_restart()

    def waiting(self, model: str, failure: Exception) -> None:
        """Tell that no model can answer now, once for each reason."""
        told, self.failure = str(self.failure), failure
        if told != str(failure):
            self._progress.model_away(model, str(failure))
