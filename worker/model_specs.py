"""The models of the settings as a worker is told of them, whoever starts it: a pool, or an agent of the library."""

from __future__ import annotations

from collections.abc import Iterable

from shared.settings import ModelSetting
from worker.frames import ModelSpec


def model_specs(models: Iterable[ModelSetting]) -> tuple[ModelSpec, ...]:
    """Return the models in their order of preference, each with its key and its price."""
    return tuple(ModelSpec(one.provider, one.model, one.api_key, one.base_url, one.price) for one in models)
