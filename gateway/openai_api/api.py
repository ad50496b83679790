"""The room's one door: its parts, and its routes."""

from __future__ import annotations

from starlette.routing import Route

from gateway.openai_api.call_reader import CallReader
from gateway.openai_api.calls import Calls
from gateway.openai_api.completions import Completions
from gateway.openai_api.responses_api import ResponsesApi
from gateway.public_files import PublicFiles
from gateway.readiness import Readiness
from shared.settings import Settings
from shared.store.port import Store


class OpenAIApi:
    """Serves OpenAI's API over the calls that it is given."""

    def __init__(
        self, settings: Settings, store: Store, calls: Calls, readiness: Readiness, files: PublicFiles
    ) -> None:
        models = tuple(dict.fromkeys(model.name for model in settings.models))
        reader = CallReader(models, settings.models[0].provider, files)
        self.calls = calls
        self._completions = Completions(calls, models, reader, readiness, settings.session_from)
        self._responses = ResponsesApi(store, calls, reader, readiness, settings.session_from)

    def routes(self) -> list[Route]:
        """Return the routes; whoever mounts them guards them."""
        return [
            Route("/v1/chat/completions", self._completions.create, methods=["POST"]),
            Route("/v1/responses", self._responses.create, methods=["POST"]),
            Route("/v1/responses/{id}", self._responses.retrieve),
            Route("/v1/responses/{id}", self._responses.remove, methods=["DELETE"]),
            Route("/v1/responses/{id}/cancel", self._responses.cancel, methods=["POST"]),
            Route("/v1/responses/{id}/input_items", self._responses.input_items),
            Route("/v1/models", self._completions.models),
            Route("/v1/models/{id:path}", self._completions.model),
        ]
