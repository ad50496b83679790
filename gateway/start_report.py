"""What the first line of a start tells: where it listens, with which model, for whom, and where everything lies."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from shared.events import Emit, Event, Field
from shared.settings import Settings
from shared.version import VERSION


def tell_start(emit: Emit, settings: Settings, url: str, host: str, port: int, pid: int) -> None:
    """Say that the gateway listens, and what a newcomer may have forgotten."""
    emit(Event.STARTED, url=url, **start_fields(settings), version=VERSION, host=host, port=port, pid=pid)
    for hint in hints(settings):
        emit(Event.SETTING_HINT, hint=hint)


def start_fields(settings: Settings) -> dict[str, Field]:
    """Return what the start tells beside the address."""
    return {
        "model": ",".join(model.name for model in settings.models),
        "platforms": ",".join(settings.platforms) or "none",
        "data_dir": str(settings.data_dir.absolute()),
    }


def hints(settings: Settings) -> Iterator[str]:
    """Yield in words what is set and has no effect, and whether others may write where everything lies."""
    if is_anybodys(settings.data_dir):
        yield (
            f"every user of this machine may write into {settings.data_dir.absolute()}, where conversations and keys "
            "lie; `chmod 700` it"
        )
    for name in settings.proxies.unused:
        yield f"{name} names a SOCKS proxy, which is not used: set it to an http proxy, or take it away"
    for names in shared_secrets(settings):
        yield f"{' and '.join(names)} have one value: who holds the one holds the other; give each its own"
    for name in settings.unused_model_keys:
        provider = name.partition("_")[0].lower()
        yield (
            f"{name} is set and GATEHOUSE_MODEL is not, so the offline model answers; "
            f"set GATEHOUSE_MODEL={provider}:MODEL to use it"
        )


def shared_secrets(settings: Settings) -> list[list[str]]:
    """Return the names of secrets of platforms that have one value, those of each value together."""
    names: dict[str, list[str]] = {}
    for platform in settings.platforms.values():
        for name, value in platform.named_secrets():
            names.setdefault(value, []).append(name)
    return [found for found in names.values() if len(found) > 1]


def is_anybodys(directory: Path) -> bool:
    """Tell whether every user may write into a directory; False where there is none."""
    try:
        return bool(directory.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False
