"""AIAgent: the library door to the turn code that the workers run, compatible with the agent the project began with.

    agent = AIAgent(model="offline", session_id="kitchen")
    print(agent.chat("add buy milk"))

An agent is one session. Its turns run on a loop of its own in one background thread, started when first needed and
ended by ``close()``, when the agent is garbage, or at exit. ``docs/seed.md`` maps every claim of the first document.
"""

from __future__ import annotations

import datetime
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shared.events import Events
from shared.ids import new_message_id
from shared.messages import TurnStatus
from shared.redaction import Redaction
from shared.session_files import log_line
from shared.settings import load_agent_settings
from worker.agent.callbacks import Callbacks
from worker.agent.embedded import EmbeddedWorker, TurnReport
from worker.agent.imported import json_bytes, request_of, transcript_of
from worker.agent.models.port import ModelReply
from worker.agent.session_log import SessionLog
from worker.agent.todo import SCAN_LIMIT, TodoStore, hydrate
from worker.agent.turn import STEP_LIMIT, TurnRequest
from worker.channel import ModelSpec, WorkerConfig
from worker.log_ring import HEADER_BYTES, LogRing

RING_BYTES = 256 * 1024

Message = dict[str, Any]


class _Owned:
    """What an agent has to give back: its worker and its log, each made when first needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.worker: EmbeddedWorker | None = None
        self.log: SessionLog | None = None

    def close(self) -> None:
        self.close_log()
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.close()

    def close_log(self) -> None:
        log, self.log = self.log, None
        if log is not None:
            log.close()


class AIAgent:
    """One session of an agent, for use from any thread that is not its own; one turn at a time.

    ``model`` is ``provider:model``, a comma-separated chain of them, or ``offline``; what is not given comes from the
    environment (``GATEHOUSE_MODEL`` and the keys, see the README). ``tools`` are modules with ``@tool`` functions.
    ``log_dir`` is where the session log goes, ``logs`` in the data directory if not given. Raises SettingsError.
    """

    scan_limit = SCAN_LIMIT

    def __init__(
        self,
        model: str | None = None,
        session_id: str | None = None,
        *,
        provider: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        system_prompt: str | None = None,
        tools: Sequence[str] | None = None,
        max_iterations: int = STEP_LIMIT,
        platform: str = "library",
        log_dir: Path | str | None = None,
        save_session_log: bool = True,
        tool_progress_callback: Callable[[str, str], object] | None = None,
    ) -> None:
        settings = load_agent_settings(_given(model, provider, api_key, base_url))
        prompt = settings.system_prompt if system_prompt is None else system_prompt
        self._config = WorkerConfig(
            models=tuple(ModelSpec(m.provider, m.model, m.api_key, m.base_url) for m in settings.models),
            system_prompt=prompt,
            tool_modules=settings.tool_modules if tools is None else tuple(tools),
            api_timeout_s=settings.api_timeout_s,
            stall_timeout_s=settings.stall_timeout_s,
            turn_timeout_s=settings.turn_timeout_s,
            log_dir=str(settings.data_dir / "logs" if log_dir is None else log_dir),
            log_flush_interval_s=settings.log_flush_interval_s,
        )
        self.session_id = session_id or uuid.uuid4().hex
        self.platform = platform
        self.max_iterations = max_iterations
        self.session_start = datetime.datetime.now(datetime.UTC)
        self.messages: list[Message] = []
        self._save_logs = save_session_log
        self._tool_progress = tool_progress_callback
        self._todo = TodoStore()
        self._todo_is_own = False
        self._todo_store_hydrated = False
        self._todo_cache_key: tuple[int, int, int] | None = None
        self._todo_history: Sequence[Message] = ()
        self._logged: list[Message] = []
        self._say = Events().emit
        self._one_turn = threading.Lock()
        self._saving = threading.Lock()
        self._owned = _Owned()
        self._finalizer = weakref.finalize(self, self._owned.close)

    # ---- what people call

    def chat(self, message: str, stream_callback: Callable[[str], object] | None = None) -> str:
        """Say something and return the answer."""
        answer: str = self.run_conversation(message, stream_callback=stream_callback)["final_response"]
        return answer

    def run_conversation(
        self,
        user_message: str,
        system_message: str | None = None,
        conversation_history: Sequence[Message] | None = None,
        task_id: str | None = None,
        stream_callback: Callable[[str], object] | None = None,
    ) -> dict[str, Any]:
        """Run one turn and return what came of it; models that fail are reported in the result, not raised.

        Without ``conversation_history`` it goes on where the last call ended. The result has final_response, messages
        (history included), api_calls, completed, partial, interrupted, model, provider, input_tokens, output_tokens,
        total_tokens, and error and failed when it failed. ``stream_callback`` gets the text as it comes, on the
        agent's own thread.
        """
        self._worker().refuse_own_thread()
        with self._one_turn:
            history = self.messages if conversation_history is None else list(conversation_history)
            self._hydrate_todo_store(history if conversation_history is None else conversation_history)
            system, transcript = transcript_of(history)
            request = TurnRequest(
                session=self.session_id,
                message_id=task_id or new_message_id(),
                texts=(user_message,),
                history=transcript,
                system=system_message or system or self._config.system_prompt,
                deadline_s=self._config.turn_timeout_s,
                api_timeout_s=self._config.api_timeout_s,
                step_limit=self.max_iterations,
            )
            todo, before = self._todo, self._todo.items
            report = self._worker().run_turn(request, todo, Callbacks(stream_callback, self._tool_progress))
            self._todo_is_own = self._todo_is_own or todo.items != before
            self.messages = [*history, *(msgspec.json.decode(message) for message in report.messages)]
            self._save_session_log()
            return _result(report, self.messages)

    def interrupt(self, message: str | None = None) -> None:  # noqa: ARG002 - who interrupts says why; it is not needed
        """End the turn and the calls of this agent that run now, from any thread; nothing happens if none does."""
        if self._owned.worker is not None:
            self._owned.worker.interrupt()

    def close(self) -> None:
        """Write the log and end the agent's threads and connections; the next call would start them again."""
        self._owned.close()

    def __enter__(self) -> AIAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def todos(self) -> list[dict[str, str]]:
        """The todo list, as ``{id, content, status}``."""
        todos: list[dict[str, str]] = msgspec.json.decode(self._todo.to_bytes())
        return todos

    def session_document(self) -> dict[str, Any]:
        """Return the session as one JSON document, as the first session logs were."""
        first = self._config.models[0]
        return {
            "session_id": self.session_id,
            "model": first.model,
            "base_url": first.base_url,
            "platform": self.platform,
            "session_start": self.session_start.isoformat(),
            "last_updated": datetime.datetime.now(datetime.UTC).isoformat(),
            "system_prompt": self._config.system_prompt,
            "tools": [msgspec.to_builtins(spec) for spec in self._worker().tools()],
            "message_count": len(self.messages),
            "messages": self.messages,
        }

    # ---- the session log, under the names of seed.md

    def _init_session_log_batcher(self) -> None:
        """Start the thread that writes the log, unless it runs."""
        self._log()

    def _save_session_log(self, messages: Sequence[Message] | None = None) -> None:
        """Put what is new in the conversation (or in ``messages``) into the log; touches no disk."""
        if not self._save_logs:
            return
        with self._saving:
            messages = self.messages if messages is None else list(messages)
            known = _common_length(self._logged, messages)
            log, now = self._log(), time.time()
            for index, message in enumerate(messages[known:], known):
                log.put(self.session_id, log_line(now, self.session_id, json_bytes(message), index=index))
            self._logged[known:] = messages[known:]

    def _flush_session_log_async(self) -> None:
        """See that what waits is written in the background, within the flush interval."""
        self._log()

    def _write_session_log_sync(self) -> None:
        """Write what waits now, on the caller's time."""
        self._log().flush()

    def _deferred_session_log_flush(self) -> None:
        """Write what waits once the interval since the last write is over; the caller waits for it."""
        self._log().flush_when_due()

    def _shutdown_session_log_batcher(self) -> None:
        """Write what waits and end the thread; a later save starts it again."""
        self._owned.close_log()

    # ---- the todo list and the model, under the names of seed.md

    def _hydrate_todo_store(self, history: Sequence[Message]) -> None:
        """Take the todo list from the last ``scan_limit`` messages of a history, once for each history.

        A list that this agent's own turns have written does not come from a scan any more.
        """
        key = (id(history), len(history), id(history[-1]) if history else 0)
        if key == self._todo_cache_key or self._todo_is_own:
            return
        found = hydrate([json_bytes(message) for message in history[-self.scan_limit :]], self.scan_limit)
        self._todo = found or TodoStore()
        self._todo_store_hydrated = True
        self._todo_cache_key = key
        self._todo_history = history  # while it is held here no other history can get its id

    def _anthropic_messages_create(self, api_kwargs: Mapping[str, Any], timeout: float = 300.0) -> ModelReply:
        """Call the Anthropic model of the chain; raises as ``_interruptible_api_call`` does, ValueError without one."""
        spec = next((spec for spec in self._config.models if spec.provider == "anthropic"), None)
        if spec is None:
            raise ValueError("this agent has no anthropic model")
        named = msgspec.structs.replace(spec, model=str(api_kwargs.get("model") or spec.model))
        return self._worker().reply(request_of(api_kwargs, self.session_id), timeout, (named,))

    def _interruptible_api_call(self, api_kwargs: Mapping[str, Any], timeout: float = 300.0) -> ModelReply:
        """Call the model once with the messages, tools and max_tokens of ``api_kwargs``.

        ``timeout`` seconds bound the whole call; when they end, or ``interrupt()`` comes, its connection is closed.
        Raises TimeoutError, InterruptedError, ModelUnavailable, ModelRejected, ContextTooLong.
        """
        return self._worker().reply(request_of(api_kwargs, self.session_id), timeout, self._config.models)

    # ---- what is made when first needed

    def _worker(self) -> EmbeddedWorker:
        with self._owned.lock:
            if self._owned.worker is None:
                self._owned.worker = EmbeddedWorker(self._config, self._say)
            return self._owned.worker

    def _log(self) -> SessionLog:
        with self._owned.lock:
            if self._owned.log is None:
                ring = LogRing(memoryview(bytearray(HEADER_BYTES + RING_BYTES)))
                log_dir, interval_s = Path(self._config.log_dir), self._config.log_flush_interval_s
                hidden = Redaction(self._config.secrets())
                self._owned.log = SessionLog(log_dir, ring, interval_s, self._say, redaction=hidden)
                self._owned.log.start()
            return self._owned.log


def _given(model: str | None, provider: str | None, api_key: str | None, base_url: str | None) -> dict[str, str]:
    """Return what was given as the settings that it stands for."""
    given = {}
    if model:
        given["GATEHOUSE_MODEL"] = f"{provider}:{model}" if provider else model
    for name in {word.partition(":")[0].strip().upper() for word in given.get("GATEHOUSE_MODEL", "").split(",")}:
        given |= {f"{name}_{what}": value for what, value in (("API_KEY", api_key), ("BASE_URL", base_url)) if value}
    return given


def _result(report: TurnReport, messages: list[Message]) -> dict[str, Any]:
    ended, usage = report.ended, report.usage
    result: dict[str, Any] = {
        "final_response": ended.text,
        "messages": messages,
        "api_calls": usage.model_calls,
        "completed": ended.status is TurnStatus.REPLIED,
        "partial": ended.status is not TurnStatus.REPLIED and len(report.messages) > 2,
        "interrupted": ended.status is TurnStatus.INTERRUPTED,
        "model": report.model,
        "provider": report.provider,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if ended.status in {TurnStatus.FAILED, TurnStatus.TIMED_OUT}:
        result |= {"failed": True, "error": ended.error or ended.text}
    return result


def _common_length(old: list[Message], new: list[Message]) -> int:
    """Return how many messages both begin with."""
    length = min(len(old), len(new))
    if old[:length] == new[:length]:
        return length
    return next(index for index in range(length) if old[index] != new[index])


def main(words: Sequence[str]) -> int:
    """Say the words to an agent and print its answer."""
    with AIAgent() as agent:
        sys.stdout.write(agent.chat(" ".join(words)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
