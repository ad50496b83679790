"""Fixtures every test may use, and how property tests run."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings


def pytest_configure() -> None:
    """Let an example take as long as a loaded machine needs, and the same commit try the same examples."""
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("gate", patient, derandomize=True)
    settings.register_profile("explore", patient, print_blob=True)
    settings.load_profile("gate")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, as the product does."""
    return "asyncio"
