"""Many sessions lost at once are one line for the operator; a few are none."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from trio_wsb.addresses import parse_backend_url
from trio_wsb.balancing.backend import Backend
from trio_wsb.proxy.losses import FEW_BY_BACKEND, FEW_BY_PEER, Losses


@pytest.mark.parametrize("count", [FEW_BY_BACKEND - 1, FEW_BY_BACKEND, 300])
def test_a_backend_that_dies(count: int) -> None:
    backend, losses = Backend(parse_backend_url("http://10.0.0.1:8080")), Losses()
    for _ in range(count):
        losses.backend_lost("chat", backend)
    with capture_logs() as lines:
        losses.report()
        losses.report()  # said once
    expected = {
        "event": "backend lost sessions",
        "log_level": "warning",
        "service": "chat",
        "backend": "http://10.0.0.1:8080",
        "sessions": count,
        "left": 0,
    }
    assert lines == ([expected] if count >= FEW_BY_BACKEND else [])


@pytest.mark.parametrize("count", [FEW_BY_PEER - 1, FEW_BY_PEER])
def test_a_proxy_in_front_that_dies(count: int) -> None:
    losses = Losses()
    for _ in range(count):
        losses.client_lost("127.0.0.1")
    losses.client_lost("192.0.2.9")
    with capture_logs() as lines:
        losses.report()
    expected = {"event": "clients lost", "log_level": "warning", "peer": "127.0.0.1", "sessions": count}
    assert lines == ([expected] if count >= FEW_BY_PEER else [])
