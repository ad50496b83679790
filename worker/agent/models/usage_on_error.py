"""What a call that gave no answer has used all the same: it travels with the error that ended it, whatever that is.

Providers bill what they have read and written, be the answer empty, broken off or no longer wanted.
"""

from __future__ import annotations

from shared.usage import NOTHING, Usage

#: where a provider does not tell, a token is about so many bytes of what was sent, or letters of what came
BYTES_PER_TOKEN = 4

_FIELD = "gatehouse_usage"


def bill(error: BaseException, usage: Usage) -> None:
    """Note on an error all that was used until it."""
    setattr(error, _FIELD, usage)


def billed(error: BaseException) -> Usage:
    """Return what was used until this error."""
    usage: Usage = getattr(error, _FIELD, NOTHING)
    return usage


def estimate(sent_bytes: int, received_characters: int) -> Usage:
    """Return what a call used whose provider has not told, or not yet."""
    return Usage(
        model_calls=1,
        input_tokens=1 + sent_bytes // BYTES_PER_TOKEN,
        output_tokens=1 + received_characters // BYTES_PER_TOKEN,
        estimated_calls=1,
    )
