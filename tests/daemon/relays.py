"""Tests of what every relay does in the running daemon: `pytest.mark.usefixtures("both_relays")`."""

from __future__ import annotations

import pytest

from tests.daemon import harness
from tests.net.kernel.stage import needs_kernel
from trio_wsb.proxy.relaying import RelayKind


@pytest.fixture(params=["stream", pytest.param("kernel", marks=needs_kernel)])
def both_relays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RelayKind:
    """Let the daemon relay every session of this test in one way, and see to it that it does."""
    kind: RelayKind = request.param
    monkeypatch.setattr(harness, "one_relay", kind)
    return kind
