"""What every engine has to do: the port's promises about the audit trail."""

from __future__ import annotations

import pytest

from shared.store import Store
from shared.store.sql.tables import audit
from shared.traces import AuditEntry


async def test_the_newest_entries_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MOST_KEPT", 5)
    for number in range(12):
        await store.audit.add(AuditEntry(float(number), "act", "ana", f"{number}", "127.0.0.1"))
    assert [entry.target for entry in await store.audit.latest(100)] == ["11", "10", "9", "8", "7"]
    assert len(await store.audit.latest(2)) == 2


async def test_what_strangers_try_pushes_no_act_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MOST_REFUSED_KEPT", 3)
    await store.audit.add(AuditEntry(1.0, "worker_killed", "ana", "0", "127.0.0.1"))
    for number in range(8):
        await store.audit.add(AuditEntry(2.0, "key_refused", "", f"{number}", "1.2.3.4"))
    assert [entry.target for entry in await store.audit.latest(100)] == ["7", "6", "5", "0"]
