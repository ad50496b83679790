"""The embedded engine is opened by one host alone: what others left is that host's at its start."""

from __future__ import annotations

from pathlib import Path

from tests.shared.store.scratch import Scratch, sqlite


async def test_the_host_that_opens_the_file_takes_over_at_once_what_others_ran(tmp_path: Path) -> None:
    scratch = Scratch(sqlite, tmp_path)
    store = await scratch.open()
    await scratch.accept()
    (claim,) = (await store.claims.claim("dead", 1, 30)).claims
    assert await store.claims.adopt("host") == 1
    assert await store.claims.adopt("host") == 0
    (again,) = (await store.claims.claim("host", 1, 30)).claims
    assert again.ref.session == claim.ref.session
    await scratch.close()
