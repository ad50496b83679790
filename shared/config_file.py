"""The file that ``GATEHOUSE_CONFIG`` names: settings that have a structure, in TOML.

    [models.local]
    model = "openai:qwen3"              # provider:model; a section may also have that as its name, in quotes
    base_url = "http://127.0.0.1:8080/v1"
    key_variable = "LOCAL_KEY"          # the variable that holds the key; no secret stands in the file
    output_limit = 8192                 # tokens of an answer
    context = 32768                     # tokens of a conversation that it can be shown
    parallel = 2                        # calls at once
    temperature = 0.2
    reasoning_effort = "low"
    price = "0.5/2"                     # as GATEHOUSE_PRICES has it
    api_timeout = 600                   # seconds
    stall_timeout = 120
    takes_images = true
    extra_body = {top_k = 20}

``GATEHOUSE_MODEL`` names sections beside ``provider:model``; ``[profiles.NAME]`` is described in shared/profiles.py.
What is unknown, or of the wrong kind, is refused in one line. Each kind of section has its struct; a new one joins
``ConfigFile`` and ``SECTIONS``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import Annotated, Any

import msgspec

from shared.errors import SettingsError
from shared.profiles import ProfileSection
from shared.settings_reader import SettingsReader
from shared.texts import Texts

SETTING = "GATEHOUSE_CONFIG"

Seconds = Annotated[float, msgspec.Meta(gt=0, le=604_800)]


class ModelSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a section ``[models.NAME]`` may say; what it leaves out is as without it."""

    #: ``provider:model``, empty where the section's name is that
    model: str = ""
    base_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+")] = ""
    #: the variable of the environment that holds the key
    key_variable: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = ""
    #: tokens of an answer at most
    output_limit: Annotated[int, msgspec.Meta(ge=16, le=10_000_000)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    #: a word that the provider knows
    reasoning_effort: str = ""
    #: tokens of a conversation that the model can be shown
    context: Annotated[int, msgspec.Meta(ge=1_000, le=100_000_000)] | None = None
    #: as an entry of GATEHOUSE_PRICES: INPUT/OUTPUT[/CACHED[/WRITTEN]]
    price: str = ""
    #: calls at once
    parallel: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    #: seconds
    api_timeout: Seconds | None = None
    stall_timeout: Seconds | None = None
    takes_images: bool | None = None
    #: fields that every request to it has beside ours
    extra_body: dict[str, Any] = {}


class ConfigFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the file says."""

    models: dict[str, ModelSection] = {}
    profiles: dict[str, ProfileSection] = {}
    languages: dict[str, Texts] = {}


#: the kinds of sections that have names
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "models": ModelSection,
    "profiles": ProfileSection,
    "languages": Texts,
}


def read_config_file(reader: SettingsReader) -> ConfigFile:
    """Read the file, an empty one where the setting is not set. Raises SettingsError."""
    path = reader.text(SETTING, "")
    if not path:
        return ConfigFile()
    try:
        text = reader.path(SETTING, path).read_text("utf-8-sig")
        content = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(SETTING, f"cannot read {path!r}: {error.strerror or error}") from None
    except ValueError as error:  # tomllib's and the decoder's own
        raise SettingsError(SETTING, f"{path}: {error}") from None
    try:
        return msgspec.convert(content, ConfigFile)
    except msgspec.ValidationError as error:
        raise SettingsError(SETTING, f"{path}: {_in_words(str(error), content)}") from None


def _in_words(problem: str, content: dict[str, Any]) -> str:
    """Return a refusal of msgspec with the place as the file spells it, and the nearest key that exists."""
    message, _, path = problem.partition(" - at `")
    where = path.rstrip("`").removeprefix("$").removeprefix(".")
    kind = next((kind for kind in SECTIONS if where.startswith(kind)), "")
    if "[...]" in where and (named := _section_with_the_problem(kind, content)):
        where = where.replace("[...]", f".{named}")
    unknown = re.search(r"unknown field `(.+?)`", message)
    if unknown is None:
        return f"{where}: {message}" if where else message
    known = SECTIONS.get(kind, ConfigFile)
    near = difflib.get_close_matches(unknown[1], known.__struct_fields__, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known.__struct_fields__)}"
    return f"{where + ': ' if where else ''}there is no {unknown[1]!r}{hint}"


def _section_with_the_problem(kind: str, content: dict[str, Any]) -> str:
    """Return the name of the first section that cannot be read: msgspec does not name keys of a dict."""
    sections = content.get(kind)
    for name, section in sections.items() if isinstance(sections, dict) else ():
        try:
            msgspec.convert(section, SECTIONS[kind])
        except msgspec.ValidationError:
            return str(name)
    return ""
