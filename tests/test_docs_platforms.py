"""The worked example of docs/platforms.md runs as it stands, and the page names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.platforms import ADAPTERS
from gateway.platforms.port import ApiResponse, Sent, WebhookRequest
from shared.errors import SignatureRejected
from shared.messages import Reply, ReplyStatus
from shared.platform_settings import PLATFORM_SETTINGS, read_platform, required_variables
from shared.settings_reader import SettingsReader

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "platforms.md").read_text("utf-8")


def test_the_example_is_an_adapter() -> None:
    """It verifies, reads, sends and understands."""
    names: dict[str, Any] = {}
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/platforms.md", "exec", dont_inherit=True), names)
    settings = read_platform(
        SettingsReader({"PARROT_TOKEN": "secret", "PARROT_API_BASE": "http://127.0.0.1:9/"}), names["ParrotSettings"]
    )
    parrot = names["Parrot"](settings)
    req = WebhookRequest("POST", {"x-parrot": "secret"}, b'{"id":"1","room":"r","user":"ana","text":"hi"}', 0.0)
    parrot.verify(req)
    with pytest.raises(SignatureRejected):
        parrot.verify(msgspec.structs.replace(req, headers={"x-parrot": "other"}))
    (inbound,) = parrot.parse(req).inbound
    assert (inbound.session, inbound.user, inbound.text) == ("parrot:default:r", "ana", "hi")
    reply = Reply(
        inbound.session, "msg_1", 0, "parrot", parrot.chunks("*hello*")[0], inbound.reply, ReplyStatus.REPLIED
    )
    assert parrot.call(reply, 0.0).url == "http://127.0.0.1:9/messages"
    assert parrot.result(reply, ApiResponse(200, {}, b"")) == Sent("")
    assert parrot.chat(inbound.reply).key == "r"


def test_the_page_and_the_readme_name_every_platform_and_its_secrets() -> None:
    """So that nobody has to read the source to switch one on."""
    readme = (ROOT / "README.md").read_text("utf-8")
    example = (ROOT / ".env.example").read_text("utf-8")
    for name, settings in PLATFORM_SETTINGS.items():
        assert f"| `{name}` |" in PAGE
        for variable in required_variables(settings):
            assert f"`{variable}" in PAGE, variable
            assert variable in readme, variable
            assert variable in example, variable
    assert set(PLATFORM_SETTINGS) == set(ADAPTERS)
