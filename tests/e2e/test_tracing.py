"""One trace a message, from its acceptance to its delivered reply, as a collector of OpenTelemetry gets it."""

from __future__ import annotations

import gzip
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from loadtests import signing
from loadtests.gateway_process import GatewayProcess
from shared.errors import SettingsError
from shared.settings import parse_settings

SECRET = "whsec_" + "c2VjcmV0" * 4
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(ThreadingHTTPServer):
    """Takes traces by OTLP, and replies of the gateway."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Door)
        self.spans: list[Any] = []
        self.headers: list[str] = []


class Door(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        collector = self.server
        assert isinstance(collector, Collector)
        if self.path == "/v1/traces":
            raw = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            request = ExportTraceServiceRequest.FromString(raw)
            collector.headers.append(self.headers.get("x-key", ""))
            for resource in request.resource_spans:
                collector.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Say nothing."""


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, args=(0.01,))
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def attributes(span: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value or str(pair.value.int_value) for pair in span.attributes}


def test_a_message_is_one_trace_from_the_webhook_to_its_delivered_reply(tmp_path: Path) -> None:
    with collecting() as collector:
        url = f"http://127.0.0.1:{collector.server_port}"
        settings = {
            "GATEHOUSE_WORKERS": "1",
            "GATEHOUSE_SPARES": "0",
            "STANDARD_WEBHOOK_SECRET": SECRET,
            "STANDARD_WEBHOOK_REPLY_URL": f"{url}/replies",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret%20key",
        }
        with GatewayProcess(tmp_path, settings) as gateway:
            signed = signing.standard(SECRET, "wh_1", time.time(), session="team", user="ana", text="add buy milk")
            headers = signed.headers | {"traceparent": TRACEPARENT}
            answer = httpx2.post(gateway.url + signed.path, content=signed.body, headers=headers, timeout=30)
            message = answer.headers["x-gatehouse-message"]
            gateway.wait_for("reply_sent")
            gateway.terminate()  # sends what is left
        assert set(collector.headers) == {"secret key"}
    spans = {span.name: span for span in collector.spans}
    assert {span.trace_id.hex() for span in collector.spans} == {message.removeprefix("msg_")}
    assert set(spans) == {
        "message standard",
        "accept",
        "invoke_agent gatehouse",
        "chat offline",
        "execute_tool todo",
        "deliver standard",
    }
    root, agent = spans["message standard"], spans["invoke_agent gatehouse"]
    assert root.parent_span_id == b""
    for name in ("accept", "invoke_agent gatehouse", "deliver standard"):
        assert spans[name].parent_span_id == root.span_id, name
    for name in ("chat offline", "execute_tool todo"):
        assert spans[name].parent_span_id == agent.span_id, name
        assert agent.start_time_unix_nano <= spans[name].start_time_unix_nano, name
    (link,) = spans["accept"].links
    assert (link.trace_id.hex(), link.span_id.hex()) == tuple(TRACEPARENT.split("-")[1:3])
    assert attributes(spans["chat offline"])["gen_ai.operation.name"] == "chat"
    assert attributes(spans["execute_tool todo"])["gen_ai.tool.name"] == "todo"
    assert re.fullmatch(r"\d+", attributes(agent)["gen_ai.usage.input_tokens"])
    assert attributes(agent)["gen_ai.conversation.id"].startswith("standard:")


def test_a_collector_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    settings = {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_SPARES": "0", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with GatewayProcess(tmp_path, settings) as gateway:
        body = {"model": "gatehouse", "messages": [{"role": "user", "content": "hello"}]}
        sent = httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30)
        assert sent.status_code == 200
        assert gateway.terminate() == 0


def test_the_settings_are_those_of_opentelemetry() -> None:
    assert parse_settings({}).upkeep.tracing is None
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/", "OTEL_SERVICE_NAME": "bot"}
    tracing = parse_settings(given | {"OTEL_EXPORTER_OTLP_HEADERS": "a=1,B=2"}).upkeep.tracing
    assert tracing is not None
    assert (tracing.url, tracing.headers) == ("http://c:4318/v1/traces", (("a", "1"), ("b", "2")))
    for name, value in (("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318"), ("OTEL_EXPORTER_OTLP_HEADERS", "no pair")):
        with pytest.raises(SettingsError, match=name):
            parse_settings(given | {name: value})
