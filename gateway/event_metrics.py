"""Metrics of what happened: a subscriber of Events that counts by the fields an event has.

Labels are bounded: models are those of the settings, platforms those that are on, and of tool names, which a model may
invent, so many are told apart and the rest is ``other``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.events import Event, Field

CALL_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
TURN_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
#: names of tools that are told apart
TOOL_NAMES_LIMIT = 200
#: turns whose beginning is remembered at most
TURNS_LIMIT = 100_000
#: what ends a turn, or hands it to a later one
TURN_ENDS = frozenset({Event.TURN_ENDED, Event.TURN_PARKED, Event.TURN_RETRIED, Event.MESSAGE_DEAD, Event.CLAIM_LOST})


class EventMetrics:
    """Counts what events tell."""

    heard: ClassVar = (
        Event.MODEL_FAILED,
        Event.MODEL_ANSWERED,
        Event.TOOL_FAILED,
        Event.SESSION_CLAIMED,
        *TURN_ENDS,
    )

    def __init__(self, registry: CollectorRegistry) -> None:
        model = ["provider", "model"]
        self._model_errors = cache(
            Counter("gatehouse_model_errors", "Tries of a model call that failed", model, registry=registry).labels
        )
        self._model_seconds = cache(
            Histogram(
                "gatehouse_model_call_seconds",
                "Time until a model answered, with the tries that failed before",
                model,
                buckets=CALL_BUCKETS_S,
                registry=registry,
            ).labels
        )
        self._turn_seconds = cache(
            Histogram(
                "gatehouse_turn_seconds",
                "Time from a session's claim to the end of its turn",
                ["platform"],
                buckets=TURN_BUCKETS_S,
                registry=registry,
            ).labels
        )
        self._tool_errors = cache(
            Counter("gatehouse_tool_errors", "Tool calls that failed", ["tool"], registry=registry).labels
        )
        self._tools: set[str] = set()
        self._claimed_at: dict[str, float] = {}

    def on_event(self, event: Event, fields: Mapping[str, Field]) -> None:
        """Count an event (a subscriber of Events)."""
        match event:
            case Event.MODEL_FAILED:
                self._model_errors(*provider_and_model(fields)).inc()
            case Event.MODEL_ANSWERED:
                self._model_seconds(*provider_and_model(fields)).observe(seconds_of(fields))
            case Event.TOOL_FAILED:
                self._tool_errors(self._tool(str(fields.get("tool", "")))).inc()
            case Event.SESSION_CLAIMED:
                if len(self._claimed_at) < TURNS_LIMIT:
                    self._claimed_at[str(fields.get("session", ""))] = time.monotonic()
            case ended if ended in TURN_ENDS:
                self._turn_ended(str(fields.get("session", "")), told=event is Event.TURN_ENDED)

    def _turn_ended(self, session: str, *, told: bool) -> None:
        began_at = self._claimed_at.pop(session, None)
        if began_at is not None and told:
            self._turn_seconds(session.partition(":")[0]).observe(time.monotonic() - began_at)

    def _tool(self, name: str) -> str:
        if name not in self._tools:
            if len(self._tools) >= TOOL_NAMES_LIMIT:
                return "other"
            self._tools.add(name)
        return name


def provider_and_model(fields: Mapping[str, Field]) -> tuple[str, str]:
    """Return the provider and the model of a ``provider:model`` that an event names."""
    provider, _, model = str(fields.get("model", "")).partition(":")
    return provider, model or provider


def seconds_of(fields: Mapping[str, Field]) -> float:
    """Return the seconds an event tells, 0 where it tells none."""
    seconds = fields.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0
