"""Settings: one frozen, validated object, read once from the environment and a ``.env`` file.

The only module that reads the environment. A bad value raises SettingsError, which names the setting.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from shared.api_keys import parse_entry
from shared.budgets import read_budgets
from shared.env_file import read_env_file
from shared.errors import SettingsError
from shared.model_settings import read_context_tokens, read_models
from shared.model_spec import ModelSpec
from shared.platform_settings import PLATFORM_SETTINGS, PlatformSettings, WebhookSettings, read_platforms, read_webhooks
from shared.profile_settings import read_language, read_profiles
from shared.profiles import AgentProfile, ProfileBudgets, ProfileBusyRules, Profiles
from shared.proxies import Proxies, read_proxies
from shared.settings_reader import SettingsReader
from shared.upkeep import NAMES as UPKEEP_NAMES
from shared.upkeep import Upkeep, read_upkeep
from shared.when_busy import BusyRules, WhenBusy

DEFAULT_SYSTEM_PROMPT = (
    "You are a helpful assistant in a chat. Answer briefly and plainly. "
    "Keep the todo list with the todo tool when there is more than one thing to do."
)

#: what a child process may see of the environment beside the model keys
HARMLESS_VARIABLES = frozenset(
    "PATH HOME USER LANG LANGUAGE TZ TMPDIR VIRTUAL_ENV SSL_CERT_FILE SSL_CERT_DIR TERM NO_COLOR CI".split()
)
#: what keeps Python from putting the working directory before all other places of modules
SAFE_PATH = "PYTHONSAFEPATH"
MODEL_PREFIXES = ("ANTHROPIC_", "OPENAI_")
HARMLESS_PREFIXES = ("LC_", "PYTHON", "COVERAGE_", *MODEL_PREFIXES)

#: the GATEHOUSE_ names that exist; any other one is a mistake
KNOWN_NAMES = frozenset(
    "GATEHOUSE_" + name
    for name in (
        "HOST MODEL SYSTEM_PROMPT WORKERS TURNS_PER_WORKER WAITING_TURNS SPARES API_TIMEOUT STALL_TIMEOUT "
        "TURN_TIMEOUT KILL_GRACE CONFIG PUBLIC_URL PAIRING_TTL ANSWER_THREADS USER_RATE LANGUAGE "
        "HEARTBEAT_TIMEOUT WORKER_MEMORY WORKER_TURNS MAX_ATTEMPTS WHEN_BUSY GATHER CONTEXT_TOKENS TODO_CACHE_SIZE "
        "TODO_CACHE_TTL LOG_FLUSH_INTERVAL PRICES SESSION_BUDGET USER_BUDGET HOUR_BUDGET INBOX_LIMIT SENDER_SHARE "
        "DATA_DIR TOOLS MCP_CONFIG ATTACHMENT_SIZE ATTACHMENTS "
        f"FETCH_ALLOW API_KEYS ALLOW SESSION_FROM CORS_ORIGINS {UPKEEP_NAMES}"
    ).split()
)

#: what a sender in GATEHOUSE_ALLOW may begin with
PLATFORMS = tuple(PLATFORM_SETTINGS)
#: what a session's key may begin with
SESSION_PLATFORMS = (*PLATFORMS, "api")
#: hosts that no other machine reaches
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(msgspec.Struct, frozen=True):
    """Every setting; times in seconds, sizes in the unit the name ends with."""

    host: str
    port: int
    models: tuple[ModelSpec, ...]
    system_prompt: str
    workers: int
    turns_per_worker: int
    waiting_turns: int
    spares: int
    api_timeout_s: float
    stall_timeout_s: float
    turn_timeout_s: float
    kill_grace_s: float
    heartbeat_timeout_s: float
    worker_memory_mib: int
    worker_turns: int
    max_attempts: int
    when_busy: BusyRules
    gather_s: float
    context_tokens: int
    todo_cache_size: int
    todo_cache_ttl_s: float
    log_flush_interval_s: float
    budgets: ProfileBudgets
    inbox_limit: int
    sender_share: float
    data_dir: Path
    database_url: str
    #: past a pooler that shares sessions by transaction, for signals between hosts
    database_direct_url: str
    tool_modules: tuple[str, ...]
    mcp_config: bytes
    fetch_allow: tuple[str, ...]
    api_keys: tuple[str, ...]
    allow: tuple[str, ...]
    #: the platforms that are on, by name
    platforms: Mapping[str, PlatformSettings]
    webhooks: WebhookSettings
    #: the field of an API call that names its session beside the header: ``user``, ``metadata:KEY``, or none
    session_from: str
    #: the web pages that may call the API, as browsers name their origins; ``*`` is every page
    cors_origins: tuple[str, ...]
    upkeep: Upkeep = Upkeep()
    #: names of keys that are set, of providers that no model was chosen of
    unused_model_keys: tuple[str, ...] = ()
    proxies: Proxies = Proxies()

    @property
    def reached_from_internet(self) -> bool:
        """Whether strangers can reach this process: it listens for other machines, or a platform posts to it."""
        return self.host not in LOOPBACK_HOSTS or bool(self.platforms.keys() - {"standard"})

    @property
    def profiles(self) -> Profiles:
        """Who is answered otherwise than the rest."""
        return self.budgets.profiles

    def secrets(self) -> tuple[str, ...]:
        """Return every value that no log line may show."""
        found = [*self.api_keys, *(model.api_key for model in (*self.models, *self.profiles.models))]
        for platform in self.platforms.values():
            found += platform.secrets()
        found += [*self.upkeep.secrets(), *self.proxies.secrets()]
        return tuple(secret for secret in found if len(secret) >= 6)


class AgentSettings(msgspec.Struct, frozen=True):
    """What an agent without a gateway has to know; times in seconds."""

    models: tuple[ModelSpec, ...]
    system_prompt: str
    api_timeout_s: float
    stall_timeout_s: float
    turn_timeout_s: float
    context_tokens: int
    log_flush_interval_s: float
    data_dir: Path
    tool_modules: tuple[str, ...]
    mcp_config: bytes
    fetch_allow: tuple[str, ...]


def load_settings(env_file: Path = Path(".env")) -> Settings:
    """Read the environment over the ``.env`` file and validate it. Raises SettingsError."""
    return parse_settings(read_env_file(env_file) | dict(os.environ))


def load_agent_settings(given: Mapping[str, str], env_file: Path = Path(".env")) -> AgentSettings:
    """Read what AIAgent needs from the environment over the ``.env`` file, under what was given by name.

    Settings of the gateway are not looked at. Raises SettingsError.
    """
    reader = SettingsReader(read_env_file(env_file) | dict(os.environ) | dict(given))
    models = read_models(reader)
    return AgentSettings(
        models=models,
        system_prompt=read_system_prompt(reader),
        api_timeout_s=reader.seconds("GATEHOUSE_API_TIMEOUT", 300),
        stall_timeout_s=reader.seconds("GATEHOUSE_STALL_TIMEOUT", 60),
        turn_timeout_s=reader.seconds("GATEHOUSE_TURN_TIMEOUT", 900),
        context_tokens=read_context_tokens(reader, models),
        log_flush_interval_s=reader.seconds("GATEHOUSE_LOG_FLUSH_INTERVAL", 0.5, least=0.5),
        data_dir=reader.path("GATEHOUSE_DATA_DIR", reader.text("GATEHOUSE_DATA_DIR", "./data")),
        tool_modules=reader.dotted_names("GATEHOUSE_TOOLS"),
        mcp_config=reader.json_file("GATEHOUSE_MCP_CONFIG", "mcpServers", "servers"),
        fetch_allow=reader.hosts("GATEHOUSE_FETCH_ALLOW"),
    )


@contextlib.contextmanager
def without_model_keys() -> Iterator[None]:
    """Start what needs no model key inside of this."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(MODEL_PREFIXES)}
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


def environment_proxies() -> Proxies:
    """Return the proxies that the environment names now. Raises SettingsError."""
    return read_proxies(os.environ)


def scrub_environment(proxies: Proxies = Proxies()) -> frozenset[str]:  # noqa: B008 (frozen)
    """Remove what child processes must not inherit from the environment: all but model keys and harmless names.

    The ``proxies`` stay, for the models are called by the children.

    The fork server is told not to look for modules in the working directory, where a folder of the user's may be called
    as a package of ours; ``end_safe_path`` undoes that in a worker, for the programs that its tools start.

    Returns the names whose first bytes in memory nobody uses any more: those that went, and the model keys, which are
    written anew.
    """
    gone = set()
    for name, value in list(os.environ.items()):
        harmless = name in HARMLESS_VARIABLES or name.startswith(HARMLESS_PREFIXES)
        if not harmless:
            del os.environ[name]
        elif name.startswith(MODEL_PREFIXES):
            os.environ[name] = value
        else:
            continue
        gone.add(name)
    os.environ |= {SAFE_PATH: "1", **proxies.variables()}
    return frozenset(gone)


def end_safe_path() -> None:
    """Let the programs that are started from here find modules beside their scripts again."""
    os.environ.pop(SAFE_PATH, None)


def parse_settings(values: Mapping[str, str]) -> Settings:
    """Build the settings from named values. Raises SettingsError, which names the first one that is wrong."""
    reader = reader_of_known_names(values)
    models, budgets = read_models_and_budgets(reader)
    return Settings(
        host=read_host(reader),
        port=reader.integer("PORT", 8000, 0, 65535),
        models=models,
        system_prompt=read_system_prompt(reader),
        workers=reader.integer("GATEHOUSE_WORKERS", os.cpu_count() or 1, 0, 1024),
        turns_per_worker=reader.integer("GATEHOUSE_TURNS_PER_WORKER", 32, 1, 4096),
        waiting_turns=reader.integer("GATEHOUSE_WAITING_TURNS", 256, 0, 65536),
        spares=reader.integer("GATEHOUSE_SPARES", 1, 0, 64),
        api_timeout_s=reader.seconds("GATEHOUSE_API_TIMEOUT", 300),
        stall_timeout_s=reader.seconds("GATEHOUSE_STALL_TIMEOUT", 60),
        turn_timeout_s=reader.seconds("GATEHOUSE_TURN_TIMEOUT", 900),
        kill_grace_s=reader.seconds("GATEHOUSE_KILL_GRACE", 5),
        heartbeat_timeout_s=reader.seconds("GATEHOUSE_HEARTBEAT_TIMEOUT", 5, least=0.5),
        worker_memory_mib=reader.integer("GATEHOUSE_WORKER_MEMORY", 1024, 64, 1_048_576),
        worker_turns=reader.integer("GATEHOUSE_WORKER_TURNS", 5000, 1, 1_000_000_000),
        max_attempts=reader.integer("GATEHOUSE_MAX_ATTEMPTS", 3, 1, 100),
        when_busy=read_when_busy(reader, budgets.profiles),
        gather_s=reader.seconds("GATEHOUSE_GATHER", 0, least=0),
        context_tokens=read_context_tokens(reader, models),
        todo_cache_size=reader.integer("GATEHOUSE_TODO_CACHE_SIZE", 10_000, 1, 10_000_000),
        todo_cache_ttl_s=reader.seconds("GATEHOUSE_TODO_CACHE_TTL", 3600),
        log_flush_interval_s=reader.seconds("GATEHOUSE_LOG_FLUSH_INTERVAL", 0.5, least=0.5),
        budgets=budgets,
        inbox_limit=reader.integer("GATEHOUSE_INBOX_LIMIT", 10_000, 1, 100_000_000),
        sender_share=reader.share("GATEHOUSE_SENDER_SHARE", 0.25),
        data_dir=reader.path("GATEHOUSE_DATA_DIR", reader.text("GATEHOUSE_DATA_DIR", "./data")),
        database_url=read_database_url(reader),
        database_direct_url=reader.text("DATABASE_DIRECT_URL", ""),
        tool_modules=reader.dotted_names("GATEHOUSE_TOOLS"),
        mcp_config=reader.json_file("GATEHOUSE_MCP_CONFIG", "mcpServers", "servers"),
        fetch_allow=reader.hosts("GATEHOUSE_FETCH_ALLOW"),
        api_keys=read_api_keys(reader),
        allow=read_allow(reader),
        platforms=read_platforms(reader),
        webhooks=read_webhooks(reader),
        upkeep=read_upkeep(reader),
        session_from=read_session_from(reader),
        cors_origins=read_cors_origins(reader),
        unused_model_keys=read_unused_model_keys(reader),
        proxies=read_proxies(values),
    )


def read_system_prompt(reader: SettingsReader) -> str:
    return reader.text_or_file("GATEHOUSE_SYSTEM_PROMPT", DEFAULT_SYSTEM_PROMPT)


def read_models_and_budgets(reader: SettingsReader) -> tuple[tuple[ModelSpec, ...], ProfileBudgets]:
    """Read the chain of models, the budgets of everybody, and the profiles with theirs."""
    models = read_models(reader)
    budgets = read_budgets(reader, [(model.name, model.price) for model in models])
    prompt, tokens = read_system_prompt(reader), read_context_tokens(reader, models)
    agent = AgentProfile("", models, prompt, tokens, texts=read_language(reader))
    profiles = read_profiles(reader, agent, budgets, SESSION_PLATFORMS)
    return models, ProfileBudgets(budgets.budgets, budgets.dearest, profiles)


def reader_of_known_names(values: Mapping[str, str]) -> SettingsReader:
    """Refuse a GATEHOUSE_ name that does not exist, with the nearest one that does."""
    for name in sorted(values):
        if name.startswith("GATEHOUSE_") and name not in KNOWN_NAMES:
            near = difflib.get_close_matches(name, sorted(KNOWN_NAMES), n=1)
            raise SettingsError(name, "there is no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    return SettingsReader(values)


def read_session_from(reader: SettingsReader) -> str:
    source = reader.text("GATEHOUSE_SESSION_FROM", "")
    where, _, key = source.partition(":")
    if source and not (source == "user" or (where == "metadata" and key)):
        raise SettingsError("GATEHOUSE_SESSION_FROM", f"{source!r} is neither user nor metadata:KEY")
    return source


def read_cors_origins(reader: SettingsReader) -> tuple[str, ...]:
    origins = reader.words("GATEHOUSE_CORS_ORIGINS")
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s?#@*]+", origin):
            raise SettingsError(
                "GATEHOUSE_CORS_ORIGINS", f"{origin!r} is no origin such as https://chat.example.com, nor *"
            )
    return origins


def read_api_keys(reader: SettingsReader) -> tuple[str, ...]:
    """Read plain keys and ``name:role:sha256:HEX`` entries; they are kept as they are written."""
    words = reader.words("GATEHOUSE_API_KEYS")
    names = set()
    for word in words:
        try:
            names.add(parse_entry(word).name)
        except ValueError as error:
            raise SettingsError("GATEHOUSE_API_KEYS", str(error)) from None
    if len(names) < len(set(words)):
        raise SettingsError("GATEHOUSE_API_KEYS", "two entries have one name")
    return words


def read_host(reader: SettingsReader) -> str:
    host = reader.text("GATEHOUSE_HOST", "127.0.0.1").removeprefix("[").removesuffix("]")  # [::1] is ::1 in urls
    if host not in LOOPBACK_HOSTS and not read_api_keys(reader):
        raise SettingsError(
            "GATEHOUSE_HOST", f"{host} is open to other machines: set GATEHOUSE_API_KEYS too, or listen on 127.0.0.1"
        )
    return host


def read_unused_model_keys(reader: SettingsReader) -> tuple[str, ...]:
    """Return the keys that are set while GATEHOUSE_MODEL is not."""
    keys = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
    return () if reader.text("GATEHOUSE_MODEL", "") else tuple(key for key in keys if reader.text(key, ""))


def read_when_busy(reader: SettingsReader, profiles: Profiles) -> BusyRules:
    """Read ``mode, platform=mode, session key=mode``: a word alone is everybody's, the others narrow it."""
    name = "GATEHOUSE_WHEN_BUSY"
    modes: dict[str, WhenBusy] = {}
    for word in reader.words(name):
        whose, _, mode = (part.strip() for part in word.rpartition("="))
        if mode not in set(WhenBusy):
            raise SettingsError(name, f"{mode!r} is none of {', '.join(WhenBusy)}")
        if whose.partition(":")[0] not in {"", *SESSION_PLATFORMS}:
            known = ", ".join(SESSION_PLATFORMS)
            raise SettingsError(name, f"{whose!r} is neither a platform ({known}) nor a session's key")
        if whose in modes:
            raise SettingsError(name, f"names the mode of {whose or 'everybody'} twice")
        modes[whose] = WhenBusy(mode)
    return ProfileBusyRules(modes.pop("", WhenBusy.ENQUEUE), modes, profiles)


def read_database_url(reader: SettingsReader) -> str:
    url = reader.text("DATABASE_URL", "")
    if url and not url.startswith(("sqlite:///", "postgresql://", "postgres://")):
        scheme = url.partition(":")[0]
        raise SettingsError(
            "DATABASE_URL",
            f"{scheme}: is neither sqlite:///file nor postgresql://; unset it for SQLite in the data directory",
        )
    return url


def read_allow(reader: SettingsReader) -> tuple[str, ...]:
    entries = reader.words("GATEHOUSE_ALLOW")
    for entry in entries:
        platform = entry.partition(":")[0]
        if entry != "*" and not all(entry.partition(":")):
            raise SettingsError("GATEHOUSE_ALLOW", f"{entry!r} is neither * nor platform:user")
        if entry != "*" and platform not in PLATFORMS:
            raise SettingsError(
                "GATEHOUSE_ALLOW", f"there is no platform {platform!r}; there are {', '.join(PLATFORMS)}"
            )
    return entries
