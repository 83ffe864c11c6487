"""PROXY headers on real connections: who the client is, and that exactly the header's bytes are taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from trio_wsb.addresses import Networks, parse_ip, parse_network
from trio_wsb.daemon.proxyheader import receive_peer
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.net.proxyheader import MAX_V2
from trio_wsb.proxy.peer import Peer

TRUSTING = ForwardPolicy(Networks((parse_network("127.0.0.1"),)))
NOBODY = ForwardPolicy(Networks((parse_network("192.0.2.1"),)))
EVERYBODY = ForwardPolicy(insecure=True)

PROXY = Peer(parse_ip("127.0.0.1"), "127.0.0.1:40000")
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 5678 443\r\n"
BLOCK = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x16\x2e\x01\xbb"
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    near.setblocking(False)
    with far, near:
        yield far, near


async def received(
    near: socket.socket, policy: ForwardPolicy = TRUSTING, *, peer: Peer = PROXY, seconds: float = 20.0
) -> Peer | None:
    return await receive_peer(near, policy, peer, trio.current_time() + seconds, entry_point="web")


@pytest.mark.parametrize("header", [LINE, BLOCK], ids=["v1", "v2"])
async def test_a_header_says_who_the_client_is(pair: Pair, header: bytes) -> None:
    far, near = pair
    far.sendall(header + REQUEST)
    peer = await received(near)
    assert peer == Peer(parse_ip("203.0.113.7"), "203.0.113.7:5678", "127.0.0.1")
    assert peer is not None
    assert peer.connected == "127.0.0.1"
    assert peer.local is None
    assert near.recv(1000) == REQUEST


@pytest.mark.parametrize("header", [LINE, BLOCK], ids=["v1", "v2"])
async def test_byte_by_byte(pair: Pair, header: bytes) -> None:
    far, near = pair
    peers: list[Peer | None] = []

    async def receive() -> None:
        peers.append(await received(near))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for byte in header:
            assert peers == []
            far.sendall(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
    assert [peer and peer.text for peer in peers] == ["203.0.113.7:5678"]
    far.sendall(REQUEST)
    far.shutdown(socket.SHUT_WR)
    near.setblocking(True)
    assert near.recv(1000, socket.MSG_WAITALL) == REQUEST


@pytest.mark.parametrize("header", [LINE, BLOCK], ids=["v1", "v2"])
async def test_a_stranger_is_not_believed_and_its_header_is_gone(pair: Pair, header: bytes) -> None:
    far, near = pair
    far.sendall(header + REQUEST)
    assert await received(near, NOBODY) is PROXY
    assert near.recv(1000) == REQUEST


@pytest.mark.parametrize("data", [LOCAL, b"PROXY UNKNOWN\r\n", b""], ids=["local", "unknown", "none"])
async def test_without_an_address_the_connections_own_counts(pair: Pair, data: bytes) -> None:
    far, near = pair
    far.sendall(data + REQUEST)
    assert await received(near) is PROXY
    assert near.recv(1000) == REQUEST


async def test_behind_a_unix_socket() -> None:
    far, near = socket.socketpair()
    with far, near:
        near.setblocking(False)
        far.sendall(LINE + LINE)
        unix = Peer(None, "unix")
        assert await received(near, TRUSTING, peer=unix) is unix
        peer = await received(near, EVERYBODY, peer=unix)
        assert peer == Peer(parse_ip("203.0.113.7"), "203.0.113.7:5678", "unix")


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP4 203.0.113 192.0.2.1 5678 443\r\n",
        b"PROXY " + b"x" * 200,
        BLOCK[:12] + b"\x31" + BLOCK[13:],
        BLOCK[:14] + (MAX_V2).to_bytes(2, "big"),
    ],
)
async def test_what_only_begins_as_a_header_ends_the_connection_with_one_line(
    pair: Pair, data: bytes
) -> None:
    far, near = pair
    far.sendall(data + REQUEST)
    with capture_logs() as logs:
        assert await received(near) is None
    (line,) = logs
    assert (line["event"], line["client"], line["log_level"]) == ("connection refused", PROXY.text, "info")
    near.close()
    assert far.recv(100) == b""  # an orderly end


async def test_a_header_that_is_cut_off(pair: Pair) -> None:
    far, near = pair
    far.sendall(LINE[:20])
    far.shutdown(socket.SHUT_WR)
    with capture_logs() as logs:
        assert await received(near) is None
    assert [line["reason"] for line in logs] == ["the PROXY header was cut off"]


async def test_the_deadline(pair: Pair, autojump_clock: trio.testing.MockClock) -> None:
    far, near = pair
    with capture_logs() as logs:
        assert await received(near, seconds=20) is None
        assert trio.current_time() == 20
        assert logs == []
        far.sendall(b"PRO")  # it may be the method of a request, which is told that it is late
        assert await received(near, seconds=20) is PROXY
        far.sendall(b"XY TC")
        assert await received(near, seconds=20) is None
    assert [line["reason"] for line in logs] == ["the PROXY header did not come in time"]


@pytest.mark.parametrize("sent", [b"", b"PR"])
async def test_a_client_that_leaves_is_the_next_ones_affair(pair: Pair, sent: bytes) -> None:
    far, near = pair
    far.sendall(sent)
    far.shutdown(socket.SHUT_WR)
    assert await received(near) is PROXY


async def test_a_reset(pair: Pair) -> None:
    far, near = pair
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    far.close()
    assert await received(near) is None
