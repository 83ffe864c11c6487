"""Fixtures of the background tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """The lines logged during the test."""
    with structlog.testing.capture_logs() as lines:
        yield lines
