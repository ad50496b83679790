"""Traces: a subscriber of Events that makes spans of them, one trace a message, by OpenTelemetry's GenAI conventions.

    message ── accept ── invoke_agent ── chat MODEL, execute_tool NAME … ── deliver

The id of a message is a uuid, and so the id of its trace: whichever process accepts it, runs its turn or delivers its
reply, on whichever host, its spans are of one trace without anybody passing anything on. Where a webhook came with a
``traceparent``, the trace is linked to that. Spans are sent in the background and never hold anything up.
Conventions: https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from shared.events import Event, Field
from shared.ids import made_at_s
from shared.tracing_settings import TracingSettings
from shared.version import VERSION

NANOS = 1_000_000_000
#: turns and messages that are remembered at most, and spans of one turn
OPEN_LIMIT = 10_000
SPANS_LIMIT = 500
#: seconds that the last spans may take at the end
CLOSE_WITHIN_S = 3.0
#: what ends a turn badly, or hands it on
HANDED_ON = {Event.TURN_PARKED: "parked", Event.TURN_RETRIED: "retried", Event.CLAIM_LOST: "lost"}

Attributes = dict[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class _Part:
    """One thing that happened in a turn, whose message is known only at the turn's end."""

    name: str
    kind: SpanKind
    began_ns: int
    ended_ns: int
    attributes: Attributes
    problem: str = ""


@dataclass(slots=True)
class _Turn:
    """A turn in progress."""

    began_ns: int
    parts: list[_Part] = field(default_factory=list)


class _Ids(IdGenerator):
    """Gives a root span the ids that follow from its message, and every other span a random one."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.root: SpanContext | None = None

    def generate_trace_id(self) -> int:
        return self.root.trace_id if self.root else self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        return self.root.span_id if self.root else self._random.generate_span_id()


class Tracing:
    """Makes spans of events and sends them; ``exporter`` is OTLP over HTTP unless another one is given."""

    def __init__(self, settings: TracingSettings, exporter: SpanExporter | None = None) -> None:
        self._ids = _Ids()
        resource = Resource.create({"service.name": settings.service_name, "service.version": VERSION})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        sender = exporter or OTLPSpanExporter(endpoint=settings.url, headers=dict(settings.headers))
        self._provider.add_span_processor(BatchSpanProcessor(sender))
        self._tracer = self._provider.get_tracer("gatehouse", VERSION)
        self._lock = threading.Lock()
        self._turns: dict[str, _Turn] = {}
        self._ended_ns: dict[str, int] = {}

    def close(self) -> None:
        """Send what is left; where nobody takes it that is given up after some seconds, in which it blocks."""
        sending = threading.Thread(target=self._provider.shutdown, name="last traces", daemon=True)
        sending.start()
        sending.join(CLOSE_WITHIN_S)

    def on_event(self, event: Event, fields: Mapping[str, Field]) -> None:
        """Make spans of an event (a subscriber of Events), on any thread."""
        session, message = str(fields.get("session", "")), str(fields.get("message", ""))
        with self._lock:
            match event:
                case Event.MESSAGE_ACCEPTED:
                    self._accepted(session, message, fields)
                case Event.SESSION_CLAIMED:
                    if len(self._turns) < OPEN_LIMIT:
                        self._turns[session] = _Turn(time.time_ns())
                case Event.MODEL_ANSWERED | Event.MODEL_FAILED | Event.TOOL_ENDED:
                    self._happened(event, session, fields)
                case Event.TURN_ENDED | Event.MESSAGE_DEAD:
                    self._turn_ended(event, session, message, fields)
                case handed_on if handed_on in HANDED_ON:
                    self._turn_ended(event, session, message, fields)
                case Event.REPLY_SENT | Event.REPLY_REFUSED:
                    self._delivered(event, session, message, fields)

    def _accepted(self, session: str, message: str, fields: Mapping[str, Field]) -> None:
        now = time.time_ns()
        link = link_to(str(fields.get("traceparent", "")))
        part = _Part("accept", SpanKind.SERVER, min(accepted_ns(message, now), now), now, names(session, message))
        self._add(message, part, [link] if link else [])

    def _happened(self, event: Event, session: str, fields: Mapping[str, Field]) -> None:
        turn = self._turns.get(session)
        if turn is not None and len(turn.parts) < SPANS_LIMIT:
            turn.parts.append(tool_part(fields) if event is Event.TOOL_ENDED else model_part(event, fields))

    def _turn_ended(self, event: Event, session: str, message: str, fields: Mapping[str, Field]) -> None:
        turn = self._turns.pop(session, None)
        if turn is None or root_of(message) is None:
            return
        now = time.time_ns()
        attributes = names(session, message) | {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "gatehouse",
            "gatehouse.turn.status": str(fields.get("status") or HANDED_ON.get(event, "dead")),
        }
        attributes |= {
            name: value for name, value in fields.items() if name.startswith("gen_ai.") and value is not None
        }
        problem = str(fields.get("error") or "")
        agent = self._add(
            message, _Part("invoke_agent gatehouse", SpanKind.INTERNAL, turn.began_ns, now, attributes, problem)
        )
        for part in turn.parts:
            self._add(message, part, parent=agent)
        if event not in HANDED_ON:
            if len(self._ended_ns) < OPEN_LIMIT:
                self._ended_ns[message] = now
            self._root(session, message, now, problem if event is Event.MESSAGE_DEAD else "")

    def _delivered(self, event: Event, session: str, message: str, fields: Mapping[str, Field]) -> None:
        now = time.time_ns()
        attributes = names(session, message) | {
            "gatehouse.reply.part": int(fields.get("part") or 0),
            "gatehouse.reply.attempts": int(fields.get("attempts") or 1),
        }
        problem = str(fields.get("reason") or "") if event is Event.REPLY_REFUSED else ""
        began_ns = self._ended_ns.pop(message, now)
        self._add(
            message, _Part(f"deliver {platform_of(session)}", SpanKind.CLIENT, began_ns, now, attributes, problem)
        )

    def _root(self, session: str, message: str, now: int, problem: str) -> None:
        """Make the span that all others of a message lie below."""
        self._ids.root = root_of(message)
        try:
            span = self._tracer.start_span(
                f"message {platform_of(session)}",
                Context(),
                SpanKind.CONSUMER,
                names(session, message),
                start_time=min(accepted_ns(message, now), now),
            )
        finally:
            self._ids.root = None
        if problem:
            span.set_status(Status(StatusCode.ERROR, problem))
        span.end(now)

    def _add(
        self, message: str, part: _Part, links: list[Link] | None = None, *, parent: SpanContext | None = None
    ) -> SpanContext | None:
        """Make a span of a message, below its root unless a parent is given; return what its children need."""
        above = parent or root_of(message)
        if above is None:
            return None
        context = trace.set_span_in_context(NonRecordingSpan(above), Context())
        span = self._tracer.start_span(part.name, context, part.kind, part.attributes, links, start_time=part.began_ns)
        if part.problem:
            span.set_status(Status(StatusCode.ERROR, part.problem))
        span.end(part.ended_ns)
        return span.get_span_context()


def model_part(event: Event, fields: Mapping[str, Field]) -> _Part:
    """Return a model call, or a try of one that failed."""
    now = time.time_ns()
    provider, _, model = str(fields.get("model", "")).partition(":")
    attributes: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model or provider,
        "gen_ai.conversation.id": str(fields.get("session", "")),
    }
    if event is Event.MODEL_ANSWERED:
        attributes |= {
            "gen_ai.response.model": str(fields.get("answered_by", "")),
            "gen_ai.usage.input_tokens": int(fields.get("input_tokens") or 0),
            "gen_ai.usage.output_tokens": int(fields.get("output_tokens") or 0),
        }
    problem = str(fields.get("problem") or "") if event is Event.MODEL_FAILED else ""
    return _Part(f"chat {model or provider}", SpanKind.CLIENT, now - took_ns(fields), now, attributes, problem)


def tool_part(fields: Mapping[str, Field]) -> _Part:
    """Return a tool call."""
    now, tool = time.time_ns(), str(fields.get("tool", ""))
    attributes: Attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
        "gen_ai.tool.call.id": str(fields.get("call", "")),
    }
    return _Part(f"execute_tool {tool}", SpanKind.INTERNAL, now - took_ns(fields), now, attributes)


def root_of(message: str) -> SpanContext | None:
    """Return the ids of a message's trace and of its root span, None for what is no message's id."""
    digits = message.removeprefix("msg_")
    try:
        number = int(digits, 16) if len(digits) == 32 else 0
    except ValueError:
        number = 0
    if not number or not number & 0xFFFFFFFFFFFFFFFF:
        return None
    return SpanContext(number, number & 0xFFFFFFFFFFFFFFFF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def link_to(traceparent: str) -> Link | None:
    """Return a link to the span that a ``traceparent`` names (https://www.w3.org/TR/trace-context/)."""
    parts = traceparent.split("-")
    if len(parts) < 4:
        return None
    return Link(SpanContext(int(parts[1], 16), int(parts[2], 16), is_remote=True))


def names(session: str, message: str) -> Attributes:
    """Return what every span of a message carries."""
    return {
        "gen_ai.conversation.id": session,
        "messaging.message.id": message,
        "messaging.system": platform_of(session),
    }


def platform_of(session: str) -> str:
    """Return the platform a session key begins with."""
    return session.partition(":")[0]


def accepted_ns(message: str, otherwise: int) -> int:
    """Return when a message was accepted, as its id tells, in unix nanoseconds."""
    at = made_at_s(message)
    return otherwise if at is None else int(at * 1000) * 1_000_000


def took_ns(fields: Mapping[str, Field]) -> int:
    """Return the time an event tells that something took, in nanoseconds."""
    seconds = fields.get("seconds")
    return int(seconds * NANOS) if isinstance(seconds, int | float) else 0
