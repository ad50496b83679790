"""How long what is old is kept, what is backed up by itself, and where traces go."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shared.errors import SettingsError
from shared.settings_reader import SettingsReader
from shared.tracing_settings import TracingSettings, read_tracing

DAY_S = 86_400.0
#: names of these settings without their ``GATEHOUSE_``
NAMES = "BACKUP_DIR BACKUP_INTERVAL BACKUP_KEEP KEEP_HISTORY KEEP_LOGS"


class Upkeep(msgspec.Struct, frozen=True):
    """What the gateway does beside its messages."""

    #: where backups are made; None for none
    backup_dir: Path | None = None
    #: seconds between two of them
    backup_interval_s: float = DAY_S
    #: how many are kept
    backups_kept: int = 7
    #: seconds after its last use a session is removed; None for never
    keep_history_s: float | None = None
    #: seconds after its last line a session's log, or a segment of it, is removed; None for never
    keep_logs_s: float | None = None
    #: where traces go; None for nowhere
    tracing: TracingSettings | None = None

    def secrets(self) -> list[str]:
        """Return every value that no log line may show."""
        return [value for _, value in self.tracing.headers] if self.tracing else []


def read_upkeep(reader: SettingsReader) -> Upkeep:
    """Read the settings. Raises SettingsError."""
    return Upkeep(
        backup_dir=_read_backup_dir(reader),
        backup_interval_s=reader.seconds("GATEHOUSE_BACKUP_INTERVAL", DAY_S, least=60),
        backups_kept=reader.integer("GATEHOUSE_BACKUP_KEEP", 7, 1, 10_000),
        keep_history_s=_read_days(reader, "GATEHOUSE_KEEP_HISTORY"),
        keep_logs_s=_read_days(reader, "GATEHOUSE_KEEP_LOGS"),
        tracing=read_tracing(reader),
    )


def _read_backup_dir(reader: SettingsReader) -> Path | None:
    name = "GATEHOUSE_BACKUP_DIR"
    text = reader.text(name, "")
    if not text:
        return None
    if not reader.text("DATABASE_URL", "sqlite:").startswith("sqlite:"):
        raise SettingsError(name, "backs up the SQLite file alone; for a server's database use pg_dump")
    directory = reader.path(name, text)
    if not directory.is_dir():
        raise SettingsError(name, f"{text!r} is no directory")
    return directory


def _read_days(reader: SettingsReader, name: str) -> float | None:
    """Return a number of days in seconds, None where nothing is set."""
    return reader.integer(name, 0, 1, 100_000) * DAY_S if reader.text(name, "") else None
