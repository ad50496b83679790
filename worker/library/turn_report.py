"""What came of a turn of the library, and the dict that its caller gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.messages import Ended, TurnStatus, Usage


class TurnReport(msgspec.Struct, frozen=True):
    """What came of a turn: its outcome, all its transcript messages, its usage, and which model had the last word."""

    ended: Ended
    messages: tuple[bytes, ...]
    usage: Usage
    provider: str
    model: str


def as_result(report: TurnReport, messages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of ``AIAgent.run_conversation``; ``messages`` is the whole conversation."""
    ended, usage = report.ended, report.usage
    result: dict[str, Any] = {
        "final_response": ended.text,
        "messages": messages,
        "api_calls": usage.model_calls,
        "completed": ended.status is TurnStatus.REPLIED,
        "partial": ended.status is not TurnStatus.REPLIED and len(report.messages) > 2,
        "interrupted": ended.status is TurnStatus.INTERRUPTED,
        "model": report.model,
        "provider": report.provider,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if ended.status in {TurnStatus.FAILED, TurnStatus.TIMED_OUT}:
        result |= {"failed": True, "error": ended.error or ended.text}
    return result
