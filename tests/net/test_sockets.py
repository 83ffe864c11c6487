"""TCP over loopback: dialling and the options of a connection."""

from __future__ import annotations

import resource
import socket

import pytest
import trio
import trio.testing

from tests.net.pairs import descriptors, tcp_pair
from trio_wsb.errors import DialError
from trio_wsb.net.sockets import SocketChannel, dial_tcp, set_session_options

Found = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]]


class Names(trio.abc.HostnameResolver):
    """A resolver that knows one name."""

    def __init__(self, *addresses: str, hangs: bool = False) -> None:
        self._addresses = addresses
        self._hangs = hangs

    async def getaddrinfo(  # type: ignore[override]  # one kind of address is enough
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the interface's name
        proto: int = 0,
        flags: int = 0,
    ) -> Found:
        if self._hangs:
            await trio.sleep_forever()
        if not self._addresses and host == b"unknown.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        assert isinstance(port, int)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self._addresses]

    async def getnameinfo(self, sockaddr: tuple[str, int], flags: int) -> tuple[str, str]:  # type: ignore[override]
        return sockaddr[0], str(sockaddr[1])  # an address has no name here but itself


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_a_connection_has_the_session_options() -> None:
    for sock in await tcp_pair():
        with sock:
            set_session_options(sock)  # the accept loop does it for the server's end
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) in range(20, 31)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) in range(8, 11)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
            assert sock.gettimeout() == 0


def test_a_unix_socket_has_no_such_options() -> None:
    one, other = socket.socketpair()
    with one, other:
        set_session_options(one)


async def test_a_refused_connection_leaves_nothing_behind() -> None:
    before = descriptors()
    with pytest.raises(DialError) as caught:
        await dial_tcp("127.0.0.1", closed_port())
    assert (caught.value.stage, caught.value.reason) == ("connect", "connection refused")
    assert descriptors() == before


async def test_an_address_that_cannot_be_connected_to() -> None:
    with pytest.raises(DialError) as caught:
        await dial_tcp("255.255.255.255", 80)
    assert caught.value.stage == "connect"


async def test_no_descriptor_left_for_a_dial() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(DialError) as caught:
            await dial_tcp("127.0.0.1", 80)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (caught.value.stage, caught.value.reason) == ("own", "too many open files")


async def test_a_name_that_does_not_resolve() -> None:
    trio.socket.set_custom_hostname_resolver(Names())
    with pytest.raises(DialError) as caught:
        await dial_tcp("unknown.example", 80)
    assert (caught.value.stage, caught.value.reason) == ("resolve", "Name or service not known")
    with pytest.raises(DialError, match="resolve: the name has no address"):
        await dial_tcp("empty.example", 80)


async def test_a_name_that_is_no_name() -> None:
    with pytest.raises(DialError) as caught:
        await dial_tcp("a" * 70 + ".example", 80)  # a label of more than 63 characters
    assert caught.value.stage == "resolve"


async def test_the_addresses_of_a_name_are_tried_in_order() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        trio.socket.set_custom_hostname_resolver(Names("127.0.0.2", "127.0.0.1"))
        with await dial_tcp("backend.example", port) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)
    with pytest.raises(DialError, match="connect: connection refused"):
        await dial_tcp("backend.example", port)


async def test_a_resolver_that_hangs_is_left_by_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    trio.socket.set_custom_hostname_resolver(Names(hangs=True))
    with trio.move_on_after(5) as scope:
        await dial_tcp("backend.example", 80)
    assert scope.cancelled_caught
    with pytest.raises(DialError, match="timeout: no answer about its name in time"):
        await dial_tcp("backend.example", 80, deadline=trio.current_time() + 5)


async def test_a_dial_over_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this host")
    with listener, await dial_tcp("::1", listener.getsockname()[1]) as sock:
        assert sock.family is socket.AF_INET6


async def test_the_methods_of_the_socket_are_the_channels() -> None:
    client, server = await tcp_pair()
    channel = SocketChannel(client)
    assert channel.recv_into == client.recv_into
    assert channel.send == client.send
    channel.close()
    server.close()


async def test_an_abort_is_a_reset_that_the_peer_sees() -> None:
    client, server = await tcp_pair()
    channel = SocketChannel(client)
    channel.abort()
    await trio.lowlevel.wait_readable(server)
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    server.close()
