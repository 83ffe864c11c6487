from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import trio
from structlog.testing import capture_logs

from tests.daemon.harness import PATIENCE, free_port
from trio_wsb.addresses import ListenAddress
from trio_wsb.daemon.activation import InheritedSocket
from trio_wsb.daemon.listeners import ListenerSet
from trio_wsb.errors import ConfigurationError

Wanted = dict[str, ListenAddress]


class Stage:
    """A listener set with sockets that somebody handed over, and what it accepts."""

    def __init__(self, nursery: trio.Nursery, *inherited: InheritedSocket) -> None:
        self.set = ListenerSet(self._accepted, inherited)
        self.nursery = nursery
        self._send, self.accepted = trio.open_memory_channel[str](100)

    def _accepted(self, entry_point: str, sock: socket.socket, _peer: object) -> None:
        sock.close()
        self._send.send_nowait(entry_point)

    def apply(self, **wanted: ListenAddress) -> None:
        self.set.apply(wanted, self.set.bind_new(wanted), self.nursery)

    async def reach(self, address: ListenAddress) -> str:
        """Connect; return the entry point that accepted."""
        with trio.fail_after(PATIENCE):
            stream = await trio.open_tcp_stream(address.host, address.port)
            async with stream:
                return await self.accepted.receive()


@pytest.fixture
def handed() -> Iterator[InheritedSocket]:
    with inherited("web") as sock:
        yield InheritedSocket("web", sock)


def inherited(name: str, port: int = 0) -> socket.socket:
    sock = socket.create_server(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


@pytest.fixture
async def stage(handed: InheritedSocket) -> AsyncIterator[Stage]:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, handed)
        yield stage
        nursery.cancel_scope.cancel()
    stage.set.close()
    assert handed.sock.fileno() == -1


def unused() -> ListenAddress:
    return ListenAddress("127.0.0.1", free_port())


async def test_any_mix_of_both(stage: Stage, handed: InheritedSocket) -> None:
    configured, other = unused(), unused()
    stage.apply(web=configured, admin=other)
    assert await stage.reach(handed.address) == "web"
    assert await stage.reach(other) == "admin"
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(configured.host, configured.port)
    assert set(stage.set.bound()) == {("web", str(handed.address)), ("admin", str(other))}


async def test_several_sockets_serve_one_entry_point(handed: InheritedSocket) -> None:
    async with trio.open_nursery() as nursery:
        second = InheritedSocket("web", inherited("web"))
        stage = Stage(nursery, handed, second)
        stage.apply(web=unused())
        assert await stage.reach(handed.address) == "web"
        assert await stage.reach(second.address) == "web"
        nursery.cancel_scope.cancel()
    stage.set.close()


async def test_a_reload_neither_closes_nor_needs_it(stage: Stage, handed: InheritedSocket) -> None:
    stage.apply(web=unused())
    descriptor = handed.sock.fileno()
    stage.apply(web=unused(), admin=unused())
    assert await stage.reach(handed.address) == "web"
    # The name is gone, but the address is the same.
    stage.apply(edge=handed.address)
    assert await stage.reach(handed.address) == "edge"
    assert handed.sock.fileno() == descriptor


async def test_an_entry_point_that_comes_back_gets_its_socket_back(
    stage: Stage, handed: InheritedSocket
) -> None:
    stage.apply(web=unused())
    assert await stage.reach(handed.address) == "web"
    with capture_logs() as logs:
        stage.apply(other=unused())
        await trio.testing.wait_all_tasks_blocked()
    assert ("warning", "no longer accepting, but systemd listens on") in [
        (line["log_level"], line["event"]) for line in logs
    ]
    # A client of the time between waits in its queue.
    with socket.create_connection((handed.address.host, handed.address.port)):
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            stage.accepted.receive_nowait()
        stage.apply(web=unused())
        with trio.fail_after(PATIENCE):
            assert await stage.accepted.receive() == "web"


async def test_an_address_that_cannot_be_bound_changes_nothing(stage: Stage, handed: InheritedSocket) -> None:
    stage.apply(web=unused())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = ListenAddress("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match=r"entryPoints\.admin\.address: cannot listen on"):
            stage.apply(web=unused(), admin=address)
    assert await stage.reach(handed.address) == "web"


async def test_what_no_entry_point_takes_is_closed_and_named(handed: InheritedSocket) -> None:
    async with trio.open_nursery() as nursery:
        stray = InheritedSocket("trio-wsb.socket", inherited("x"))
        address = stray.address
        stage = Stage(nursery, handed, stray)
        stage.apply(web=unused())
        with capture_logs() as logs:
            stage.set.drop_unclaimed()
        assert [(line["log_level"], line["name"], line["address"]) for line in logs] == [
            ("warning", "trio-wsb.socket", str(address))
        ]
        assert stray.sock.fileno() == -1
        stage.apply(web=unused(), late=address)
        assert await stage.reach(address) == "late", "and its address is free again"
        assert await stage.reach(handed.address) == "web"
        nursery.cancel_scope.cancel()
    stage.set.close()
