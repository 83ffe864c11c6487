"""Listening: where, and an accept loop that survives whatever happens."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import socket
from collections.abc import Iterator
from functools import partial

import pytest
import structlog
import structlog.testing
import trio
import trio.testing

from tests.net.pairs import descriptors
from trio_wsb.addresses import ListenAddress
from trio_wsb.net import listener as listening
from trio_wsb.net.listener import ACCEPT_BATCH, ACCEPT_PAUSE, accept_forever, bind, most_for_clients
from trio_wsb.net.sockets import dial_tcp


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with bind(ListenAddress("127.0.0.1", 0)) as bound:
        yield bound


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    """Sockets that are closed at the end of the test."""
    sockets: list[socket.socket] = []
    yield sockets
    for one in sockets:
        one.close()


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    client = socket.socket(family)
    client.connect((host, port))
    return client


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this host")


# Where.


@needs_ipv6
def test_no_host_means_both_families() -> None:
    with bind(ListenAddress("", 0)) as both:
        port = both.getsockname()[1]
        connect(port).close()
        connect(port, "::1").close()


@needs_ipv6
def test_an_ipv6_address_leaves_ipv4_to_others() -> None:
    with bind(ListenAddress("::1", 0)) as six:
        port = six.getsockname()[1]
        with bind(ListenAddress("127.0.0.1", port)):
            connect(port, "::1").close()
            connect(port).close()


def test_no_host_means_ipv4_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    listen = listening._listen

    def without_ipv6(
        family: socket.AddressFamily, host: str, port: int, *, reuse_port: bool
    ) -> socket.socket:
        if family is socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return listen(family, host, port, reuse_port=reuse_port)

    monkeypatch.setattr(listening, "_listen", without_ipv6)
    with bind(ListenAddress("", 0)) as four:
        assert four.family is socket.AF_INET
        connect(four.getsockname()[1]).close()


def test_an_address_in_use(sock: socket.socket) -> None:
    before = descriptors()
    with pytest.raises(OSError, match="in use") as caught:
        bind(ListenAddress("127.0.0.1", sock.getsockname()[1]))
    assert caught.value.errno == errno.EADDRINUSE
    assert descriptors() == before


def test_an_address_that_instances_share() -> None:
    with bind(ListenAddress("127.0.0.1", 0), reuse_port=True) as first:
        address = ListenAddress("127.0.0.1", first.getsockname()[1])
        with bind(address, reuse_port=True) as second:
            assert second.getsockname() == first.getsockname()
        with pytest.raises(OSError, match="in use"):
            bind(address)


def test_an_address_of_another_host() -> None:
    with pytest.raises(OSError) as caught:
        bind(ListenAddress("192.0.2.1", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_the_socket_is_ready_for_trio(sock: socket.socket) -> None:
    assert sock.gettimeout() == 0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    assert not os.get_inheritable(sock.fileno())


# Accepting.


class Flaky(socket.socket):
    """A listening socket whose next accepts fail with `errors`."""

    errors: list[int]
    accepts = 0

    @classmethod
    def take_over(cls, sock: socket.socket, *errors: int) -> Flaky:
        flaky = cls(fileno=sock.detach())
        flaky.errors = list(errors)
        return flaky

    def accept(self) -> tuple[socket.socket, object]:
        self.accepts += 1
        if self.errors:
            error = self.errors.pop(0)
            raise OSError(error, os.strerror(error))
        return super().accept()


class Accepted:
    """Takes over what is accepted."""

    def __init__(self, opened: list[socket.socket]) -> None:
        self.peers: list[object] = []
        self._opened = opened

    def __call__(self, sock: socket.socket, peer: object) -> None:
        self._opened.append(sock)
        self.peers.append(peer)


def name() -> str:
    return "web"


@pytest.mark.parametrize("ours", [True, False])
async def test_connections_are_handed_over_ready(
    ours: bool, sock: socket.socket, opened: list[socket.socket]
) -> None:
    """Also one that a service manager has handed over, which may have had clients before we came to set its options."""
    if not ours:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        opened.append(sock)
    waiting = await dial_tcp("127.0.0.1", sock.getsockname()[1])
    opened.append(waiting)
    before, accepted = len(opened), Accepted(opened)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_forever, sock, name, accepted)
        while not accepted.peers:
            await trio.lowlevel.checkpoint()
        assert accepted.peers == [waiting.getsockname()]
        accepted_sock = opened[before]
        assert accepted_sock.gettimeout() == 0
        assert accepted_sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert accepted_sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted_sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
        assert accepted_sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_running_out_neither_spins_nor_ends_it(
    error: int, sock: socket.socket, opened: list[socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    accepted = Accepted(opened)
    flaky = Flaky.take_over(sock, *[error] * 100)
    opened += [flaky, connect(flaky.getsockname()[1])]
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, flaky, name, accepted)
            await trio.sleep(50 * ACCEPT_PAUSE)
            assert 45 <= flaky.accepts <= 55
            assert [line["event"] for line in logs] == ["cannot accept connections, waiting"]
            assert logs[0]["entryPoint"] == "web"
            await trio.sleep(60 * ACCEPT_PAUSE)
            assert len(accepted.peers) == 1
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs[1:]] == ["accepting connections again"]


async def test_running_out_of_descriptors_really(
    sock: socket.socket, opened: list[socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    opened += [connect(sock.getsockname()[1]) for _ in range(20)]
    clients = len(opened)
    accepted = Accepted(opened)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(sock.fileno())
    os.close(free)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + 5, before[1]))
            try:
                nursery.start_soon(partial(accept_forever, sock, name, accepted, clients=False))
                await trio.sleep(10)
                assert 0 < len(accepted.peers) < clients
                while len(accepted.peers) < clients:
                    for one in opened[clients:]:
                        one.close()
                    await trio.sleep(1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            nursery.cancel_scope.cancel()
    assert logs[0]["event"] == "cannot accept connections, waiting"
    assert logs[0]["error"] == os.strerror(errno.EMFILE)


async def test_clients_do_not_get_what_is_reserved(
    sock: socket.socket, opened: list[socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    opened += [connect(sock.getsockname()[1]) for _ in range(20)]
    clients = len(opened)
    accepted = Accepted(opened)
    told: list[bool] = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(sock.fileno())
    os.close(free)
    limit = (free + 6) * 8 // 7 + 1
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
            try:
                most = most_for_clients()
                assert free < most < limit
                nursery.start_soon(partial(accept_forever, sock, name, accepted, waits=told.append))
                await trio.sleep(10)
                served = opened[clients:]
                assert 0 < len(served) < clients
                assert all(one.fileno() < most for one in served)
                assert told == [True]
                os.close(os.dup(sock.fileno()))  # the reserve is there for whoever needs it
                while len(accepted.peers) < clients:
                    # The one that was in hand already, and those in the queue, each in its turn and none dropped.
                    for one in opened[clients:]:
                        one.close()
                    await trio.sleep(1)
                assert told == [True, False]
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            nursery.cancel_scope.cancel()
    assert set(accepted.peers) == {one.getsockname() for one in opened[:clients]}
    assert [line["event"] for line in logs] == [
        "cannot accept connections, waiting",
        "accepting connections again",
    ]


async def test_what_goes_wrong_with_one_connection_is_passed_over(
    sock: socket.socket, opened: list[socket.socket]
) -> None:
    accepted = Accepted(opened)
    errors = (errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EPERM, errno.EINTR)
    flaky = Flaky.take_over(sock, *errors)
    opened += [flaky, connect(flaky.getsockname()[1])]
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, flaky, name, accepted)
            while not accepted.peers:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert logs == []


class Dead(socket.socket):
    """A socket whose connection is gone before its options can be set."""

    def setblocking(self, flag: bool) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


async def test_a_connection_that_is_gone_already_is_closed(
    sock: socket.socket, opened: list[socket.socket]
) -> None:
    class Listener(Flaky):
        def accept(self) -> tuple[socket.socket, object]:
            accepted, peer = super().accept()
            if not opened:
                accepted = Dead(fileno=accepted.detach())
                opened.append(accepted)
            return accepted, peer

    accepted = Accepted(opened)
    with Listener.take_over(sock) as listener:
        clients = [connect(listener.getsockname()[1]) for _ in range(2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, listener, name, accepted)
            while not accepted.peers:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert accepted.peers == [clients[1].getsockname()]
    assert opened[0].fileno() == -1
    opened += clients


async def test_a_storm_lets_other_tasks_run(sock: socket.socket, opened: list[socket.socket]) -> None:
    opened += [connect(sock.getsockname()[1]) for _ in range(5 * ACCEPT_BATCH)]
    accepted = Accepted(opened)
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_forever, sock, name, accepted)
        while not seen or seen[-1] < 5 * ACCEPT_BATCH:
            seen.append(len(accepted.peers))
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    steps = [later - earlier for earlier, later in itertools.pairwise(seen)]
    assert max(steps) <= 2 * ACCEPT_BATCH  # in each round of the scheduler it may come first or last


async def test_it_ends_when_its_socket_is_closed(sock: socket.socket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_forever, sock, name, Accepted([]))
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.notify_closing(sock)
        sock.close()
    await accept_forever(sock, name, Accepted([]))


async def test_it_ends_when_its_socket_is_no_listener(opened: list[socket.socket]) -> None:
    one, other = socket.socketpair()
    opened += [one, other]
    one.setblocking(False)
    other.send(b"x")
    await accept_forever(one, name, Accepted([]))
