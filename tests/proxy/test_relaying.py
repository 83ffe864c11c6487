"""Who moves a session's bytes, where that does not take a kernel to find out."""

from __future__ import annotations

from collections.abc import Callable

import trio
import trio.testing

from trio_wsb.net.channel import Data
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.proxy.relaying import BUSY, MOST_WAITING, choose_relay


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
