"""The refresher over fake transports in virtual time."""

from __future__ import annotations

import itertools
import ssl
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tests.background.world import Answer, Body, FakeBackend, World, body, hang, report, target
from trio_wsb.addresses import BackendURL
from trio_wsb.background.counts import MAX_BODY, CountRefresher, CountTarget
from trio_wsb.background.rounds import AT_ONCE, FAILING_AT_ONCE
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable


async def test_a_report_reaches_the_table_and_the_backend(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()

    async def answer(_backend: FakeBackend) -> httpx.Response:
        return report(12, podName="pod-1", podIP="10.1.1.1", nodeName="node-a")

    world.answers[target().url] = answer
    world.configure(target())
    backend = world.backends.get(target().url)
    for _ in range(5):
        backend.begin_handshake()
        backend.session_opened(trio.current_time())
    await nursery.start(world.refresher.run)
    await trio.sleep(1.5)
    assert world.table.foreign(target().key) == 7
    assert world.table.age(target().key, trio.current_time()) <= 1.5
    assert (backend.pod_name, backend.pod_ip, backend.node_name) == ("pod-1", "10.1.1.1", "node-a")


async def test_the_request(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.configure(target(path="/metric?full=1"))
    await nursery.start(world.refresher.run)
    await trio.sleep(1)
    [request] = world.requests
    assert (request.method, str(request.url)) == ("GET", "http://10.0.0.1:8080/metric?full=1")
    assert request.headers["host"] == "10.0.0.1:8080"
    assert request.headers["user-agent"] == "trio-wsb"
    assert request.headers["accept-encoding"] == "identity"
    assert "cookie" not in request.headers


async def test_our_sessions_that_open_during_the_request_are_not_foreign(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    world.configure(target())
    backend = world.backends.get(target().url)
    reported = [50, 250]

    async def answer(_backend: FakeBackend) -> httpx.Response:
        if len(reported) == 1:
            for _ in range(300):
                backend.begin_handshake()
                backend.session_opened(trio.current_time())
        await trio.sleep(1)
        return report(reported.pop(0))

    world.answers[target().url] = answer
    await nursery.start(world.refresher.run)
    await trio.sleep(10)
    assert world.table.foreign(target().key) == 50
    await trio.sleep(30)
    assert not reported
    assert world.table.foreign(target().key) == 50


async def test_the_first_round_is_spread_over_a_second_and_the_rest_over_the_interval(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    targets = [target(number) for number in range(200)]
    started = trio.current_time()
    world.configure(*targets)
    await nursery.start(world.refresher.run)
    await trio.sleep(300)
    for each in targets:
        first, *rest = [moment - started for moment in world.asked(each)]
        assert first < 1.05
        gaps = [after - before for before, after in itertools.pairwise(rest)]
        assert all(27 <= gap <= 33.1 for gap in gaps)
        assert 14 < rest[0] - first < 46
    # Seconds 60 to 240 have a sixth of a round in every five seconds, give or take.
    moments = [moment - started for each in targets for moment in world.asked(each)]
    for second in range(60, 240, 5):
        assert 10 <= sum(second <= moment < second + 5 for moment in moments) <= 60
    assert len(world.transports) == 200


async def test_a_short_interval_spreads_the_first_round_over_itself(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    started = trio.current_time()
    world.configure(*(target(number, interval=0.2) for number in range(10)))
    await nursery.start(world.refresher.run)
    await trio.sleep(5)
    assert max(backend.asked[0] for backend in world.transports) - started < 0.25


async def test_an_interval_of_zero_is_not_a_loop(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    world.configure(target(interval=0.0))
    await nursery.start(world.refresher.run)
    await trio.sleep(10)
    assert 80 < len(world.requests) < 120


async def test_no_more_than_sixteen_at_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()

    async def slow(_backend: FakeBackend) -> httpx.Response:
        await trio.sleep(2)
        return report()

    targets = [target(number) for number in range(100)]
    world.answers = {each.url: slow for each in targets}
    world.configure(*targets)
    await nursery.start(world.refresher.run)
    await trio.sleep(1.9)
    assert world.refresher.statistics().under_way == AT_ONCE
    assert world.refresher.statistics().waiting == 100 - AT_ONCE
    assert world.refresher.statistics().targets == 100
    await trio.sleep(60)
    assert world.most_under_way == AT_ONCE
    assert all(world.table.foreign(each.key) == 7 for each in targets)


async def test_backends_that_hang_do_not_starve_the_others(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, log: list[Any]
) -> None:
    world = World()
    targets = [target(number) for number in range(200)]
    world.answers = {each.url: hang for each in targets[::2]}
    world.configure(*targets)
    await nursery.start(world.refresher.run)
    await trio.sleep(120)
    start, worst = trio.current_time(), 0.0
    while trio.current_time() < start + 120:
        await trio.sleep(1)
        worst = max(worst, *(world.table.age(each.key, trio.current_time()) for each in targets[1::2]))
        assert world.under_way <= AT_ONCE
    assert worst < 35
    assert world.under_way >= FAILING_AT_ONCE
    assert len([line for line in log if line["event"] == "no fresh report"]) == 100


async def test_reload(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    kept, changed, removed, new = (target(number) for number in range(4))
    world.configure(kept, changed, removed)
    await nursery.start(world.refresher.run)
    await trio.sleep(10.5)
    reloaded = trio.current_time()
    changed = target(1, interval=10.0)
    world.configure(kept, changed, new)
    await trio.sleep(1.1)
    transports = {backend.target.url: backend for backend in world.transports}
    assert transports[removed.url].closed
    assert world.table.foreign(removed.key) is None
    assert world.table.foreign(changed.key) == 7
    assert [moment >= reloaded for moment in world.asked(new)] == [True]
    assert [moment >= reloaded for moment in world.asked(changed)] == [False, True]
    await trio.sleep(100)
    assert len(world.asked(removed)) == 1
    assert len([backend for backend in world.transports if backend.target == kept]) == 1
    assert len(world.asked(kept)) in {4, 5}
    assert len(world.asked(changed)) >= 9

    world.configure()
    await trio.sleep(1)
    assert all(backend.closed for backend in world.transports)
    assert len(world.table) == 0
    assert world.refresher.statistics().targets == 0


async def test_a_reload_that_changes_nothing_asks_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    world.configure(target(1), target(2))
    await nursery.start(world.refresher.run)
    await trio.sleep(2)
    for _ in range(100):
        world.configure(target(1), target(2))
    await trio.sleep(2)
    assert len(world.requests) == 2


async def test_a_reload_ends_a_request_to_a_removed_backend(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, log: list[Any]
) -> None:
    world = World()
    world.answers[target().url] = hang
    world.configure(target(timeout=60.0))
    await nursery.start(world.refresher.run)
    await trio.sleep(2)
    assert world.under_way == 1
    world.configure()
    await trio.testing.wait_all_tasks_blocked()
    assert world.under_way == 0
    assert not log


async def test_the_shortest_interval_of_two_services_counts(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    world.configure(target(interval=30.0), target(interval=5.0), target(interval=60.0))
    await nursery.start(world.refresher.run)
    await trio.sleep(61)
    assert 10 <= len(world.requests) <= 14


async def test_a_stop_closes_every_transport(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.configure(*(target(number) for number in range(30)))
    async with trio.open_nursery() as nursery:
        await nursery.start(world.refresher.run)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert world.transports
    assert all(backend.closed for backend in world.transports)
    # Without a nursery a reload only notes what is wanted.
    world.configure(target(1))


async def test_a_transport_that_will_not_close_holds_nobody_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()

    class Stubborn(FakeBackend):
        async def aclose(self) -> None:
            await trio.sleep_forever()

    class Rude(FakeBackend):
        async def aclose(self) -> None:
            raise OSError("no")

    kinds = [Stubborn, Rude]
    refresher = CountRefresher(
        world.table, world.backends, transport=lambda each: kinds[each.url.port % 2](world, each)
    )
    refresher.configure(
        CountTarget(BackendURL("http", "10.0.0.1", port), "/metric", "agentsConnections", 30.0, 5.0)
        for port in (80, 81)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(refresher.run)
        await trio.sleep(2)
        started = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started <= 1.01


async def raising(error: Exception) -> httpx.Response:
    await trio.lowlevel.checkpoint()
    raise error


async def answering(response: httpx.Response) -> httpx.Response:
    await trio.lowlevel.checkpoint()
    return response


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: answering(report(-1)), "agentsConnections is negative"),
        (lambda _: answering(report(True)), "agentsConnections is not an integer"),
        (lambda _: answering(report(10**30)), "agentsConnections is over 1000000000"),
        (lambda _: answering(body([b"<html>"])), "the report is HTML or XML, not JSON"),
        (lambda _: answering(body([b"{"])), "the report is not JSON"),
        (lambda _: answering(httpx.Response(500)), "answered 500"),
        (lambda _: answering(httpx.Response(302, headers={"location": "http://10.9.9.9/"})), "answered 302"),
        (lambda _: answering(httpx.Response(204)), "answered 204"),
        (lambda _: answering(body([b" " * 1024] * 65)), "the report is over 64 KiB"),
        (lambda _: answering(body([], headers={"content-length": "65537"})), "the report is over 64 KiB"),
        (lambda _: answering(body([], headers={"content-length": "9" * 5000})), "the report is over 64 KiB"),
        (
            lambda _: answering(body([b"x"], headers={"content-encoding": "gzip"})),
            "the report is compressed, which was not asked for",
        ),
        (lambda _: answering(body([b" "] * 100, 0.1)), "no complete answer within 5 s"),
        (lambda _: raising(httpx.ConnectError("x")), "cannot connect: no connection"),
        (
            lambda _: raising(
                caused(httpx.ConnectError("x"), ExceptionGroup("", [OSError(111, "Connection refused")]))
            ),
            "cannot connect: Connection refused",
        ),
        (
            lambda _: raising(caused(httpx.ConnectError("x"), ssl.SSLError(1, "[SSL] wrong version number"))),
            "cannot connect: TLS failed (unknown reason)",
        ),
        (lambda _: raising(httpx.ReadError("x")), "the connection was lost"),
        (lambda _: raising(httpx.RemoteProtocolError("x")), "no valid HTTP/1.1 answer"),
        (lambda _: raising(UnicodeError("secret")), "the request failed (UnicodeError)"),
        (
            lambda _: raising(ExceptionGroup("", [ExceptionGroup("", [ValueError("secret")])])),
            "the request failed (ValueError)",
        ),
    ],
)
async def test_no_report_keeps_the_figure_and_is_logged_once(
    answer: Answer,
    reason: str,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    log: list[Any],
) -> None:
    world = World()
    world.configure(target(interval=10.0))
    await nursery.start(world.refresher.run)
    await trio.sleep(5)
    assert world.table.foreign(target().key) == 7
    world.answers[target().url] = answer
    await trio.sleep(70)
    assert world.table.foreign(target().key) == 7
    assert world.table.entry(target().key).reason == reason
    assert world.table.entry(target().key).failures >= 4
    assert log == [
        {
            "event": "no fresh report",
            "log_level": "warning",
            "backend": "http://10.0.0.1:8080",
            "path": "/metric",
            "reason": reason,
        }
    ]
    del world.answers[target().url]
    await trio.sleep(30)
    assert [line["event"] for line in log] == ["no fresh report", "reports again"]
    assert log[1]["connections"] == 7


async def test_too_large_a_body_is_read_no_further(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    stream = Body([b" " * 1024] * 1000)
    world.answers[target().url] = lambda _: answering(httpx.Response(200, stream=stream))
    world.configure(target())
    await nursery.start(world.refresher.run)
    await trio.sleep(1)
    assert stream.closed
    assert stream.read == MAX_BODY // 1024 + 1


async def test_a_transport_that_cannot_be_made_is_a_failure_like_any_other(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, log: list[Any]
) -> None:
    def broken(_target: CountTarget) -> httpx.AsyncBaseTransport:
        raise RuntimeError("no transport")

    table = CountTable()
    refresher = CountRefresher(table, BackendTable(), transport=broken)
    refresher.configure([target()])
    await nursery.start(refresher.run)
    await trio.sleep(100)
    assert [line["reason"] for line in log] == ["the request failed (RuntimeError)"]


async def test_an_idle_connection_that_was_closed_is_replaced_at_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, log: list[Any]
) -> None:
    world = World()

    async def twice(backend: FakeBackend) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        if len(backend.asked) > 2:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return report(len(world.requests))

    world.answers[target().url] = twice
    world.configure(target(interval=10.0))
    await nursery.start(world.refresher.run)
    await trio.sleep(100)
    assert not log
    assert len(world.transports) >= 4
    assert all(backend.closed for backend in world.transports[:-1])
    assert world.table.age(target().key, trio.current_time()) < 12
