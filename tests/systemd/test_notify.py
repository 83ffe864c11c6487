from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.systemd.manager import Manager, manager, parse
from trio_wsb.daemon.notify import (
    MAX_WAITING,
    STATUS_INTERVAL,
    STATUS_LIMIT,
    STOP_EXTENSION,
    Notifier,
    _status,
)

EXTENSION = str(int(STOP_EXTENSION * 1e6))


@pytest.fixture
def boss(tmp_path: Path) -> Iterator[Manager]:
    with manager(tmp_path / "notify") as boss:
        yield boss


@pytest.fixture
def notifier(boss: Manager) -> Iterator[Notifier]:
    notifier = Notifier(boss.address)
    yield notifier
    notifier.close()


def test_the_states_of_a_life(boss: Manager, notifier: Notifier) -> None:
    notifier.ready("serving")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready("serving anew")
    notifier.stopping("going")
    ready, reloading, again, stopping = boss.read()
    assert ready == {"READY": "1", "STATUS": "serving"}
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= after
    assert again == {"READY": "1", "STATUS": "serving anew"}
    assert stopping == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": EXTENSION, "STATUS": "going"}


def test_a_reload_that_ends_after_the_stop_began_does_not_take_it_back(
    boss: Manager, notifier: Notifier
) -> None:
    notifier.reloading()
    notifier.stopping("going")
    notifier.ready("reloaded")
    notifier.reloading()
    assert boss.read()[2:] == [{"STATUS": "reloaded"}]


def test_an_abstract_socket() -> None:
    with manager("@trio-wsb-test-notify") as boss:
        notifier = Notifier(boss.address)
        notifier.ready("here")
        notifier.close()
        assert boss.read() == [{"READY": "1", "STATUS": "here"}]


async def test_the_status_is_sent_when_it_has_changed(
    boss: Manager, notifier: Notifier, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    status = "0 sessions"
    notifier.ready(status)
    nursery.start_soon(notifier.run, lambda: status)
    await trio.sleep(10 * STATUS_INTERVAL)
    assert boss.read() == [{"READY": "1", "STATUS": "0 sessions"}]
    status = "1 session"
    await trio.sleep(1.5 * STATUS_INTERVAL)
    status = "2 sessions"
    await trio.sleep(10 * STATUS_INTERVAL)
    assert boss.read() == [{"STATUS": "1 session"}, {"STATUS": "2 sessions"}]


async def test_changes_are_sent_at_most_every_few_seconds(
    boss: Manager, notifier: Notifier, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    count = 0

    def describe() -> str:
        nonlocal count
        count += 1
        return str(count)

    nursery.start_soon(notifier.run, describe)
    await trio.sleep(5 * STATUS_INTERVAL + 0.1)
    assert len(boss.read()) == 6


async def test_the_timeout_is_extended_for_as_long_as_the_stop_takes(
    boss: Manager, notifier: Notifier, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(notifier.run, lambda: "going")
    await trio.sleep(1)
    boss.read()
    notifier.stopping("going")
    for _ in range(6):
        await trio.sleep(10)
        boss.read()
    first, *rest = boss.messages[1:]
    assert first["STOPPING"] == "1"
    assert rest == [{"EXTEND_TIMEOUT_USEC": EXTENSION}] * len(rest)
    assert len(rest) >= 2 * 60 / STOP_EXTENSION, "one that is late must not be the end"


async def test_the_watchdog_is_fed_at_twice_the_rate(
    boss: Manager, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    notifier = Notifier(boss.address, watchdog=30)
    notifier.ready("x")
    nursery.start_soon(notifier.run, lambda: "x")
    for _ in range(10):
        await trio.sleep(30.1)
        boss.read()  # its queue may have room for ten
    notifier.close()
    assert boss.messages[1:] == [{"WATCHDOG": "1"}] * 21


async def test_a_blocked_event_loop_starves_the_watchdog(boss: Manager, nursery: trio.Nursery) -> None:
    notifier = Notifier(boss.address, watchdog=0.01)
    nursery.start_soon(notifier.run, lambda: "")
    assert await boss.next() == {"WATCHDOG": "1"}
    boss.read()
    time.sleep(0.1)
    assert boss.read() == []
    assert await boss.next() == {"WATCHDOG": "1"}
    notifier.close()


async def test_a_busy_manager_gets_the_states_later_and_in_order(
    boss: Manager, notifier: Notifier, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    stuffing = stuff(boss)
    nursery.start_soon(notifier.run, lambda: "serving")
    await trio.sleep(1)
    notifier.reloading()
    notifier.ready("serving")
    await trio.sleep(1)
    assert boss.read() == [{"STUFFING": "1"}] * stuffing
    await trio.sleep(STATUS_INTERVAL)
    reloading, ready = boss.read()
    assert "RELOADING" in reloading
    assert ready == {"READY": "1", "STATUS": "serving"}


async def test_a_manager_that_never_reads_costs_bounded_memory(boss: Manager, notifier: Notifier) -> None:
    stuff(boss)
    for _ in range(100):
        notifier.reloading()
        notifier.ready("serving")
    assert len(notifier._waiting) == MAX_WAITING
    notifier.ready("last")
    for _ in range(MAX_WAITING):
        boss.read()
        notifier.failed("")
    assert [each for each in boss.messages if "READY" in each][-1] == {"READY": "1", "STATUS": "last"}


def stuff(boss: Manager) -> int:
    """Fill the manager's queue; return how many datagrams that took."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        count = 0
        while True:
            try:
                sock.sendto(b"STUFFING=1", boss.address)
            except BlockingIOError:
                return count
            count += 1


@pytest.mark.parametrize(
    "address", ["/nonexistent/notify", "/" + "x" * 200, "@" + "x" * 200, "@", "relative"]
)
def test_a_manager_that_is_not_there_is_one_line_in_the_log(address: str) -> None:
    notifier = Notifier(address)
    with capture_logs() as logs:
        notifier.ready("serving")
        notifier.reloading()
        notifier.stopping("going")
    notifier.close()
    assert [line["event"] for line in logs] == ["cannot notify the service manager"]


def test_a_manager_that_comes_back_is_found_again(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    with manager(tmp_path / "notify") as boss:
        notifier.ready("one")
        assert len(boss.read()) == 1
    (tmp_path / "notify").unlink()
    with capture_logs():
        notifier.ready("nobody hears it")
    with manager(tmp_path / "notify") as boss:
        notifier.ready("two")
        assert boss.read() == [{"READY": "1", "STATUS": "two"}]
    notifier.close()


async def test_without_an_address_nothing_is_done() -> None:
    notifier = Notifier(None, watchdog=1)
    notifier.ready("x")
    notifier.reloading()
    notifier.stopping("x")
    notifier.failed("x")
    await notifier.run(lambda: pytest.fail("nobody asked"))
    assert notifier.watchdog == 0
    notifier.close()


def test_the_reason_of_a_failed_start(boss: Manager, notifier: Notifier) -> None:
    notifier.failed("cannot start: a.yaml:1:1 no")
    assert boss.read() == [{"STATUS": "cannot start: a.yaml:1:1 no"}]


@pytest.mark.parametrize(
    ("variables", "watchdog"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "20000000"}, 20),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "42"}, 20),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "43"}, 0),
        ({"WATCHDOG_USEC": "-1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": ""}, 0),
    ],
)
def test_the_environment(variables: dict[str, str], watchdog: float) -> None:
    environment = {"NOTIFY_SOCKET": "/run/systemd/notify", "PATH": "/bin", **variables}
    notifier = Notifier.from_environment(environment, pid=42)
    assert notifier.watchdog == watchdog
    assert environment == {"PATH": "/bin"}, "children must not speak in the daemon's name"


@given(st.text())
def test_a_status_is_one_line_of_bounded_size(text: str) -> None:
    data = _status(text).encode()
    assert len(data) <= STATUS_LIMIT + len("STATUS=")
    assert set(parse(data + b"\nREADY=1")) == {"STATUS", "READY"}
