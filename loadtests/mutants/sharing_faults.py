"""Faults at what many share: receivers, rates, hosts, places, and what clients and operators ask for."""

from __future__ import annotations

from loadtests.mutants.fault import POOL, STORE, Fault

#: slow parties, several hosts, and what clients and operators ask for
SHARED = (
    Fault(
        "one receiver may take every exchange",
        "gateway/receivers.py",
        "        return (HOST_SHARE if self.answered_at >= 0 else UNPROVEN_SHARE) - self.open\n",
        "        return PLATFORM_SHARE\n",
        ("tests/gateway/test_receivers.py",),
    ),
    Fault(
        "a silent receiver is tried by everything",
        "gateway/receivers.py",
        "        if self.silent:\n            return 1 if",
        "        if self.silent and self.open < 0:\n            return 1 if",
        ("tests/gateway/test_receivers.py",),
    ),
    Fault(
        "life signs use up the room of the answer",
        "gateway/governor.py",
        "        return all(window.leaves_room(now) for window in self.windows)\n",
        "        return True\n",
        ("tests/gateway/test_governor.py",),
    ),
    Fault(
        "one sender's replies go before everybody else's",
        "shared/store/sql/tables/outbox.py",
        "SENDER_SPACING_US = 10 * 10**6\n",
        "SENDER_SPACING_US = 0\n",
        (f"{STORE}/test_conformance_outbox.py", "tests/gateway/test_delivery.py"),
    ),
    Fault(
        "what finds its app full books the places ahead",
        "gateway/governor.py",
        "        elif app_at <= now:\n            of_chat.add(now)\n            of_app.add(now)\n",
        "        else:\n            of_chat.add(now)\n            of_app.add(app_at)\n",
        ("tests/gateway/test_governor.py",),
    ),
    Fault(
        "what an app cannot take yet is leased and put back",
        "gateway/delivery.py",
        "            room = self._governor.room(platform, adapter.capabilities.app_rates, room)\n",
        "            pass\n",
        ("tests/gateway/test_delivery.py",),
    ),
    Fault(
        "a host goes on when its lease has ended",
        "worker/pool/host_lease.py",
        "        return Fence((age >= END_TURNS_AT) + (age >= KILL_WORKERS_AT))\n",
        "        return Fence((age >= 1e6) + (age >= 1e6))\n",
        (f"{POOL}/test_pool_hosts.py",),
    ),
    Fault(
        "a turn that waits for a word keeps its place",
        "shared/store/sql/claims.py",
        "            sessions.put_off(database, ref.session, outcome.within_s)\n",
        "            pass\n",
        ("tests/e2e/test_approval.py",),
    ),
    Fault(
        "a call that is repeated has a second turn",
        "gateway/openai_api/headers.py",
        '    return digest(caller, key) if key else ""\n',
        '    return ""\n',
        ("tests/gateway/openai_api/test_official_sdk.py",),
    ),
    Fault(
        "a call that was stopped costs nothing",
        "worker/agent/models/usage_counts.py",
        "        input_tokens=1 + sent_bytes // BYTES_PER_TOKEN,\n",
        "        input_tokens=1,\n",
        ("tests/worker/agent/models/test_turns.py",),
    ),
    Fault(
        "a reply that was refused for good is no dead letter",
        "shared/store/sql/tables/outbox.py",
        "UPDATE outbox SET state = 'failed', closed_at = ?",
        "UPDATE outbox SET state = 'sent', closed_at = ?",
        (f"{STORE}/test_conformance_outbox.py", f"{STORE}/test_conformance_sessions.py"),
    ),
)
