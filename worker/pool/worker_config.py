"""What workers are told about the world, taken from the settings."""

from __future__ import annotations

from shared.settings import Settings
from worker.frames import WorkerConfig
from worker.mcp_config import read_mcp_servers

#: seconds between two beats at the most and at the least: a worker at rest does little else than beat
LONGEST_BEAT_S, SHORTEST_BEAT_S = 0.25, 0.05


def known_secrets(settings: Settings) -> tuple[str, ...]:
    """Return every value that no log line and no export may show. Raises SettingsError."""
    return (*settings.secrets(), *worker_config(settings).secrets())


def worker_config(settings: Settings) -> WorkerConfig:
    """Return the configuration of a worker: no platform secret is in it. Raises SettingsError."""
    return WorkerConfig(
        models=settings.models,
        system_prompt=settings.system_prompt,
        tool_modules=settings.tool_modules,
        mcp_servers=read_mcp_servers(settings.mcp_config),
        fetch_allow=settings.fetch_allow,
        api_timeout_s=settings.api_timeout_s,
        stall_timeout_s=settings.stall_timeout_s,
        turn_timeout_s=settings.turn_timeout_s,
        context_tokens=settings.context_tokens,
        todo_cache_size=settings.todo_cache_size,
        todo_cache_ttl_s=settings.todo_cache_ttl_s,
        tool_threads=settings.turns_per_worker + settings.waiting_turns,
        beat_s=beat_s(settings),
        log_dir=str(settings.data_dir.resolve() / "logs"),
        log_flush_interval_s=settings.log_flush_interval_s,
        profiles=tuple(profile.agent for profile in settings.profiles.profiles),
        texts=settings.profiles.texts,
    )


def beat_s(settings: Settings) -> float:
    """Return the seconds between two beats: ten within the heartbeat's timeout, five within the grace of a kill.

    Whether a turn was told of its end is known by a beat in the second half of that grace.
    """
    wanted = min(settings.heartbeat_timeout_s / 10, settings.kill_grace_s / 5)
    return max(SHORTEST_BEAT_S, min(LONGEST_BEAT_S, wanted))
