"""Where traces go, under the names that OpenTelemetry gives these settings."""

from __future__ import annotations

import importlib.util
import sys
from urllib.parse import unquote

import msgspec

from shared.errors import SettingsError
from shared.settings_reader import SettingsReader

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"


class TracingSettings(msgspec.Struct, frozen=True):
    """Where traces are sent by OTLP over HTTP."""

    #: the url that takes traces
    url: str
    #: what each request carries, keys of services among it
    headers: tuple[tuple[str, str], ...]
    #: the name this gateway goes by in traces
    service_name: str


def read_tracing(reader: SettingsReader) -> TracingSettings | None:
    """Read the settings, None where no endpoint is set. Raises SettingsError."""
    base, url = reader.base_url(ENDPOINT, ""), reader.url(TRACES_ENDPOINT, "")
    if not base and not url:
        return None
    if importlib.util.find_spec("opentelemetry.exporter") is None:
        raise SettingsError(
            ENDPOINT if base else TRACES_ENDPOINT,
            f"needs `{sys.executable} -m pip install '.[otel]'` in Gatehouse's directory",
        )
    pairs = []
    for word in reader.words(HEADERS):
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise SettingsError(HEADERS, "is not NAME=value, comma-separated")
        pairs.append((name.strip().lower(), unquote(value.strip())))
    return TracingSettings(url or f"{base}/v1/traces", tuple(pairs), reader.text("OTEL_SERVICE_NAME", "gatehouse"))
