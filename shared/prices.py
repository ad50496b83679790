"""What a model's tokens cost, as its operator set it; a model without a price has no known cost."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec

from shared.errors import SettingsError
from shared.settings_reader import SettingsReader
from shared.usage import NANOS, Usage

#: prices are per so many tokens, as every provider lists them
PER_TOKENS = 1_000_000
DEAREST = 1_000_000


class Price(msgspec.Struct, frozen=True):
    """Billionths of the money for a million tokens: read, answered, read from the prompt cache, written into it."""

    input_nanos: int = 0
    output_nanos: int = 0
    cached_nanos: int = 0
    written_nanos: int = 0

    def of(self, usage: Usage) -> int:
        """Return what this many tokens cost, in billionths of the money."""
        fresh = usage.input_tokens - usage.cached_tokens - usage.written_tokens
        cost = (
            fresh * self.input_nanos
            + usage.output_tokens * self.output_nanos
            + usage.cached_tokens * self.cached_nanos
            + usage.written_tokens * self.written_nanos
        )
        return (cost + PER_TOKENS // 2) // PER_TOKENS


FREE = Price()


def read_prices(reader: SettingsReader) -> dict[str, Price]:
    """Read the price list, by ``provider:model``. Raises SettingsError."""
    prices = {}
    for word in reader.words("GATEHOUSE_PRICES"):
        model, _, price = word.rpartition("=")
        try:
            prices[model.strip()] = read_price(price)
        except ValueError:
            model = ""
        if not all(model.partition(":")):
            raise SettingsError(
                "GATEHOUSE_PRICES",
                f"{word!r} is not provider:model=INPUT/OUTPUT or …=INPUT/OUTPUT/CACHED, the money for a million tokens",
            )
    return prices


def read_price(text: str) -> Price:
    """Read ``INPUT/OUTPUT[/CACHED[/WRITTEN]]`` per million tokens; what is left out costs as input. Raises ValueError.

    CACHED are tokens the provider had in its prompt cache, WRITTEN those it put there.
    """
    parts = [_nanos(part) for part in text.split("/")]
    if not 2 <= len(parts) <= 4:
        raise ValueError(text)
    cached, written = (parts[2:] + [parts[0]] * 2)[:2]
    return Price(parts[0], parts[1], cached, written)


def _nanos(text: str) -> int:
    try:
        amount = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        raise ValueError(text) from None
    if not amount.is_finite() or not 0 <= amount <= DEAREST:
        raise ValueError(text)
    return round(amount * NANOS)
