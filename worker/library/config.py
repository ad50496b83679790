"""What an agent of the library runs with: what its caller gave, and the environment for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shared.settings import load_agent_settings
from worker.frames import WorkerConfig
from worker.mcp_config import read_mcp_servers


def library_config(
    model: str | None,
    *,
    provider: str | None,
    api_key: str | None,
    base_url: str | None,
    system_prompt: str | None,
    tools: Sequence[str] | None,
    log_dir: Path | str | None,
) -> WorkerConfig:
    """Return a worker's configuration. Raises SettingsError."""
    settings = load_agent_settings(given_settings(model, provider, api_key, base_url))
    return WorkerConfig(
        models=settings.models,
        system_prompt=settings.system_prompt if system_prompt is None else system_prompt,
        tool_modules=settings.tool_modules if tools is None else tuple(tools),
        mcp_servers=read_mcp_servers(settings.mcp_config),
        fetch_allow=settings.fetch_allow,
        api_timeout_s=settings.api_timeout_s,
        stall_timeout_s=settings.stall_timeout_s,
        turn_timeout_s=settings.turn_timeout_s,
        context_tokens=settings.context_tokens,
        log_dir=str(settings.data_dir / "logs" if log_dir is None else log_dir),
        log_flush_interval_s=settings.log_flush_interval_s,
    )


def given_settings(
    model: str | None, provider: str | None, api_key: str | None, base_url: str | None
) -> dict[str, str]:
    """Return what was given as the settings that it stands for."""
    given = {}
    if model:
        given["GATEHOUSE_MODEL"] = f"{provider}:{model}" if provider else model
    for name in {word.partition(":")[0].strip().upper() for word in given.get("GATEHOUSE_MODEL", "").split(",")}:
        given |= {f"{name}_{what}": value for what, value in (("API_KEY", api_key), ("BASE_URL", base_url)) if value}
    return given
