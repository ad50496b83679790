"""Fixtures every test may use, and how property tests run."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings


def pytest_configure() -> None:
    """Let an example of a property test take as long as a loaded machine needs."""
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, as the product does."""
    return "asyncio"
