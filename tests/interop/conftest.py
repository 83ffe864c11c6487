"""What the tests of this directory share."""

from __future__ import annotations

from tests.daemon.relays import both_relays  # noqa: F401 - a fixture
