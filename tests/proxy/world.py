"""A relay between two in-memory connections, with the test at the far end of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import define
from websockets.frames import Frame, Opcode

from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.proxy.guard import NO_LIMITS, SessionLimits
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.proxy.sweeper import Sweeper


def frame(payload: bytes, *, opcode: Opcode = Opcode.BINARY, mask: bool = False, fin: bool = True) -> bytes:
    """Return a frame made by somebody else's code."""
    return Frame(opcode, payload, fin).serialize(mask=mask)


def close_frame(code: int, *, mask: bool = False) -> bytes:
    return frame(code.to_bytes(2, "big"), opcode=Opcode.CLOSE, mask=mask)


@define(eq=False)
class Bench:
    """The two far ends and the relay between the near ones."""

    client: MemoryChannel
    backend: MemoryChannel
    relay: Relay
    done: trio.Event

    async def exactly(self, channel: MemoryChannel, size: int) -> bytes:
        """Receive `size` bytes, no more and no fewer."""
        received = b""
        while len(received) < size:
            buffer = bytearray(size - len(received))
            count = await receive_some(channel, buffer)
            if not count:
                raise AssertionError(f"end of stream after {received!r}")
            received += buffer[:count]
        return received

    async def rest(self, channel: MemoryChannel) -> bytes:
        """Receive until the end of the stream."""
        received, buffer = b"", bytearray(65536)
        while count := await receive_some(channel, buffer):
            received += buffer[:count]
        return received

    async def pass_through(self, data: bytes, *, up: bool) -> None:
        """Send `data` into the relay and see the same come out at the other side."""
        source, sink = (self.client, self.backend) if up else (self.backend, self.client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, source, data)
            assert await self.exactly(sink, len(data)) == data


@asynccontextmanager
async def relaying(
    *,
    capacity: int = 65536,
    segment: int | None = None,
    write_timeout: float = 10.0,
    tls_backend: bool = False,
    limits: SessionLimits = NO_LIMITS,
    client_early: bytes = b"",
    backend_early: bytes = b"",
) -> AsyncIterator[Bench]:
    """Run a relay, with a sweeper that watches it, for as long as the block lasts."""
    client, client_near = memory_channel_pair(capacity)
    backend, backend_near = memory_channel_pair(capacity, can_half_close=not tls_backend)
    if segment is not None:
        client_near.set_segment(segment)
        backend_near.set_segment(segment)
    sweeper = Sweeper()
    relay = Relay(
        client_near,
        backend_near,
        scratch=memoryview(bytearray(SCRATCH_SIZE)),
        write_timeout=write_timeout,
        watch=sweeper.watch,
        limits=limits,
        client_early=client_early,
        backend_early=backend_early,
    )
    done = trio.Event()

    async def run() -> None:
        await relay.run()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeper.run)
        nursery.start_soon(run)
        yield Bench(client, backend, relay, done)
        nursery.cancel_scope.cancel()
