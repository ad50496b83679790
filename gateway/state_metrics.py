"""Metrics of how things stand: read from the store, the disk and the process when they are scraped."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.scheduled_backup import copies
from shared.settings import Settings
from shared.traces import Backlog
from shared.version import VERSION


class StateCollector(Collector):
    """Yields how things stand; ``backlog`` is set before each scrape, None while the store does not tell.

    ``not_ready`` returns why the gateway is not ready, empty if it is.
    """

    def __init__(self, settings: Settings, not_ready: Callable[[], str]) -> None:
        self._settings = settings
        self._not_ready = not_ready
        self.backlog: Backlog | None = None

    def register(self, registry: CollectorRegistry) -> None:
        """Add this and what the library tells of the process: memory, descriptors, CPU time, start."""
        registry.register(self)
        ProcessCollector(registry=registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every family anew."""
        build = InfoMetricFamily("gatehouse_build", "The release that runs")
        build.add_metric([], {"version": VERSION, "python": platform.python_version()})
        yield build
        yield GaugeMetricFamily("gatehouse_ready", "Whether messages are accepted and run", not self._not_ready())
        yield GaugeMetricFamily("gatehouse_inbox_limit", "Waiting messages past which 503", self._settings.inbox_limit)
        if self.backlog is not None:
            yield from backlog_families(self.backlog)
        yield from self._disks()
        yield from self._backups()

    def _disks(self) -> Iterator[Metric]:
        free = GaugeMetricFamily("gatehouse_disk_free_bytes", "Room that is left", labels=["directory"])
        size = GaugeMetricFamily("gatehouse_disk_size_bytes", "Room that there is", labels=["directory"])
        for name, path in (("data", self._settings.data_dir), ("backup", self._settings.upkeep.backup_dir)):
            with suppress(OSError):
                if path is not None:
                    usage = shutil.disk_usage(path)
                    free.add_metric([name], usage.free)
                    size.add_metric([name], usage.total)
        yield from (free, size)

    def _backups(self) -> Iterator[Metric]:
        directory: Path | None = self._settings.upkeep.backup_dir
        if directory is None:
            return
        newest = 0.0
        with suppress(OSError):
            newest = max((path.stat().st_mtime for path in copies(directory)), default=0.0)
        yield GaugeMetricFamily("gatehouse_last_backup_timestamp_seconds", "When the newest copy was made", newest)
        interval_s = self._settings.upkeep.backup_interval_s
        yield GaugeMetricFamily("gatehouse_backup_interval_seconds", "Time between two copies", interval_s)


def backlog_families(backlog: Backlog) -> Iterator[Metric]:
    """Yield what is not done yet, and for how long."""
    yield GaugeMetricFamily(
        "gatehouse_oldest_waiting_seconds", "Age of the oldest message that no turn has begun for", backlog.oldest_s
    )
    yield GaugeMetricFamily("gatehouse_undelivered_replies", "Replies that are still to be sent", backlog.undelivered)
    yield GaugeMetricFamily(
        "gatehouse_oldest_undelivered_seconds",
        "Age of the oldest message with a reply that is still to be sent",
        backlog.oldest_undelivered_s,
    )
    dead = GaugeMetricFamily("gatehouse_dead_letters", "Dead letters that are kept", labels=["kind"])
    for kind, count in backlog.dead_by_kind.items():
        dead.add_metric([kind], count)
    yield dead
