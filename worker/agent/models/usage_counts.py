"""What calls have used: read from what servers tell, estimated where they tell nothing that can be true."""

from __future__ import annotations

from typing import Any

from shared.usage import BYTES_PER_TOKEN, Usage

#: no call has more tokens than this, whatever its server says
MOST_TOKENS = 100_000_000


def estimate(sent_bytes: int, received_characters: int) -> Usage:
    """Return what a call used whose provider has not told, or not yet."""
    return Usage(
        model_calls=1,
        input_tokens=1 + sent_bytes // BYTES_PER_TOKEN,
        output_tokens=1 + received_characters // BYTES_PER_TOKEN,
        estimated_calls=1,
    )


class ToldCounts:
    """The counts that a server told, by their names; the largest counts, for they grow with the answer.

    What is no count (a negative number, a fraction, a text, more than MOST_TOKENS) is left out, and is one of ``odd``.
    """

    def __init__(self) -> None:
        self.odd: list[str] = []
        self._counts: dict[str, int] = {}

    @property
    def told(self) -> bool:
        """Whether any count came."""
        return bool(self._counts)

    def get(self, name: str) -> int | None:
        """Return a count, None where none was told."""
        return self._counts.get(name)

    def add(self, usage: object) -> None:
        """Take a ``usage`` object as it came."""
        if usage is None:
            return
        if not isinstance(usage, dict):
            self.odd.append(f"usage is {_shown(usage)}")
            return
        self._add(usage, "")

    def _add(self, counts: dict[str, Any], prefix: str) -> None:
        for name, value in counts.items():
            if isinstance(value, dict):
                if name in {"prompt_tokens_details", "completion_tokens_details", "input_tokens_details"}:
                    self._add(value, f"{name}.")
            elif name.endswith("tokens") and value is not None:
                if is_count(value):
                    self._counts[prefix + name] = max(value, self._counts.get(prefix + name, 0))
                else:
                    self.odd.append(f"{prefix}{name} is {_shown(value)}")


def is_count(value: object) -> bool:
    """Tell whether a value can be a number of tokens."""
    return type(value) is int and 0 <= value <= MOST_TOKENS


def _shown(value: object) -> str:
    return repr(value)[:40]
