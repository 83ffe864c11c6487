"""A relay between two connections, with the test at the far end of both.

The stream relay runs over channels in memory. The kernel relay runs over simulated connections and a model of the kernel
(`tests.simulation.kernel`) that does nothing unexpected; everything above the kernel is the real thing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import trio
from attrs import define, evolve
from websockets.frames import Frame, Opcode

from tests.simulation.kernel import SimTable
from tests.simulation.network import Conditions, Network, SimChannel
from tests.simulation.psock import Temper
from trio_wsb.net.channel import ByteChannel, receive_some, send_all
from trio_wsb.net.kernel.legs import KernelLeg
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.proxy.guard import NO_LIMITS, SessionLimits
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.proxy.relaying import NOT_TCP, Relayed, RelayKind, choose_relay
from trio_wsb.proxy.sweeper import Sweeper

FarEnd = MemoryChannel | SimChannel

CALM: Final = Temper(races=0.0, lag=0.0, late=0.0, repeats=0.0, merges=0.0)
"""A kernel that does what one expects."""


def frame(payload: bytes, *, opcode: Opcode = Opcode.BINARY, mask: bool = False, fin: bool = True) -> bytes:
    """Return a frame made by somebody else's code."""
    return Frame(opcode, payload, fin).serialize(mask=mask)


def close_frame(code: int, *, mask: bool = False) -> bytes:
    return frame(code.to_bytes(2, "big"), opcode=Opcode.CLOSE, mask=mask)


@define(eq=False)
class Bench:
    """The two far ends and the relay between the near ones."""

    client: FarEnd
    backend: FarEnd
    relay: Relay
    done: trio.Event

    async def exactly(self, channel: FarEnd, size: int) -> bytes:
        """Receive `size` bytes, no more and no fewer."""
        received = b""
        while len(received) < size:
            buffer = bytearray(size - len(received))
            count = await receive_some(channel, buffer)
            if not count:
                raise AssertionError(f"end of stream after {received!r}")
            received += buffer[:count]
        return received

    async def rest(self, channel: FarEnd) -> bytes:
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
        self.relay.merge()

    @property
    def redirected(self) -> int:
        """Bytes that the kernel sent on; those that went through the daemon are the rest."""
        legs = [leg for leg in (self.relay.client, self.relay.backend) if isinstance(leg, KernelLeg)]
        return sum(leg.direction.redirected for leg in legs)


class StreamWorld:
    """Connections in memory, whose bytes the daemon moves."""

    def connect(
        self, capacity: int, segment: int | None, *, tls: bool = False
    ) -> tuple[MemoryChannel, ByteChannel]:
        """Return the far end and the near end of a new connection."""
        far, near = memory_channel_pair(capacity, can_half_close=not tls)
        if segment is not None:
            near.set_segment(segment)
        return far, near

    def choose(self, client: ByteChannel, backend: ByteChannel) -> Relayed:
        """Return who moves the bytes between two near ends."""
        return choose_relay(None, "auto", client, backend, mirrored=False)


class KernelWorld:
    """Simulated connections whose bytes the kernel moves, a model of it. `run` carries them until cancelled."""

    def __init__(self, rng: Random, temper: Temper = CALM) -> None:
        self._network = Network(rng)
        self.table = SimTable(self._network, rng, temper)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._network.run)
            nursery.start_soon(self.table.run)
            task_status.started()

    def connect(
        self, capacity: int, segment: int | None, *, tls: bool = False
    ) -> tuple[SimChannel, ByteChannel]:
        """Return the far end and the near end of a new connection; with `tls` the kernel cannot have it."""
        conditions = Conditions(
            latency=0.0, capacity=capacity, segment=segment or capacity, half_close=not tls
        )
        far, near = self._network.connect(conditions)
        return far, self.table.channel(near)

    def choose(self, client: ByteChannel, backend: ByteChannel) -> Relayed:
        """Return who moves the bytes between two near ends: the kernel, unless one is TLS."""
        relayed = choose_relay(self.table, "auto", client, backend, mirrored=False)
        assert relayed.kind == "kernel" or relayed.reason == NOT_TCP
        return relayed


default_relay: RelayKind = "stream"
"""What `relaying` is over unless it is told; the fixture `relay_kind` changes it for a test."""


@asynccontextmanager
async def relaying(
    *,
    relay: RelayKind | None = None,
    capacity: int = 65536,
    segment: int | None = None,
    write_timeout: float = 10.0,
    tls_backend: bool = False,
    limits: SessionLimits = NO_LIMITS,
    client_early: bytes = b"",
    backend_early: bytes = b"",
) -> AsyncIterator[Bench]:
    """Run a relay, with a sweeper that watches it, for as long as the block lasts.

    `capacity` is how many bytes a connection holds in each direction, and as many may be under way in the kernel.
    """
    async with trio.open_nursery() as carriers:
        world: StreamWorld | KernelWorld
        if (relay or default_relay) == "stream":
            world = StreamWorld()
        else:
            world = KernelWorld(Random(1), evolve(CALM, credit=capacity, sessions=1))
            await carriers.start(world.run)
        client, client_near = world.connect(capacity, segment)
        backend, backend_near = world.connect(capacity, segment, tls=tls_backend)
        relayed = world.choose(client_near, backend_near)
        sweeper, done = Sweeper(), trio.Event()
        running = Relay(
            relayed.client,
            relayed.backend,
            scratch=memoryview(bytearray(SCRATCH_SIZE)),
            write_timeout=write_timeout,
            watch=sweeper.watch,
            limits=limits,
            client_early=client_early,
            backend_early=backend_early,
        )

        async def run() -> None:
            await running.run()
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sweeper.run)
            nursery.start_soon(run)
            yield Bench(client, backend, running, done)
            nursery.cancel_scope.cancel()
        carriers.cancel_scope.cancel()
