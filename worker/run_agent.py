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
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shared.events import Events
from shared.ids import new_message_id
from worker.agent.models.port import ModelReply
from worker.agent.todo import SCAN_LIMIT, TodoStore, hydrate
from worker.agent.turn_request import STEP_LIMIT, TurnRequest
from worker.frames import WorkerConfig
from worker.library.callbacks import Callbacks
from worker.library.config import library_config
from worker.library.conversation_log import ConversationLog
from worker.library.embedded import EmbeddedWorker
from worker.library.message_import import json_bytes, request_of, transcript_of
from worker.library.summary_memory import SummaryMemory
from worker.library.turn_report import as_result

Message = dict[str, Any]


class _Owned:
    """What an agent has to give back: its log, and its worker, made when first needed."""

    def __init__(self, config: WorkerConfig, session: str) -> None:
        self._config = config
        self._emit = Events().emit
        self._lock = threading.Lock()
        self.log = ConversationLog(config, session, self._emit)
        self.running: EmbeddedWorker | None = None

    def worker(self) -> EmbeddedWorker:
        with self._lock:
            if self.running is None:
                self.running = EmbeddedWorker(self._config, self._emit)
            return self.running

    def close(self) -> None:
        self.log.close()
        with self._lock:
            worker, self.running = self.running, None
        if worker is not None:
            worker.close()


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
        self._config = library_config(
            model, provider=provider, api_key=api_key, base_url=base_url,
            system_prompt=system_prompt, tools=tools, log_dir=log_dir,
        )  # fmt: skip
        self.session_id = session_id or uuid.uuid4().hex
        self.platform = platform
        self.max_iterations = max_iterations
        self.session_start = datetime.datetime.now(datetime.UTC)
        self.messages: list[Message] = []
        self._save_logs = save_session_log
        self._tool_progress = tool_progress_callback
        self._todo = TodoStore()
        self._todo_is_own = False
        self._summaries = SummaryMemory()
        self._todo_store_hydrated = False
        self._todo_cache_key: tuple[int, int, int] | None = None
        self._todo_history: Sequence[Message] = ()
        self._todo_history_end: tuple[int, Message] = (0, {})
        self._one_turn = threading.Lock()
        self._owned = _Owned(self._config, self.session_id)
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
        self._owned.worker().refuse_own_thread()
        with self._one_turn:
            history = self.messages if conversation_history is None else list(conversation_history)
            self._hydrate_todo_store(history if conversation_history is None else conversation_history)
            system, transcript = transcript_of(history)
            request = TurnRequest(
                session=self.session_id,
                message_id=task_id or new_message_id(),
                texts=(user_message,),
                history=transcript,
                summary=self._summaries.find(transcript),
                system=system_message or system or self._config.system_prompt,
                deadline_s=self._config.turn_timeout_s,
                window_tokens=self._config.context_tokens,
                step_limit=self.max_iterations,
            )
            todo, before = self._todo, self._todo.writes
            report = self._owned.worker().run_turn(request, todo, Callbacks(stream_callback, self._tool_progress))
            if report.ended.summary is not None:
                self._summaries.keep(report.ended.summary, [*transcript, *report.messages])
            self._todo_is_own = self._todo_is_own or todo.writes != before
            self.messages = [*history, *(msgspec.json.decode(message) for message in report.messages)]
            self._save_session_log()
            return as_result(report, self.messages)

    def interrupt(self, message: str | None = None) -> None:  # noqa: ARG002 - who interrupts says why; it is not needed
        """End the turn and the calls of this agent that run now, from any thread; nothing happens if none does."""
        if (worker := self._owned.running) is not None:
            worker.interrupt()

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
            "tools": [msgspec.to_builtins(spec) for spec in self._owned.worker().tools()],
            "message_count": len(self.messages),
            "messages": self.messages,
        }

    # ---- the session log, under the names of seed.md

    def _init_session_log_batcher(self) -> None:
        """Start the thread that writes the log, unless it runs."""
        self._owned.log.start()

    def _save_session_log(self, messages: Sequence[Message] | None = None) -> None:
        """Put what is new in the conversation (or in ``messages``) into the log; touches no disk."""
        if self._save_logs:
            self._owned.log.save(self.messages if messages is None else messages)

    def _flush_session_log_async(self) -> None:
        """See that what waits is written in the background, within the flush interval."""
        self._owned.log.start()

    def _write_session_log_sync(self) -> None:
        """Write what waits now, on the caller's time."""
        self._owned.log.start().flush()

    def _deferred_session_log_flush(self) -> None:
        """Write what waits once the interval since the last write is over; the caller waits for it."""
        self._owned.log.start().flush_when_due()

    def _shutdown_session_log_batcher(self) -> None:
        """Write what waits and end the thread; a later save starts it again."""
        self._owned.log.close()

    # ---- the todo list and the model, under the names of seed.md

    def _hydrate_todo_store(self, history: Sequence[Message]) -> None:
        """Take the todo list from the last ``scan_limit`` messages of a history, once for each history.

        A list that the agent's own turns have written does not come from a scan any more, and one that was found is not
        lost because the same history has grown past the limit.
        """
        key = (id(history), len(history), id(history[-1]) if history else 0)
        if key == self._todo_cache_key or self._todo_is_own:
            return
        found = hydrate([json_bytes(message) for message in history[-self.scan_limit :]], self.scan_limit)
        length, last = self._todo_history_end
        if found is not None or not (0 < length <= len(history) and history[length - 1] == last):
            self._todo = found or TodoStore()
        self._todo_history_end = (len(history), history[-1] if history else {})
        self._todo_store_hydrated = True
        self._todo_cache_key = key
        self._todo_history = history  # while it is held here no other history can get its id

    def _anthropic_messages_create(self, api_kwargs: Mapping[str, Any], timeout: float = 300.0) -> ModelReply:
        """Call the Anthropic model of the chain; raises as ``_interruptible_api_call`` does, ValueError without one."""
        spec = next((spec for spec in self._config.models if spec.provider == "anthropic"), None)
        if spec is None:
            raise ValueError("this agent has no anthropic model")
        named = msgspec.structs.replace(spec, model=str(api_kwargs.get("model") or spec.model))
        return self._owned.worker().reply(request_of(api_kwargs, self.session_id), timeout, (named,))

    def _interruptible_api_call(self, api_kwargs: Mapping[str, Any], timeout: float = 300.0) -> ModelReply:
        """Call the model once with the messages, tools and max_tokens of ``api_kwargs``.

        ``timeout`` seconds bound the whole call; when they end, or ``interrupt()`` comes, its connection is closed.
        Raises TimeoutError, InterruptedError, ModelUnavailable, ModelRejected, ContextTooLong.
        """
        return self._owned.worker().reply(request_of(api_kwargs, self.session_id), timeout, self._config.models)


def main(words: Sequence[str]) -> int:
    """Say the words to an agent and print its answer."""
    with AIAgent() as agent:
        sys.stdout.write(agent.chat(" ".join(words)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
