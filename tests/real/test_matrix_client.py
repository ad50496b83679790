"""A person whose Matrix client is a library of others, on the homeserver of tests/real/test_matrix.py."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.real.foreign import SCRIPTS, installed
from tests.real.homeserver import BOT
from tests.real.test_matrix import Town, make_town


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with make_town(tmp_path_factory) as town:
        yield town


def test_a_person_with_matrix_nio_talks_with_the_bot(town: Town) -> None:
    """Markup, a thread, an edit of what waits and a redaction, a picture, typing: each as the library reads it."""
    python = installed("bots") / "bin" / "python"
    command = [str(python), str(SCRIPTS / "matrix_person.py"), town.synapse.url, town.ana.user_id, "pw-ana", BOT]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:] + town.gateway.log()[-3000:]
    found = json.loads(ended.stdout)
    assert found["room"]["body"].removeprefix("* ") == "bold and code <b>"
    assert "<b>bold</b>" in found["room"]["html"]
    assert "<code>code &lt;b&gt;</code>" in found["room"]["html"]
    assert found["thread"]["relation"].get("event_id")
    assert found["typed"]
    texts = [body.removeprefix("* ") for body in found["bodies"]]
    assert texts == [
        "bold and code <b>", "so it begins", "in the thread", "first", "new", "echo: (attached: point.png)",
        "it was red",
    ]  # fmt: skip
