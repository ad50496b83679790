"""The faults that are planted, by the guarantee that each breaks."""

from __future__ import annotations

from loadtests.mutants.fault import AGENT, POOL, STORE, TURNS, Fault
from loadtests.mutants.room_faults import ROOMS
from loadtests.mutants.sharing_faults import SHARED
from loadtests.mutants.storage_faults import KEPT_FILES

#: nothing accepted is lost
NOTHING_LOST = (
    Fault(
        "callers are answered before the commit",
        "shared/store/sqlite/writer.py",
        "            give(loop, self._run_together(database, jobs))\n",
        "            given = self._run_together(database, jobs[:1]) if len(jobs) == 1 else []\n"
        "            give(loop, given or [JobAnswer(job.future, None, None) for job in jobs])\n"
        "            given or self._run_together(database, jobs)\n",
        (f"{STORE}/test_sqlite_writer.py", f"{STORE}/test_conformance_inbox.py"),
    ),
    Fault(
        "a failed commit is answered as done",
        "shared/store/sqlite/writer.py",
        "            return self._refuse_damaged(jobs, error) if isinstance(error, DAMAGE) else _refuse(jobs, error)\n"
        "        return answers\n",
        "        return answers\n",
        (f"{STORE}/test_sqlite_faults.py", f"{STORE}/test_sqlite_writer.py"),
    ),
    Fault(
        "commits are not synced to the disk",
        "shared/store/sqlite/writer.py",
        'FULL, NORMAL = "full", "normal"',
        'FULL, NORMAL = "off", "normal"',
        (f"{STORE}/test_sqlite_disk.py", f"{STORE}/test_sqlite_faults.py", f"{STORE}/test_sqlite_power.py"),
    ),
    Fault(
        "a commit that must be synced is not, behind one that need not be",
        "shared/store/sqlite/writer.py",
        "all(job.relaxed for job in jobs)",
        "any(job.relaxed for job in jobs)",
        (f"{STORE}/test_sqlite_power.py",),
    ),
    Fault(
        "what an engine may commit later includes a settle",
        "shared/store/sql/claims.py",
        "        return await self._run(ref.session, _settle, ref, outcome)",
        "        return await self._run_relaxed(ref.session, _settle, ref, outcome)",
        (f"{STORE}/test_sqlite_power.py",),
    ),
    Fault(
        "a damaged database goes on acknowledging",
        "shared/store/sqlite/writer.py",
        '        self._damage = f"the database is damaged',
        '        _ = f"the database is damaged',
        (f"{STORE}/test_sqlite_faults.py",),
    ),
    Fault(
        "a message is acknowledged when the inbox is full",
        "shared/store/sql/inbox.py",
        "        raise refusal\n",
        "        pass\n",
        (f"{STORE}/test_conformance_inbox.py", "tests/e2e/test_overload.py"),
    ),
    Fault(
        "claims of a dead host are not adopted at the start",
        "shared/store/sql/claims.py",
        "    release_lost(database, foreign)\n    return len(foreign)\n",
        "    return len(foreign)\n",
        (f"{STORE}/test_sqlite_adoption.py",),
    ),
    Fault(
        "the gateway does not adopt at its start",
        "gateway/app.py",
        "            if adopted := await self.store.claims.adopt(self.host):\n",
        "            if adopted := 0:\n",
        ("tests/e2e/test_crash.py",),
    ),
    Fault(
        "a lease that ended is never claimed again",
        "shared/store/sql/claims.py",
        "        release_lost(database, sessions.lapsed(database))\n",
        "",
        (f"{STORE}/test_conformance_claims.py",),
    ),
    Fault(
        "a reply is recorded as sent before it was sent",
        "gateway/reply_sender.py",
        "                more = await self._store.outbox.delivered(reply, sent_id)\n                break\n",
        "                more = False\n                break\n",
        ("tests/gateway/test_delivery.py",),
    ),
    Fault(
        "the parts of a long reply behind the first are dropped",
        "shared/store/sql/outbox.py",
        "        for number, text in enumerate(texts[1:], 1)\n",
        "        for number, text in enumerate(texts[2:], 1)\n",
        (f"{STORE}/test_conformance_outbox.py", "tests/gateway/test_delivery.py"),
    ),
)

#: no second turn; one at a time, in order; every write fenced
FENCED = (
    Fault(
        "dedupe keys are not written",
        "shared/store/sql/tables/dedupe.py",
        "    for key in dict.fromkeys(filter(None, keys[1:3])):\n",
        "    for key in ():\n",
        (f"{STORE}/test_conformance_inbox.py", "tests/e2e/test_redelivery.py"),
    ),
    Fault(
        "known dedupe keys are not looked for",
        "shared/store/sql/inbox.py",
        "    if owner is not None:\n",
        "    if owner is not None and not owner:\n",
        (f"{STORE}/test_conformance_inbox.py",),
    ),
    Fault(
        "a settle does not check its epoch",
        "shared/store/sql/tables/claim_ends.py",
        "AND sessions.epoch = ? AND",
        "AND ? IS NOT NULL AND",
        (f"{STORE}/test_conformance_claims.py", f"{STORE}/test_conformance_settle.py"),
    ),
    Fault(
        "a renewal extends somebody else's lease",
        "shared/store/sql/tables/sessions.py",
        "WHERE session_key = ? AND epoch = ? AND host = ? AND (is claimed)",
        "WHERE session_key = ? AND epoch <= ? AND host <> ? AND (is claimed)",
        (f"{STORE}/test_conformance_claims.py",),
    ),
    Fault(
        "leases are never renewed",
        "worker/pool/turns/claimer.py",
        "            lost = await self._store.claims.renew(self._host, held, LEASE_S)\n",
        "            lost: list[ClaimRef] = []\n",
        (f"{TURNS}/test_claimer.py",),
    ),
    Fault(
        "lost leases are not noticed",
        "worker/pool/turns/claimer.py",
        "            self._renewed = now\n            return lost\n",
        "            self._renewed = now\n            return []\n",
        (f"{TURNS}/test_claimer.py",),
    ),
    Fault(
        "a session's second message is ready while its first runs",
        "shared/store/sql/tables/sessions.py",
        "state = CASE WHEN sessions.state = 'idle' THEN 'ready' ELSE sessions.state END,\n",
        "state = 'ready',\n",
        (f"{STORE}/test_conformance_claims.py", "tests/e2e/test_order.py"),
    ),
    Fault(
        "an earlier turn of the session goes on beside a new one",
        "worker/pool/turn_scheduler.py",
        "            self.lose(earlier)  # or the store would not have given this one\n",
        "            pass\n",
        (f"{POOL}/test_pool.py", f"{POOL}/test_pool_faults.py"),
    ),
)

#: a hung turn ends, a poison message cannot loop, innocents use no attempt
HANGS = (
    Fault(
        "a turn past its time and grace lives on",
        "worker/pool/hang_detector.py",
        "        return Cause.OVERRAN\n    if turn.interrupted",
        "        return None\n    if turn.interrupted",
        (f"{POOL}/test_hang_detector.py",),
    ),
    Fault(
        "a worker without a heartbeat lives on",
        "worker/pool/hang_detector.py",
        "    if silent_s > limits.heartbeat_timeout_s:\n",
        "    if silent_s > 1e9:\n",
        (f"{POOL}/test_hang_detector.py",),
    ),
    Fault(
        "workers are judged right after the host stood still",
        "worker/pool/hang_detector.py",
        "            self._judge_from_mono = now + LATE_S\n",
        "            pass\n",
        (f"{POOL}/test_pool.py",),
    ),
    Fault(
        "the wrong turn pays for a named culprit",
        "worker/pool/turns/crash_policy.py",
        "        return death.culprit if any(ran.turn == death.culprit for ran in turns) else 0\n",
        "        return turns[0].turn if turns else 0\n",
        (f"{TURNS}/test_crash_policy.py",),
    ),
    Fault(
        "neighbours of a culprit use an attempt",
        "worker/pool/turns/crash_policy.py",
        "        case Cause.DIED | Cause.KILLED | Cause.HUNG if culprit:\n            return Parked()\n",
        "        case Cause.DIED | Cause.KILLED | Cause.HUNG if culprit:\n"
        "            return strike(ran, max_attempts, death, worker)\n",
        (f"{TURNS}/test_crash_policy.py",),
    ),
    Fault(
        "a poison message has no last attempt",
        "worker/pool/turns/crash_policy.py",
        "    attempts = ran.attempts + ran.lost + 1\n    if attempts >= max_attempts:\n",
        "    attempts = ran.attempts + ran.lost + 1\n    if attempts >= 10**6:\n",
        (f"{TURNS}/test_crash_policy.py",),
    ),
    Fault(
        "a drain uses an attempt",
        "worker/pool/turns/crash_policy.py",
        "        case Cause.DRAINED:\n            return Parked()\n",
        "        case Cause.DRAINED:\n            return strike(ran, max_attempts, death, worker)\n",
        (f"{TURNS}/test_crash_policy.py",),
    ),
    Fault(
        "suspects run together",
        "worker/pool/turn_scheduler.py",
        "        if not turn.claim.messages[0].suspect:\n",
        "        if True:\n",
        (f"{POOL}/test_pool.py", "tests/e2e/test_hang.py"),
    ),
    Fault(
        "only the pid of a hung worker is killed, not its group",
        "worker/pool/processes/process_watch.py",
        "os.killpg(",
        "os.kill(",
        (f"{POOL}/test_process_watch.py",),
    ),
    Fault(
        "no hard end of a stop that hangs",
        "gateway/server.py",
        "        hard_end.start()\n",
        "",
        ("tests/gateway/test_server.py",),
    ),
    Fault(
        "an exception in the settler ends its loop",
        "worker/pool/turns/settler.py",
        "            except Exception as error:  # noqa: BLE001 - whatever it is, one claim pays for it and no other\n",
        "            except MemoryError as error:\n",
        (f"{POOL}/test_pool_faults.py",),
    ),
)

#: finished tool calls are not run again; what a turn did is kept
RESUMED = (
    Fault(
        "the journal is written before due checkpoints",
        "worker/pool/turns/settler.py",
        "        if (due.steps or due.summary) and not due.is_over:\n",
        "        if due.journal and not due.is_over:\n"
        "            await self._write_journal(ref, due.journal)\n"
        "            return None\n"
        "        if (due.steps or due.summary) and not due.is_over:\n",
        (f"{TURNS}/test_settler_journal.py",),
    ),
    Fault(
        "a finished call runs again when its turn resumes",
        "worker/agent/resumed_calls.py",
        "        if known is None or (known.result is None and repeatable):\n",
        "        if known is None or repeatable:\n",
        (f"{AGENT}/test_resume.py",),
    ),
    Fault(
        "a call that may not be repeated is repeated",
        "worker/agent/turn.py",
        "repeatable=repeatable)",
        "repeatable=True)",
        (f"{AGENT}/test_resume.py",),
    ),
    Fault(
        "a call that may not be repeated does not wait for its intent",
        "worker/agent/turn.py",
        "            await self._progress.begin_call(call, intent, once=not retry_safe)\n",
        "            await self._progress.begin_call(call, intent, once=False)\n",
        (f"{AGENT}/test_child_journal.py", f"{AGENT}/test_turn.py"),
    ),
    Fault(
        "a checkpoint leaves the journal of its step",
        "shared/store/sql/claims.py",
        "    journal.finish(database, ref.session, steps)\n",
        "",
        (f"{STORE}/test_conformance_journal.py",),
    ),
    Fault(
        "a settle leaves the checkpoints",
        "shared/store/sql/claims.py",
        "        checkpoints.remove(database, session)\n        journal.remove",
        "        journal.remove",
        (f"{STORE}/test_conformance_settle.py", f"{STORE}/test_conformance_journal.py"),
    ),
    Fault(
        "the todo list is not written with the history",
        "shared/store/sql/claims.py",
        "        history.write_todo(database, session, ended.todo)\n",
        "",
        (f"{STORE}/test_conformance_settle.py",),
    ),
    Fault(
        "a cached session of another version is taken",
        "worker/agent/session_cache.py",
        "        if entry.version != version:\n",
        "        if entry.version > version:\n",
        (f"{AGENT}/test_session_cache.py",),
    ),
    Fault(
        "the log ring of a dead worker is not salvaged",
        "worker/pool/supervisor.py",
        "            if worker.n is not None and self._log_dir is not None:\n",
        "            if worker.n is None and self._log_dir is not None:\n",
        (f"{POOL}/test_supervisor.py", f"{POOL}/test_pool.py", "tests/e2e/test_logs.py"),
    ),
    Fault(
        "steered words are lost with a kill",
        "worker/agent/turn.py",
        "        self._joined += tuple(words.id for words in self._words)\n",
        "",
        (f"{AGENT}/test_steer.py",),
    ),
)

#: nobody unverified gets in; nobody pays for another
SHUT = (
    Fault(
        "webhooks are parsed before they are verified",
        "gateway/webhook.py",
        "        platform.verify(req)\n        parsed = platform.parse(req)\n",
        "        parsed = platform.parse(req)\n        platform.verify(req)\n",
        ("tests/gateway/test_webhook.py", "tests/gateway/test_webhook_hostile.py"),
    ),
    Fault(
        "webhooks are not verified",
        "gateway/webhook.py",
        "        platform.verify(req)\n",
        "",
        ("tests/gateway/test_webhook.py",),
    ),
    Fault(
        "a signature header may come twice",
        "gateway/webhook.py",
        "        elif name in once:\n",
        "        elif False:\n",
        ("tests/gateway/test_webhook_hostile.py",),
    ),
    Fault(
        "strangers are let in",
        "gateway/inbound_events.py",
        "        if admission is not Admission.ALLOWED:\n",
        "        if admission is Admission.REFUSED:\n",
        ("tests/gateway/test_webhook.py", "tests/gateway/test_access.py"),
    ),
    Fault(
        "one sender may fill the inbox",
        "shared/store/sql/inbox.py",
        "        self._room = InboxLimits(limit, max(1, int(limit * share)))\n",
        "        self._room = InboxLimits(limit, limit)\n",
        (f"{STORE}/test_conformance_inbox.py",),
    ),
    Fault(
        "a slow page is not dropped",
        "gateway/event_stream.py",
        "        if self._size > READER_LIMIT_BYTES:\n",
        "        if self._size > 1 << 40:\n",
        ("tests/gateway/test_turn_broadcast.py",),
    ),
    Fault(
        "an observer that raises stops the pool's settle",
        "gateway/turn_broadcast.py",
        "            except Exception as error:  # noqa: BLE001 - the pool settles,",
        "            except MemoryError as error:  #",
        ("tests/gateway/test_turn_broadcast.py",),
    ),
    Fault(
        "the delivery's loop ends with an exception",
        "gateway/delivery.py",
        "            except Exception as error:  # noqa: BLE001 - whatever it is, the other replies",
        "            except MemoryError as error:  #",
        ("tests/gateway/test_delivery.py",),
    ),
)

FAULTS = (*NOTHING_LOST, *FENCED, *HANGS, *RESUMED, *SHUT, *KEPT_FILES, *SHARED, *ROOMS)
