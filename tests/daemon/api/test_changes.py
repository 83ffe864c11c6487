"""What looking records: reports that stop, breakers, losses, certificates, the stop; and no kind that nobody records."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

import trio_wsb
from tests.daemon.state import PODS, World, make_world
from tests.daemon.test_views import look as status_of
from tests.tlsfiles import NOW, self_signed
from trio_wsb.addresses import parse_backend_url
from trio_wsb.balancing.counts import CountKey
from trio_wsb.daemon.api.changes import CERTIFICATES_INTERVAL, Changes
from trio_wsb.daemon.views import Moment
from trio_wsb.middleware.breaker import CircuitBreaker
from trio_wsb.observe.events import Kind
from trio_wsb.proxy.losses import FEW_BY_BACKEND, FEW_BY_PEER

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def recorded(world: World) -> list[tuple[Kind, str, dict[str, Any]]]:
    return [(event.kind, event.severity, dict(event.details)) for event in world.state.events]


async def test_a_backend_that_stops_reporting_and_reports_again(world: World) -> None:
    key = CountKey(parse_backend_url(PODS[1]), "/metric", "agentsConnections")
    world.report(PODS[1], 5, at=trio.current_time())
    await world.api.feed.look()
    for reason in ("cannot connect", "too slow"):  # silent all the same
        world.counts.fail(key, reason, trio.current_time())
        await world.api.feed.look()
    world.report(PODS[1], 6, at=trio.current_time())
    await world.api.feed.look()
    where = {"service": "wsbalancer", "backend": PODS[1]}
    assert recorded(world) == [
        (Kind.BACKEND_SILENT, "warning", {**where, "reason": "cannot connect"}),
        (Kind.BACKEND_REPORTS, "info", where),
    ]


async def test_a_backend_that_fails_again_and_again_is_told_once(
    world: World, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    await world.api.feed.look()
    backend = world.backend(PODS[0])
    for _ in range(5):
        backend.begin_handshake()
        backend.handshake_failed(trio.current_time())
        await world.api.feed.look()
        await trio.sleep(backend.passive.retry_at - trio.current_time() + 0.1)
        await world.api.feed.look()  # its time is over, which is no proof
    where = {"service": "wsbalancer", "backend": PODS[0]}
    assert recorded(world) == [(Kind.BACKEND_COOLING, "warning", where)]
    await world.open(nursery, PODS[0])
    await world.api.feed.look()
    await world.api.feed.look()
    assert recorded(world)[1:] == [(Kind.BACKEND_UP, "info", where)]
    nursery.cancel_scope.cancel()


def with_breaker(tmp_path: Path, expression: str = "NetworkErrorRatio() > 0.5") -> dict[str, Any]:
    options = {"expression": expression, "fallbackDuration": "2s", "recoveryDuration": "3s"}
    return {
        "http": {
            "middlewares": {"fuse": {"circuitBreaker": options}},
            "routers": {"chat": {"rule": "Path(`/`)", "service": "chat", "middlewares": ["fuse"]}},
            "services": {"chat": {"loadBalancer": {"servers": [{"url": PODS[0]}]}}},
        }
    }


def blow(breaker: CircuitBreaker) -> None:
    ticket = breaker.admit(trio.current_time())
    assert ticket is not None
    assert breaker.record(ticket, trio.current_time(), 502, 0.1, network_error=True)


def breaker_of(world: World) -> CircuitBreaker:
    (breaker,) = world.api.feed.changes.breakers.values()
    return breaker


async def test_a_breaker_that_opens_and_recovers(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = make_world(tmp_path, with_breaker(tmp_path))
    await world.api.feed.look()
    blow(breaker_of(world))
    for _ in range(7):
        await world.api.feed.look()
        await trio.sleep(1)
    names = {"middleware": "fuse", "router": "chat"}
    opened, closed = (Kind.BREAKER_OPENED, "warning", names), (Kind.BREAKER_CLOSED, "info", names)
    assert recorded(world) == [opened, closed]
    blow(breaker_of(world))
    await trio.sleep(60)  # opened and closed between two looks
    await world.api.feed.look()
    assert recorded(world) == [opened, closed] * 2
    blow(breaker_of(world))
    await world.api.feed.look()
    world.write(with_breaker(tmp_path, "NetworkErrorRatio() > 0.9"))  # a new one takes its place
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.reloader.run)
        assert (await world.reloader.reload()).succeeded
        nursery.cancel_scope.cancel()
    await world.api.feed.look()
    assert recorded(world) == [opened, closed] * 3


async def test_sessions_lost_in_numbers(world: World) -> None:
    losses = world.proxy.sessions.losses
    for _ in range(FEW_BY_BACKEND):
        losses.backend_lost("wsbalancer", world.backend(PODS[0]))
    for _ in range(FEW_BY_PEER):
        losses.client_lost("192.0.2.9")
    losses.report()
    at_backend = {"service": "wsbalancer", "backend": PODS[0], "sessions": FEW_BY_BACKEND, "left": 0}
    assert recorded(world) == [
        (Kind.SESSIONS_LOST, "warning", at_backend),
        (Kind.SESSIONS_LOST, "warning", {"peer": "192.0.2.9", "sessions": FEW_BY_PEER}),
    ]


async def test_a_certificate_that_expires_is_told_once_in_each_state(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    files = self_signed(tmp_path, "soon", ends=timedelta(hours=2))
    fine = self_signed(tmp_path, "fine", ends=timedelta(days=90))
    document = {"wsbalancer": {"pods": PODS}, "tls": {"certificates": [files.section, fine.section]}}
    document["http"] = {"routers": {"r": {"rule": "Path(`/x`)", "service": "wsbalancer", "tls": {}}}}
    world = make_world(tmp_path, document)
    changes = Changes(evolve(world.state, started=Moment(trio.current_time(), NOW.timestamp())))
    for _ in range(4):
        changes.record(None, {})
        await trio.sleep(CERTIFICATES_INTERVAL / 3)
    known = {"file": str(files.cert), "notAfter": f"{NOW + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"}
    expiring = (Kind.CERTIFICATE, "warning", {**known, "state": "expiring"})
    assert recorded(world) == [expiring]
    await trio.sleep(3 * 3600)
    changes.record(None, {})
    assert recorded(world) == [expiring, (Kind.CERTIFICATE, "error", {**known, "state": "expired"})]


async def test_what_the_kernel_does_is_told(world: World) -> None:
    with world.api.feed.listeners.listen() as listener:
        await world.api.feed.look()
        assert status_of(world)["kernelRelay"]["reason"] in await anext(listener)


def test_each_kind_is_recorded_by_somebody_and_documented() -> None:
    package = Path(trio_wsb.__file__).parent
    source = "\n".join(
        path.read_text()
        for path in package.rglob("*.py")
        if path.name != "events.py" or path.parent.name == "api"
    )
    reference = (DOCS / "reference/api.md").read_text()
    (table,) = re.findall(r"\| `kind` \|.*?\n\n", reference, re.DOTALL)
    for kind in Kind:
        assert f"Kind.{kind.name}" in source, kind
        assert f"`{kind}`" in table, kind
