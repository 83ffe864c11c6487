"""One session over the model of the kernel, with much traffic and no balancer around it: thousands of them in a minute."""

from __future__ import annotations

from collections import deque
from random import Random

import trio
import trio.testing
from attrs import define, field
from websockets.frames import Opcode

from tests.simulation.kernel import SimTable, TCPChannel
from tests.simulation.ledger import Violation, encode
from tests.simulation.network import Conditions, Network, SimChannel
from tests.simulation.psock import Temper
from tests.simulation.run import deterministic, first
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.proxy.guard import SessionLimits
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.proxy.relaying import choose_relay
from trio_wsb.websocket.frames import FrameScanner

PATIENCE = 600.0
"""Seconds of virtual time that a session may last."""


@define(frozen=True)
class Drilled:
    """What a session came to."""

    sent: int
    """Bytes that its ends have sent."""
    in_kernel: int
    """Bytes of them that user space has not seen."""
    overtaken: int


@define(eq=False)
class End:
    """One of the two ends: what it sends, and what it must get."""

    name: str
    channel: SimChannel
    rng: Random
    masked: bool
    sent: bytearray = field(factory=bytearray)
    other: End | None = None
    got: int = 0
    ended: bool = False

    async def talk(self, messages: int) -> None:
        """Send messages, and the end of the stream after the last one."""
        rng = self.rng
        for _ in range(messages):
            if rng.random() < 0.3:
                await trio.sleep(rng.choice((0.001, 0.01, 0.2)))
            for frame in self._message():
                self.sent += frame
                await send_all(self.channel, frame)
        if rng.random() < 0.5:
            frame = encode(b"\x03\xe8", Opcode.CLOSE, mask=self.masked)
            self.sent += frame
            await send_all(self.channel, frame)
        self.channel.shutdown()

    def _message(self) -> list[bytes]:
        rng = self.rng
        payload = rng.randbytes(rng.choice((0, 1, 5, 125, 126, 300, 2000, 9000)))
        if rng.random() < 0.7:
            return [encode(payload, rng.choice((Opcode.BINARY, Opcode.TEXT)), mask=self.masked)]
        cut = rng.randint(0, len(payload))
        frames = [encode(payload[:cut], Opcode.BINARY, mask=self.masked, fin=False)]
        if rng.random() < 0.5:
            frames.append(encode(b"beat", rng.choice((Opcode.PONG, Opcode.PING)), mask=self.masked))
        return [*frames, encode(payload[cut:], Opcode.CONT, mask=self.masked)]

    async def listen(self) -> None:
        """Read to the end, with pauses, and compare. Raises Violation."""
        assert self.other is not None
        rng, buffer, expected = self.rng, bytearray(8192), self.other.sent
        dozes = rng.choice((0.0, 0.05, 0.5))
        while count := await receive_some(self.channel, buffer):
            piece = expected[self.got : self.got + count]
            if piece != buffer[:count]:
                at = next(
                    (i for i, (a, b) in enumerate(zip(piece, buffer, strict=False)) if a != b), len(piece)
                )
                raise Violation(f"{self.name}: byte {self.got + at} is another one than was sent")
            self.got += count
            if rng.random() < dozes:
                await trio.sleep(rng.choice((0.01, 0.3, 1.0)))
        if not self.other.ended and self.got < len(expected):
            raise Violation(f"{self.name}: {len(expected) - self.got} of {len(expected)} bytes never arrived")
        self.ended = True


def drill(seed: int) -> Drilled:
    """Relay one session, and check every byte of it. Raises Violation."""
    try:
        with deterministic(seed):
            return trio.run(_drill, seed, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        raise first(group) from None


async def _drill(seed: int) -> Drilled:
    rng = Random(seed)
    temper = Temper(
        races=rng.choice((0.1, 0.5, 0.8)),
        lag=rng.choice((0.1, 0.6)),
        late=rng.choice((0.0, 0.5)),
        repeats=rng.choice((0.0, 0.1)),
        merges=rng.choice((0.0, 0.3)),
        credit=rng.choice((1 << 20, 65536, 16384)),
    )
    network = Network(rng)
    table = SimTable(network, rng, temper)
    client, ours = network.connect(_conditions(rng))
    theirs, backend = network.connect(_conditions(rng))
    up, down = End("backend", client, rng, True), End("client", backend, rng, False)
    up.other, down.other = down, up
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        nursery.start_soon(table.run)
        made, watched = [table.channel(ours), table.channel(theirs)], deque[Relay]()
        assert all(isinstance(channel, TCPChannel) for channel in made)
        relayed = choose_relay(table, "kernel", *made, mirrored=False)
        limits = SessionLimits(max_message_bytes=rng.choice((0, 10_000)))
        relay = Relay(
            relayed.client,
            relayed.backend,
            scratch=memoryview(bytearray(SCRATCH_SIZE)),
            write_timeout=60.0,
            watch=watched.append,
            limits=limits,
            client_early=relayed.client_early,
            backend_early=relayed.backend_early,
        )
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as ends:
                ends.start_soon(_disturb, relay, rng)
                ends.start_soon(relay.run)
                for end in (up, down):
                    ends.start_soon(end.talk, rng.randint(1, 30))
                    ends.start_soon(end.listen)
            await table.empty()
        _compare(relay, (up, down))
        if table.entries() or table.stalls:
            raise Violation(f"{table.entries()} sockets are left in the map, {table.stalls} ways were stuck")
        nursery.cancel_scope.cancel()
    sent = len(up.sent) + len(down.sent)
    seen = sum(leg._reads.read for leg in (relayed.client, relayed.backend))  # type: ignore[attr-defined]
    return Drilled(sent, sent - seen, table.maps.overtaken)


def _conditions(rng: Random) -> Conditions:
    return Conditions(
        latency=0.002,
        jitter=rng.choice((0.0, 0.01)),
        capacity=rng.choice((512, 4096, 65536)),
        segment=rng.choice((50, 1460, 65536)),
        choppy=rng.choice((0.0, 0.3)),
    )


async def _disturb(relay: Relay, rng: Random) -> None:
    """Do what the sweeper and the ping timers do: take the way back at any moment, and look at the counters."""
    takes_back = rng.choice((0.0, 0.5))  # which also saves what would be stuck otherwise
    while not (relay.up.ended and relay.down.ended):
        await trio.sleep(rng.choice((0.001, 0.01, 0.1)))
        if rng.random() < takes_back:
            rng.choice((relay.client, relay.backend)).reclaim()
        else:
            relay.merge()


def _compare(relay: Relay, ends: tuple[End, End]) -> None:
    """See that the scanners of both directions know what passed, whoever moved it."""
    for pump, end in zip((relay.up, relay.down), ends, strict=True):
        reference = FrameScanner(pump.scanner.masked)
        reference.feed(bytes(end.sent))
        if pump.scanner.state() != reference.state():
            raise Violation(f"from {end.name}: {pump.scanner.state()} instead of {reference.state()}")
