"""Looking at what waits on a real connection, and leaving it there."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from trio_wsb.net.peek import PEEK_PAUSE, peek, take

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        far, near = socket.socketpair()
    near.setblocking(False)
    with far, near:
        yield far, near


async def test_what_is_there_stays_there(pair: Pair) -> None:
    far, near = pair
    far.sendall(b"some bytes")
    assert await peek(near, 4, 6) == b"some b"
    assert await peek(near, 10, 100) == b"some bytes"
    take(near, 5)
    assert await peek(near, 1, 100) == b"bytes"
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_it_waits_for_as_many_as_are_wanted(pair: Pair) -> None:
    far, near = pair
    found: list[bytes] = []

    async def look() -> None:
        found.append(await peek(near, 3, 100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        for byte in (b"a", b"b"):
            far.sendall(byte)
            await trio.testing.wait_all_tasks_blocked()
            assert found == []
        far.sendall(b"c")
    assert found == [b"abc"]


async def test_the_kernel_waits_on_tcp() -> None:
    """A client that sends one byte and then nothing costs nothing while it is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    with far, near:
        near.setblocking(False)
        far.sendall(b"P")
        wakes = 0

        class Counter(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                nonlocal wakes
                wakes += 1

        counter = Counter()
        trio.lowlevel.add_instrument(counter)
        with trio.move_on_after(5 * PEEK_PAUSE) as scope:
            await peek(near, 2, 100)
        trio.lowlevel.remove_instrument(counter)
        assert scope.cancelled_caught
        assert wakes < 5
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


@pytest.mark.parametrize("sent", [b"", b"ab"])
async def test_an_end_shows_what_there_is(pair: Pair, sent: bytes) -> None:
    far, near = pair
    far.sendall(sent)
    far.shutdown(socket.SHUT_WR)
    with trio.fail_after(10):
        assert await peek(near, 3, 100) == sent


async def test_a_socket_that_is_closed(pair: Pair) -> None:
    _, near = pair
    near.close()
    with pytest.raises(trio.ClosedResourceError):
        await peek(near, 1, 1)


async def test_more_cannot_be_taken_than_is_there(pair: Pair) -> None:
    far, near = pair
    far.sendall(b"ab")
    far.shutdown(socket.SHUT_WR)
    assert await peek(near, 2, 2) == b"ab"
    with pytest.raises(ConnectionResetError):
        take(near, 3)
