"""Faults at what stands beside the way of a message: approvals, files, previews, shared servers, keys, budgets."""

from __future__ import annotations

from loadtests.mutants.fault import AGENT, POOL, STORE, Fault

#: approvals, files that people send, answers that are shown as they come, MCP servers of a host
SHOWN = (
    Fault(
        "a word that comes too late lets a call be made",
        "shared/store/sql/tables/approvals.py",
        "    change = (decision.value, session, database.now())\n",
        "    change = (decision.value, session, 0.0)\n",
        (f"{STORE}/test_conformance_commands.py",),
    ),
    Fault(
        "a button decides about calls that its question did not name",
        "shared/store/sql/tables/approvals.py",
        "(*change, question)) if question else",
        "(*change, question)) if not question else",
        (f"{STORE}/test_conformance_commands.py",),
    ),
    Fault(
        "a file of any size is taken",
        "gateway/platform_files.py",
        "        if len(answer.body) > self._limits.file_bytes:\n",
        "        if len(answer.body) > 1 << 40:\n",
        ("tests/gateway/test_platform_files.py",),
    ),
    Fault(
        "a file is fetched from a private network",
        "gateway/public_files.py",
        "        if not all(is_public(",
        "        if not any(True or is_public(",
        ("tests/gateway/test_platform_files.py",),
    ),
    Fault(
        "a redirect is shown the token of a platform",
        "gateway/public_files.py",
        'not location or "authorization" in headers:\n                return answer\n            '
        "url, headers = url.join(URL(location, encoded=True)), {}\n",
        "not location:\n                return answer\n            "
        "url, headers = url.join(URL(location, encoded=True)), headers\n",
        ("tests/gateway/test_platform_files.py",),
    ),
    Fault(
        "a stream that only grows shows what may still change",
        "gateway/answer_previews.py",
        "        stable = common_beginning(common_beginning(before, turn.beginning), going_on).rstrip()\n",
        "        stable = common_beginning(before, turn.beginning).rstrip()\n",
        ("tests/gateway/test_answer_previews.py", "tests/gateway/test_life_signs.py"),
    ),
    Fault(
        "an answer is sent beside a preview whose fate is unknown",
        "gateway/answer_previews.py",
        '                self._places[turn.message_id] = platform.placed(address, "")\n',
        "                pass\n",
        ("tests/gateway/test_answer_previews.py",),
    ),
    Fault(
        "a call at a shared server that died is never answered",
        "worker/pool/host_servers.py",
        "                    if call.sent:\n",
        "                    if not call.sent:\n",
        (f"{POOL}/test_host_servers.py",),
    ),
    Fault(
        "the calls of a dead worker go on at shared servers",
        "worker/pool/host_servers.py",
        "            self._drop(number)\n\n    def frame_came",
        "            self._calls.pop(number)\n\n    def frame_came",
        (f"{POOL}/test_host_servers.py",),
    ),
    Fault(
        "an image of one session is shown in another",
        "worker/agent/attachments.py",
        "        data = self._held.get((session, digest))\n",
        "        data = next((held for key, held in self._held.items() if key[1] == digest), None)\n",
        (f"{AGENT}/test_session_cache.py", f"{AGENT}/test_turn.py"),
    ),
)

#: keys and their roles, budgets, the audit trail, the gateway's own loops
GUARDED = (
    Fault(
        "a role opens the routes of another",
        "shared/api_keys.py",
        "        return needed is None or self in {needed, Role.ADMIN}\n",
        "        return needed is not None or self in {needed, Role.ADMIN}\n",
        ("tests/gateway/test_keys.py",),
    ),
    Fault(
        "a chat key shares the sessions of others",
        "gateway/keys.py",
        "        return self.name if self.role is Role.CHAT else SHARED_ACCOUNT\n",
        "        return SHARED_ACCOUNT\n",
        ("tests/gateway/test_keys.py",),
    ),
    Fault(
        "a cookie outlives its key",
        "gateway/keys.py",
        "        return Caller(named[0].name, named[0].role) if named else None\n",
        "        return Caller(named[0].name, named[0].role) if named else Caller(subject, Role.ADMIN)\n",
        ("tests/gateway/test_keys.py",),
    ),
    Fault(
        "a revoked key goes on reading what happens",
        "gateway/console.py",
        "                stream.end_refused()\n",
        "                pass\n",
        ("tests/gateway/test_keys.py",),
    ),
    Fault(
        "a repeated call of another key gets the first one's answer",
        "gateway/openai_api/headers.py",
        '    return digest(caller, key) if key else ""\n',
        '    return digest("", key) if key else ""\n',
        ("tests/gateway/test_keys.py",),
    ),
    Fault(
        "what running turns hold of a budget is not counted",
        "shared/store/sql/tables/spending.py",
        "        database.run(HOLD, (session, user, kept.tokens, kept.nanos))\n",
        "        database.run(HOLD, (session, user, 0, 0))\n",
        (f"{STORE}/test_conformance_spending.py",),
    ),
    Fault(
        "a turn that comes again is charged twice",
        "shared/store/sql/tables/spending.py",
        "    database.run(END_HOLD, (msgspec.json.encode(used), session))\n",
        '    database.run(END_HOLD, (b"", session))\n',
        (f"{STORE}/test_conformance_spending.py",),
    ),
    Fault(
        "an act of a command is lost with a store that is away",
        "gateway/command_acts.py",
        "            for entry in list(_entries(self._taken))[self._kept :]:\n",
        "            entries_left = list(_entries(self._taken))[self._kept :]\n"
        "            self._taken.unlink()\n"
        "            self._taken.touch()\n"
        "            for entry in entries_left:\n",
        ("tests/gateway/test_audit.py",),
    ),
    Fault(
        "a loop of the gateway ends with its first exception",
        "worker/pool/loops.py",
        "            except Exception as error:  # noqa: BLE001 - the boundary of a loop\n",
        "            except MemoryError as error:\n",
        ("tests/gateway/test_loops.py",),
    ),
)

ROOMS = (*SHOWN, *GUARDED)
