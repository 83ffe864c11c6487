"""Who moves a session's bytes, where that does not take a kernel to find out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from trio_wsb.net.channel import Data
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.proxy.relaying import BUSY, LEFT, MOST_WAITING, choose_relay


class Flood(SocketChannel):
    """A connection on which there is always more."""

    is_tcp = True

    def __init__(self) -> None:
        self.recv_into: Callable[..., int] = len


def test_too_much_waits_for_the_kernel_relay() -> None:
    table = KernelTable.__new__(KernelTable)  # which nobody asks
    relayed = choose_relay(table, "kernel", Flood(), Flood(), mirrored=False)
    assert (relayed.kind, relayed.reason) == ("stream", BUSY)
    assert len(relayed.client_early) == len(relayed.backend_early) == MOST_WAITING


class Left(SocketChannel):
    """A connection whose peer has said something and left."""

    is_tcp = True

    def __init__(self, said: bytes) -> None:
        left = [said, b""]

        def recv_into(buffer: bytearray) -> int:
            data = left.pop(0)
            buffer[: len(data)] = data
            return len(data)

        self.recv_into: Callable[..., int] = recv_into


class Quiet(SocketChannel):
    """A connection on which there is nothing yet."""

    is_tcp = True

    def __init__(self) -> None:
        def recv_into(_: bytearray) -> int:
            raise BlockingIOError

        self.recv_into: Callable[..., int] = recv_into


@pytest.mark.parametrize("client", [True, False])
def test_who_has_left_does_not_enter_the_kernel(client: bool) -> None:
    table = KernelTable.__new__(KernelTable)  # which nobody asks
    ends = (Left(b"bye"), Quiet()) if client else (Quiet(), Left(b"bye"))
    relayed = choose_relay(table, "kernel", *ends, mirrored=False)
    assert (relayed.kind, relayed.reason) == ("stream", LEFT)
    assert (relayed.client_early, relayed.backend_early) == ((b"bye", b"") if client else (b"", b"bye"))


class Slow(MemoryChannel):
    """A connection whose room is taken by somebody else, in whose bytes the peer makes progress."""

    progress = True
    tick = 0

    def send(self, data: Data, /) -> int:
        raise BlockingIOError

    async def wait_writable(self) -> None:
        await trio.sleep(0.5)

    @property
    def taken(self) -> int:
        self.tick += self.progress
        return self.tick


async def test_a_peer_that_takes_what_others_write_is_not_stuck(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As where the kernel has a long backlog for it: the bytes of the daemon come after that."""
    client, ours = memory_channel_pair()
    theirs, _backend = memory_channel_pair()
    slow = Slow(theirs._incoming, theirs._outgoing, can_half_close=True)
    relay = Relay(
        ours, slow, scratch=memoryview(bytearray(SCRATCH_SIZE)), write_timeout=5.0, watch=lambda _: None
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        client.send(b"\x82\x80\0\0\0\0")
        for _ in range(30):
            await trio.sleep(1.0)
            assert relay.check(trio.current_time())
        assert (relay.blocked, relay.cause) == (True, None)
        slow.progress = False
        for _ in range(8):
            await trio.sleep(1.0)
            relay.check(trio.current_time())
        assert relay.cause is Cause.BACKEND_WRITE_TIMEOUT
        client.close()
