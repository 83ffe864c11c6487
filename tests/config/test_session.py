"""What a session may do, from the file to the runtime."""

from __future__ import annotations

from random import Random

import pytest

from tests.config.helpers import config
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.health import HealthTable
from trio_wsb.daemon.services import ServiceBuilder
from trio_wsb.proxy.guard import NO_LIMITS, SessionLimits
from trio_wsb.proxy.services import ServiceRuntime


def built(session: str) -> ServiceRuntime:
    """Return the runtime of a service with this `session`."""
    http = config(
        f"http: {{services: {{s: {{loadBalancer: {{servers: [{{url: 'http://a'}}], session: {session}}}}}}}}}"
    ).http
    builder = ServiceBuilder(BackendTable(), CountTable(), HealthTable(), Random(1))
    runtime = builder.build(http, lambda _: None)["s"]
    assert isinstance(runtime, ServiceRuntime)
    return runtime


def test_every_limit_arrives() -> None:
    assert built(
        "{idleTimeout: 15m, maxLifetime: 24h, lifetimeJitter: 5%, pingInterval: 30s, pongTimeout: 10s, maxMessageBytes: 1MiB, "
        "messageRate: 600/m, messageBurst: 30, byteRate: 64KiB, byteBurst: 128KiB}"
    ).limits == SessionLimits(
        idle_timeout=900,
        max_lifetime=86400,
        lifetime_jitter=0.05,
        ping_interval=30,
        pong_timeout=10,
        max_message_bytes=1 << 20,
        message_rate=10,
        message_burst=30,
        byte_rate=65536,
        byte_burst=131072,
    )


@pytest.mark.parametrize("session", ["{}", "{writeTimeout: 3s}", "{pongTimeout: 5s, lifetimeJitter: 50%}"])
def test_no_limit_is_no_limit(session: str) -> None:
    assert built(session).limits is NO_LIMITS


@pytest.mark.parametrize(
    ("session", "timed"),
    [
        ("{idleTimeout: 1s}", True),
        ("{maxLifetime: 1h}", True),
        ("{pingInterval: 1s}", True),
        ("{messageRate: 1/s}", False),
    ],
)
def test_a_sweeper_looks_only_where_time_decides(session: str, timed: bool) -> None:
    assert built(session).limits.timed is timed
