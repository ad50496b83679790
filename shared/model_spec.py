"""One model of the chain: how the settings name it, and all that its calls need."""

from __future__ import annotations

import msgspec

from shared.prices import Price

#: tokens of an answer at most, where nobody says
OUTPUT_LIMIT = 4096


class ModelSpec(msgspec.Struct, frozen=True):
    """One model of the chain."""

    #: anthropic, openai or offline
    provider: str
    #: what the provider calls it
    model: str
    #: the provider's key, empty for what needs none
    api_key: str = ""
    #: where the provider is, empty for its SDK's own default
    base_url: str = ""
    #: what its tokens cost, None where nobody said
    price: Price | None = None
    #: its section in the configuration file, which is its name then; empty for none
    section: str = ""
    #: the variable that holds its key, empty for the SDK's own
    key_variable: str = ""
    #: tokens that an answer of it may have
    output_limit: int = OUTPUT_LIMIT
    #: how freely it chooses its words, None for its server's default
    temperature: float | None = None
    #: how hard it is to think (minimal, low, medium, high …), empty for its server's default
    reasoning_effort: str = ""
    #: how much of a conversation it can be shown, in tokens; None where nobody said
    context_tokens: int | None = None
    #: calls that its server takes at once, None where nothing bounds them
    parallel: int | None = None
    #: the longest one call may take, in seconds; None for what holds for all
    api_timeout_s: float | None = None
    #: the longest its answer may be silent, in seconds; None for what holds for all
    stall_timeout_s: float | None = None
    #: whether it can be shown images, None where nobody said
    takes_images: bool | None = None
    #: fields that every request to it has beside ours (a JSON object)
    extra_body: bytes = b"{}"

    @property
    def name(self) -> str:
        """The model as the settings name it."""
        if self.section:
            return self.section
        return self.model if self.provider == "offline" else f"{self.provider}:{self.model}"
