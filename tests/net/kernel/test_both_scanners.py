"""The scanner in the kernel and the one in user space are one: whatever comes, in whatever pieces, whoever has the way."""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from websockets.frames import Opcode

from tests.net.kernel.stage import (
    KernelSession,
    frame,
    kernel_table,
    needs_kernel,
    receive,
    send,
    tcp_pair,
    traffic,
)
from tests.net.kernel.test_table import pump
from tests.proxy.test_pings import parse
from trio_wsb.net.channel import FREELY, Terms
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.guard import NO_LIMITS, SessionLimits
from trio_wsb.proxy.pump import Pump
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.websocket.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, FrameScanner
from trio_wsb.websocket.gate import PING_TOKEN_SIZE, OwnPings

pytestmark = needs_kernel

LIMIT = 1000
SIZES = [0, 1, 2, 125, 126, 127, LIMIT, LIMIT + 1, 65_535, 65_536]
OPCODES = [CONTINUATION, TEXT, 3, 7, CLOSE, PING, PONG, 11, 15]
RAW = [
    b"\x82\x00",  # not masked
    b"\x82\xfe\x00\x05" + bytes(9),  # a length not in its shortest form
    b"\xf1\x80" + bytes(4),  # bits that belong to extensions
    b"\x88\x82" + bytes(4) + b"\x03\xe8",
    b"\x88\x80" + bytes(4),
    b"\x82\xff\x80" + bytes(20),  # a length that cannot be: no boundary after it
]
STREAMS = 50
"""Random streams for each seed."""


def random_stream(rng: random.Random, *, legal: float) -> bytes:
    """Return what a client may send; `legal` is how likely each frame is as it should be."""
    parts = []
    for _ in range(rng.randint(1, 14)):
        size = rng.choice(SIZES)
        if rng.random() < legal:
            kind = rng.random()
            if kind < 0.3:
                parts.append(frame(bytes(size % 126), masked=True, opcode=rng.choice([PING, PONG])))
            elif kind < 0.6:
                parts.append(frame(bytes(size), masked=True, opcode=rng.choice([TEXT, BINARY])))
            else:
                parts.append(frame(bytes(size), masked=True, opcode=TEXT, final=False))
                parts.append(frame(b"between", masked=True, opcode=PING))
                parts.append(frame(bytes(rng.choice(SIZES)), masked=True, opcode=CONTINUATION))
        elif rng.random() < 0.3:
            parts.append(rng.choice(RAW))
        else:
            final = rng.random() < 0.5
            parts.append(frame(bytes(size), masked=True, opcode=rng.choice(OPCODES), final=final))
    return b"".join(parts)


@pytest.mark.parametrize("seed", range(6))
async def test_they_count_alike(seed: int) -> None:
    """Legal or not, over the limit, with a Close in the middle, cut anywhere, and the way taken back at any time."""
    rng = random.Random(seed)
    async with kernel_table(sessions=STREAMS) as table:
        redirected = 0
        for _ in range(STREAMS):
            redirected += await compare(table, rng, random_stream(rng, legal=rng.choice([0.8, 0.97, 1.0])))
        assert redirected > 200_000


async def compare(table: KernelTable, rng: random.Random, data: bytes) -> int:
    """Send `data` through a session and compare the scanner with one that saw all of it; how much the kernel sent on."""
    session = KernelSession(table)
    await session.begin()
    scanner, reference = session.scanners[0], FrameScanner(masked=True)
    if rng.random() < 0.5:
        scanner.unanswered, reference.unanswered = bytearray(2), bytearray(2)
    terms = rng.choice([FREELY, Terms(message=LIMIT)])
    sizes = rng.sample([1, 2, 5, 7, 100, 1000, 5000, 30_000], 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, session, 0, terms)
        position = 0
        while position < len(data):
            chunk = data[position : position + rng.choice(sizes)]
            # A big frame is not worth thousands of tiny segments.
            if len(chunk) < 100 and rng.random() < 0.02 * position / 1000:
                chunk = data[position : position + 20_000]
            await send(session.client, chunk)
            flip = rng.random()
            if flip < 0.1:
                session.legs[0].reclaim()
            assert await receive(session.backend, len(chunk)) == chunk
            if flip > 0.9:
                session.legs[0].reclaim()
            elif flip > 0.5:
                await trio.lowlevel.checkpoint()
            position += len(chunk)
        session.legs[0].reclaim()
        nursery.cancel_scope.cancel()
    reference.feed(data)
    assert scanner.state() == reference.state()
    assert scanner.unanswered == reference.unanswered
    redirected = session.up.redirected
    session.close_at_once()
    return redirected


async def send_in_pieces(sock: socket.socket, data: bytes, rng: random.Random) -> None:
    position = 0
    while position < len(data):
        size = rng.choice([1, 3, 30, 500, 5000, 20_000])
        await send(sock, data[position : position + size])
        position += size
        if rng.random() < 0.2:
            await trio.sleep(rng.random() * 0.003)


class Far:
    """One end: notes what comes, and answers the pings that are not the other end's."""

    def __init__(self, sock: socket.socket, *, masked: bool) -> None:
        self.sock = sock
        self.masked = masked
        self.got: list[tuple[Opcode, bytes, bool]] = []
        self.pings = 0
        self.to_answer: list[bytes] = []

    async def listen(self, own: frozenset[bytes]) -> None:
        received, buffer = bytearray(), bytearray(1 << 16)
        while True:
            try:
                count = self.sock.recv_into(buffer)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)
                continue
            if not count:
                break
            received += buffer[:count]
            while (parsed := parse(received, masked=not self.masked)) is not None:
                if (
                    parsed[0] is Opcode.PING
                    and len(parsed[1]) == PING_TOKEN_SIZE + 4
                    and parsed[1] not in own
                ):
                    self.pings += 1
                    self.to_answer.append(parsed[1])
                else:
                    self.got.append(parsed)
        assert not received

    async def talk(
        self, frames: list[bytes], rng: random.Random, other: Far, ask: Callable[[], Awaitable[None]]
    ) -> None:
        for number, each in enumerate(frames):
            await send_in_pieces(self.sock, each, rng)
            if rng.random() < 0.7:
                # Nothing is under way then, and the kernel gets its turn; unless it is being drained.
                for _ in range(30):
                    if len(other.got) > number + 3:
                        break
                    await trio.sleep(0.0005)
            if number % 8 == 3:
                await ask()
            answers, self.to_answer = self.to_answer, []
            for payload in answers:
                await send(self.sock, frame(payload, masked=self.masked, opcode=PONG))


async def ask(source: Pump, sink: Pump, pings: OwnPings) -> None:
    """Send a ping of ours to the peer that `source` reads from, if there is a moment for it."""
    for _ in range(40):
        if sink.can_ping():
            source.withhold_answers(pings)
            sink.ping(pings.next())
            return
        await trio.sleep(0.0005)


def frames_of(data: bytes, *, masked: bool) -> tuple[list[bytes], list[tuple[Opcode, bytes, bool]]]:
    """Return the frames of a stream as they are on the wire, and what they say."""
    wire, said, rest = [], [], bytearray(data)
    while rest:
        before = len(rest)
        parsed = parse(rest, masked=masked)
        assert parsed is not None
        wire.append(data[len(data) - before : len(data) - len(rest)])
        said.append(parsed)
    return wire, said


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_lost_with_pings_and_a_drain_in_the_middle(seed: int) -> None:
    """Pings of ours among everything, and a drain while both sides send."""
    rng = random.Random(seed)
    streams = [frames_of(traffic(rng, 150_000, masked=masked), masked=masked) for masked in (True, False)]
    pings = [frozenset(each[1] for each in said if each[0] is Opcode.PING) for _, said in streams]
    async with kernel_table() as table:
        client_sock, ours = tcp_pair()
        theirs, backend_sock = tcp_pair()
        legs = table.enter(ours, theirs)
        assert legs is not None
        relay = Relay(
            *legs,
            scratch=memoryview(bytearray(SCRATCH_SIZE)),
            write_timeout=0,
            watch=lambda _: None,
            limits=rng.choice([NO_LIMITS, SessionLimits(max_message_bytes=1 << 17)]),
        )
        client, backend = Far(client_sock, masked=True), Far(backend_sock, masked=False)
        own = OwnPings(b"to them!"), OwnPings(b"to those")
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.run)
                nursery.start_soon(client.listen, pings[1])
                nursery.start_soon(backend.listen, pings[0])
                hello = [frame(b"hello", masked=masked) for masked in (True, False)]
                for _ in range(3):
                    for index, (far, other) in enumerate(((client, backend), (backend, client))):
                        arrived = len(other.got)
                        await send(far.sock, hello[index])
                        while len(other.got) == arrived or not legs[index].direction.is_open:
                            await trio.sleep(0.001)
                async with trio.open_nursery() as talking:
                    for far, other, index, asking in (
                        (client, backend, 0, partial(ask, relay.up, relay.down, own[0])),
                        (backend, client, 1, partial(ask, relay.down, relay.up, own[1])),
                    ):
                        own_rng = random.Random(seed + 100 + index)
                        talking.start_soon(far.talk, streams[index][0], own_rng, other, asking)
                    while len(client.got) < len(streams[1][1]) / 2:
                        await trio.sleep(0.001)
                    relay.end(Cause.DRAIN, 1012, timeout=20)
                await send(client_sock, frame(b"\x03\xf4", masked=True, opcode=CLOSE))
                while not (backend.got and backend.got[-1][0] is Opcode.CLOSE):
                    await trio.sleep(0.001)
                redirected = sum(leg.direction.redirected for leg in legs)
                for sock in (backend_sock, client_sock):
                    sock.shutdown(socket.SHUT_WR)
        for sock in (client_sock, backend_sock):
            sock.close()
    # The backend has everything; the client whole frames up to our Close, and nothing behind it.
    close = Opcode.CLOSE, b"\x03\xf4", True
    greetings = [(Opcode.BINARY, b"hello", True)] * 3
    sent_up, sent_down = [*greetings, *streams[0][1]], [*greetings, *streams[1][1]]
    assert backend.got == [*sent_up, close]
    assert client.got[-1] == close
    assert client.got[:-1] == sent_down[: len(client.got) - 1]
    assert len(client.got) > len(streams[1][1]) / 2
    assert (client.pings, backend.pings) == (own[0].sent, own[1].sent)
    assert client.pings + backend.pings >= 1
    assert (relay.cause, relay.close_code) == (Cause.DRAIN, 1012)
    assert relay.up.scanner.violation is None
    assert redirected >= 2 * sum(map(len, hello))  # all but the first, and what came of the rest
