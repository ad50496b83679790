"""docs/platforms.md names what there is; its worked example is tried with the platforms' conformance tests."""

from __future__ import annotations

from pathlib import Path

from gateway.platforms import ADAPTERS
from shared.platform_settings import PLATFORM_SETTINGS, required_variables

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "platforms.md").read_text("utf-8")


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
