"""Which models are asked, in which order, and how: from ``GATEHOUSE_MODEL``, the keys, the prices and the file."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.config_file import SETTING, ConfigFile, ModelSection, read_config_file
from shared.errors import SettingsError
from shared.model_spec import OUTPUT_LIMIT, ModelSpec
from shared.prices import FREE, Price, read_price, read_prices
from shared.settings_reader import SettingsReader

PROVIDERS = ("anthropic", "openai")


def read_models(reader: SettingsReader) -> tuple[ModelSpec, ...]:
    """Read the chain. Raises SettingsError."""
    return chain_of(reader, reader.words("GATEHOUSE_MODEL") or ("offline",), read_config_file(reader))


def chain_of(reader: SettingsReader, words: Sequence[str], file: ConfigFile) -> tuple[ModelSpec, ...]:
    """Return the models of these names, which are those that GATEHOUSE_MODEL takes. Raises SettingsError."""
    prices = read_prices(reader)
    return tuple(_model(reader, word, file, prices) for word in words)


def read_context_tokens(reader: SettingsReader, models: tuple[ModelSpec, ...]) -> int:
    """Read how much of a conversation is shown: what every model of the chain can take, where the file says so."""
    fits = [model.context_tokens for model in models if model.context_tokens is not None]
    default = min(fits) if len(fits) == len(models) else min([100_000, *fits])
    return min([reader.integer("GATEHOUSE_CONTEXT_TOKENS", default, 1_000, 100_000_000), *fits])


def _model(reader: SettingsReader, word: str, file: ConfigFile, prices: dict[str, Price]) -> ModelSpec:
    section = file.models.get(word)
    if word.partition(":")[0] == "offline" and section is None:
        return ModelSpec("offline", "offline", price=FREE)
    name = (section.model if section else "") or word
    provider, _, model = name.partition(":")
    if provider not in PROVIDERS or not model:
        if section is not None:
            raise SettingsError(SETTING, f"models.{word}.model: {name!r} is none of anthropic:MODEL and openai:MODEL")
        known = f", or one of the sections {', '.join(file.models)}" if file.models else ""
        raise SettingsError("GATEHOUSE_MODEL", f"{word!r} is none of anthropic:MODEL, openai:MODEL and offline{known}")
    price = prices.get(word) or prices.get(name)
    if section is None:
        return _with_key(reader, ModelSpec(provider, model, price=price))
    return _with_key(reader, _of_section(word, provider, model, section, price))


def _of_section(name: str, provider: str, model: str, section: ModelSection, price: Price | None) -> ModelSpec:
    try:
        price = read_price(section.price) if section.price else price
    except ValueError:
        raise SettingsError(
            SETTING, f"models.{name}.price: {section.price!r} is not INPUT/OUTPUT[/CACHED[/WRITTEN]]"
        ) from None
    return ModelSpec(
        provider,
        model,
        base_url=section.base_url.rstrip("/"),
        price=price,
        section="" if name == f"{provider}:{model}" else name,
        key_variable=section.key_variable,
        output_limit=section.output_limit or OUTPUT_LIMIT,
        temperature=section.temperature,
        reasoning_effort=section.reasoning_effort,
        context_tokens=section.context,
        parallel=section.parallel,
        api_timeout_s=section.api_timeout,
        stall_timeout_s=section.stall_timeout,
        takes_images=section.takes_images,
        extra_body=msgspec.json.encode(section.extra_body),
    )


def _with_key(reader: SettingsReader, spec: ModelSpec) -> ModelSpec:
    """Return the model with its key and url: its section's own, or what the provider's variables hold.

    A section with a url of its own gets no key but the one that it names: another server's is not for it to read.
    """
    prefix = spec.provider.upper()
    variable = spec.key_variable or ("" if spec.base_url else f"{prefix}_API_KEY")
    key = reader.text(variable, "") if variable else ""
    url = spec.base_url or reader.base_url(f"{prefix}_BASE_URL", "")
    if spec.key_variable and not key:
        raise SettingsError(SETTING, f"models.{spec.name}.key_variable: {spec.key_variable} is not set")
    if not key and not url:
        raise SettingsError(
            f"{prefix}_API_KEY", f"is not set, and GATEHOUSE_MODEL names {spec.name}; set it, or use offline"
        )
    return msgspec.structs.replace(spec, api_key=key or "none", base_url=url)
