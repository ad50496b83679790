"""What model calls used: tokens and money, per turn, session and model."""

from __future__ import annotations

import msgspec

#: money is counted in whole billionths of its unit, so that sums are exact
NANOS = 1_000_000_000
#: where a provider does not tell, a token is about so many bytes of what was sent, or letters of what came
BYTES_PER_TOKEN = 4


class Usage(msgspec.Struct, frozen=True):
    """Tokens, calls and money spent, all counts; ``models`` holds the share of each model by ``provider:model``.

    ``input_tokens`` are all that was read: the ``cached_tokens`` that the provider had in its prompt cache and the
    ``written_tokens`` that it put there are among them. ``cost_nanos`` is in billionths of the money the prices are
    in, and lacks ``unpriced_calls``, of models nobody gave a price. ``estimated_calls`` were cut off before the
    provider told their tokens.
    """

    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    cost_nanos: int = 0
    unpriced_calls: int = 0
    estimated_calls: int = 0
    models: dict[str, Usage] = {}

    @property
    def tokens(self) -> int:
        """All tokens, read and written."""
        return self.input_tokens + self.output_tokens

    @property
    def cost(self) -> float | None:
        """The money it cost, None where a call has no price."""
        return None if self.unpriced_calls else self.cost_nanos / NANOS

    def __add__(self, other: Usage) -> Usage:
        if self == NOTHING:  # what most turns begin with
            return other
        names = self.models.keys() | other.models.keys()
        models = {name: self.models.get(name, NOTHING) + other.models.get(name, NOTHING) for name in sorted(names)}
        counts = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return Usage(**counts, models=models)

    def __sub__(self, other: Usage) -> Usage:
        """Return what this has and ``other`` has not, no count below 0."""
        left = {name: usage - other.models.get(name, NOTHING) for name, usage in self.models.items()}
        models = {name: usage for name, usage in left.items() if usage != NOTHING}
        counts = {name: max(0, getattr(self, name) - getattr(other, name)) for name in COUNTS}
        return Usage(**counts, models=models)


COUNTS = tuple(name for name in Usage.__struct_fields__ if name != "models")
NOTHING = Usage()


def usage_entry(usage: Usage) -> dict[str, object]:
    """Return a usage as people and programs are shown it: its money as a number, null where it is unknown."""
    counts = {name: getattr(usage, name) for name in COUNTS}
    models = {name: usage_entry(share) for name, share in usage.models.items()}
    return counts | {"cost": usage.cost} | ({"models": models} if models else {})
