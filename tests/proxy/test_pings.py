"""Frames of our own among those of others: when they go out, where, and that nothing else changes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Generator

import pytest
import trio
import trio.testing
from attrs import define, field
from websockets.frames import Frame, Opcode

from tests.proxy.frames import next_frame
from tests.proxy.world import Bench, FarEnd, close_frame, frame, relaying
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.guard import SessionLimits
from trio_wsb.websocket.frames import mask_payload

pytestmark = pytest.mark.usefixtures("relay_kind")

LIMITS = SessionLimits(ping_interval=10, pong_timeout=5)
PING = Opcode.PING


async def ping_of(bench: Bench, *, client: bool) -> bytes:
    """Receive a frame, which must be a Ping of ours, and return its payload."""
    received = await next_frame(bench, bench.client if client else bench.backend)
    assert received.opcode is PING
    return bytes(received.data)


def pong(payload: bytes, *, mask: bool) -> bytes:
    return frame(payload, opcode=Opcode.PONG, mask=mask)


@pytest.mark.parametrize("chunk", [1, 5, 1000])
async def test_each_side_is_asked_and_its_answer_goes_no_further(
    chunk: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with relaying(limits=LIMITS, segment=chunk) as bench:
        begun = trio.current_time()
        for _ in range(5):
            asked = {client: await ping_of(bench, client=client) for client in (True, False)}
            assert asked[True] != asked[False]
            await send_all(bench.client, pong(asked[True], mask=True))
            await send_all(bench.backend, pong(asked[False], mask=False))
        assert 50 <= trio.current_time() - begun <= 60
        # Neither side got the answer, and what comes now is the next thing that it gets.
        await bench.pass_through(frame(b"hello", mask=True), up=True)
        await bench.pass_through(frame(b"hello"), up=False)
        up, down = bench.relay.up.scanner, bench.relay.down.scanner
        assert (up.bytes, up.opcodes[PING], up.opcodes[Opcode.PONG]) == (11, 0, 0)
        assert (down.bytes, down.opcodes[PING], down.opcodes[Opcode.PONG]) == (7, 0, 0)
        assert bench.relay.cause is None


async def test_any_byte_is_a_sign_of_life(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(limits=LIMITS) as bench:
        asked = [await ping_of(bench, client=client) for client in (True, False)]
        await trio.sleep(4)
        first_part = frame(b"no answer, but a message", mask=True)[:7]
        await bench.pass_through(first_part, up=True)
        await bench.pass_through(frame(b"", opcode=Opcode.PONG), up=False)
        await trio.sleep(4)
        assert bench.relay.cause is None
        # The client stands inside a frame, so that the backend cannot be asked; and the client can.
        assert (await ping_of(bench, client=True)) not in asked
        await trio.sleep(4)
        assert bench.relay.cause is None


async def test_an_answer_that_comes_late_is_still_kept_back(autojump_clock: trio.testing.MockClock) -> None:
    limits = SessionLimits(ping_interval=10, pong_timeout=100)
    async with relaying(limits=limits) as bench:
        first, _ = [await ping_of(bench, client=client) for client in (True, False)]
        for _ in range(12):
            await trio.sleep(1)
            await bench.pass_through(frame(b"busy", mask=True), up=True)
            await bench.pass_through(frame(b"busy"), up=False)
        second, _ = [await ping_of(bench, client=client) for client in (True, False)]
        await bench.pass_through(frame(b"busy", mask=True), up=True)
        await send_all(bench.client, pong(first, mask=True) + pong(second, mask=True))
        await bench.pass_through(frame(b"after", mask=True), up=True)


async def test_no_ping_while_an_end_to_end_one_waits(autojump_clock: trio.testing.MockClock) -> None:
    """A peer may answer just the latest ping, and the other side would miss its answer."""
    async with relaying(limits=SessionLimits(ping_interval=10, pong_timeout=60)) as bench:
        await bench.pass_through(frame(b"from the backend", opcode=PING), up=False)
        for second in range(150):
            await trio.sleep(1)
            await bench.pass_through(frame(b"tick"), up=False)
            if second % 50 == 40:
                await bench.pass_through(frame(b"a sign of life", mask=True), up=True)
        await bench.pass_through(pong(b"from the backend", mask=True), up=True)
        for _ in range(9):
            await trio.sleep(1)
            await bench.pass_through(frame(b"tick"), up=False)
        await ping_of(bench, client=True)
        assert bench.relay.cause is None


async def test_an_end_to_end_ping_is_as_good_as_ours(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(limits=LIMITS) as bench, trio.open_nursery() as nursery:
        await bench.pass_through(frame(b"?", opcode=PING), up=False)
        begun = trio.current_time()

        async def backend_lives() -> None:
            while True:
                await send_all(bench.backend, frame(b"tick"))
                await trio.sleep(1)

        nursery.start_soon(backend_lives)
        received = Frame(Opcode.TEXT, b"")
        while received.opcode is not Opcode.CLOSE:
            received = await next_frame(bench, bench.client)
            assert received.opcode is not PING
        assert 15 <= trio.current_time() - begun <= 17
        assert bench.relay.cause is Cause.CLIENT_PING_TIMEOUT
        nursery.cancel_scope.cancel()


async def test_no_ping_inside_a_frame(autojump_clock: trio.testing.MockClock) -> None:
    message = frame(b"a message that the backend does not finish for long")
    async with relaying(limits=LIMITS) as bench:
        for index in range(0, len(message), 10):
            await bench.pass_through(message[index : index + 10], up=False)
            for _ in range(9):
                await trio.sleep(1)
                await bench.pass_through(frame(b"alive", mask=True), up=True)
        assert bench.relay.cause is None
        assert bench.relay.down.scanner.messages == 1


async def test_a_ping_between_the_fragments_of_a_message(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(limits=LIMITS) as bench:
        await bench.pass_through(frame(b"first", fin=False, opcode=Opcode.TEXT), up=False)
        asked = await ping_of(bench, client=True)
        await send_all(bench.client, pong(asked, mask=True))
        await bench.pass_through(frame(b"last", opcode=Opcode.CONT), up=False)
        assert bench.relay.down.scanner.messages == 1


async def test_silence_of_a_side_that_we_do_not_read_proves_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The client waits for the backend, which reads nothing; its answers wait behind its messages."""
    async with relaying(capacity=1000, write_timeout=0, limits=LIMITS) as bench:
        with trio.move_on_after(15):
            await send_all(bench.client, frame(bytes(10_000), mask=True))
        with trio.move_on_after(60):
            while True:
                await send_all(bench.backend, frame(b"alive but busy"))
                await bench.exactly(bench.client, 1)
                await trio.sleep(1)
        assert bench.relay.cause is None


@pytest.mark.parametrize("free", range(18))
async def test_a_ping_into_a_full_buffer_is_not_torn(
    free: int, autojump_clock: trio.testing.MockClock
) -> None:
    """The rest of it goes out before anything else, a Close too."""
    filling = frame(bytes(1000 - free - 4))
    async with relaying(capacity=1000, limits=LIMITS) as bench:
        await send_all(bench.backend, filling)
        await bench.pass_through(frame(b"", mask=True), up=True)
        await trio.sleep(12)
        await send_all(bench.backend, frame(b"behind the ping"))
        bench.relay.end(Cause.DRAIN, 1001, timeout=60)
        await trio.testing.wait_all_tasks_blocked()
        assert await bench.exactly(bench.client, len(filling)) == filling
        asked = await ping_of(bench, client=True)
        assert len(asked) == 12
        rest = await next_frame(bench, bench.client)
        if rest.opcode is Opcode.BINARY:  # the ping was through when it came
            assert rest.data == b"behind the ping"
            rest = await next_frame(bench, bench.client)
        assert (rest.opcode, rest.data[:2]) == (Opcode.CLOSE, b"\x03\xe9")


async def test_the_time_for_an_answer_begins_when_the_ping_is_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A client that takes nothing has the write timeout; it cannot answer what has not reached it."""
    filling = frame(bytes(996))
    async with relaying(capacity=1000, write_timeout=60, limits=LIMITS) as bench:
        await send_all(bench.backend, filling)
        await trio.sleep(40)
        assert bench.relay.cause is None
        assert await bench.exactly(bench.client, len(filling)) == filling
        asked = await ping_of(bench, client=True)
        await trio.sleep(3)
        assert bench.relay.cause is None
        await send_all(bench.client, pong(asked, mask=True))
        await send_all(bench.backend, frame(b"alive"))
        await trio.sleep(5)
        assert bench.relay.cause is None
        with trio.fail_after(30):
            await bench.done.wait()
        assert bench.relay.cause is Cause.CLIENT_PING_TIMEOUT


@define(eq=False)
class Far:
    """One side: sends frames of its own in random pieces, answers pings late and only the latest, notes what it gets."""

    bench: Bench
    channel: FarEnd
    mask: bool
    rng: random.Random
    sent: list[tuple[Opcode, bytes, bool]] = field(factory=list)
    got: list[tuple[Opcode, bytes, bool]] = field(factory=list)
    pinged: list[bytes] = field(factory=list)
    """Payloads of the pings that it sent."""
    outgoing: trio.Lock = field(factory=trio.Lock)
    to_answer: bytes | None = None

    async def send(self, opcode: Opcode, payload: bytes, *, fin: bool = True) -> None:
        async with self.outgoing:
            wire = frame(payload, opcode=opcode, mask=self.mask, fin=fin)
            self.sent.append((opcode, payload, fin))
            cuts = sorted(self.rng.randrange(len(wire)) for _ in range(self.rng.choice([0, 0, 1, 3])))
            for begin, end in itertools.pairwise([0, *cuts, len(wire)]):
                await send_all(self.channel, wire[begin:end])
                if self.rng.random() < 0.3:
                    await trio.sleep(self.rng.choice([0.1, 1.0, 3.0]))

    async def talk(self, count: int) -> None:
        rng = self.rng
        for number in range(count):
            kind = rng.random()
            body = rng.randbytes(rng.choice([0, 1, 30, 125, 126, 300, 2000]))
            if kind < 0.5:
                await self.send(rng.choice([Opcode.TEXT, Opcode.BINARY]), body)
            elif kind < 0.75:
                await self.send(Opcode.BINARY, body[:100], fin=False)
                if rng.random() < 0.5:
                    await self.answer()
                await self.send(Opcode.CONT, body[100:200], fin=False)
                await self.send(Opcode.CONT, body[200:])
            elif len([each for each in self.got if each[0] is Opcode.PONG]) == len(self.pinged):
                payload = b"%d of ours" % number
                self.pinged.append(payload)
                await self.send(PING, payload)
            await trio.sleep(rng.choice([0.0, 0.2, 2.0, 5.0]))
        await trio.sleep(30)

    async def answer(self) -> None:
        payload, self.to_answer = self.to_answer, None
        if payload is not None:
            await self.send(Opcode.PONG, payload)

    async def listen(self) -> None:
        buffer = bytearray(65536)
        received = bytearray()
        while count := await receive_some(self.channel, buffer):
            received += buffer[:count]
            while (parsed := parse(received, masked=not self.mask)) is not None:
                self.got.append(parsed)
                if parsed[0] is PING:
                    self.to_answer = parsed[1]

    async def answer_sometimes(self) -> None:
        while True:
            await trio.sleep(self.rng.choice([0.3, 2.0, 4.0]))
            await self.answer()


def parse(data: bytearray, *, masked: bool) -> tuple[Opcode, bytes, bool] | None:
    """Take the frame at the beginning of `data`, if it is all there, by websockets' parser."""
    position = 0

    def read_exact(size: int) -> Generator[None, None, bytes]:
        nonlocal position
        while len(data) - position < size:
            yield
        position += size
        return bytes(data[position - size : position])

    try:
        next(Frame.parse(read_exact, mask=masked))
    except StopIteration as stop:
        del data[:position]
        found: Frame = stop.value
        return found.opcode, bytes(found.data), found.fin
    return None


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_passes_no_frame_is_split_and_nothing_else_changes(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(seed)
    limits = SessionLimits(
        ping_interval=rng.choice([1, 2]),
        pong_timeout=1000,
        max_message_bytes=rng.choice([0, 2000]),
        message_rate=rng.choice([0, 50]),
        byte_rate=rng.choice([0, 20_000]),
    )
    capacity, segment = rng.choice([50, 1000, 65536]), rng.choice([1, 7, 200, None])
    async with relaying(capacity=capacity, segment=segment, limits=limits, write_timeout=0) as bench:
        client = Far(bench, bench.client, mask=True, rng=random.Random(seed + 1000))
        backend = Far(bench, bench.backend, mask=False, rng=random.Random(seed + 2000))
        async with trio.open_nursery() as nursery:
            for far in (client, backend):
                nursery.start_soon(far.listen)
                nursery.start_soon(far.answer_sometimes)
            async with trio.open_nursery() as talking:
                talking.start_soon(client.talk, 25)
                talking.start_soon(backend.talk, 25)
            async with client.outgoing, backend.outgoing:
                await trio.sleep(30)
                bench.relay.end(Cause.DRAIN, 1012, timeout=60)
                await trio.sleep(5)
            nursery.cancel_scope.cancel()
        assert client.got.pop() == (Opcode.CLOSE, b"\x03\xf4", True)
        pings_of_ours = 0
        for source, sink in ((client, backend), (backend, client)):
            ours = [each for each in sink.got if each[0] is PING and each[1] not in source.pinged]
            pings_of_ours += len(ours)
            # Everything but our pings is what the other side sent, but for its answers to our pings.
            to_others = [each for each in source.sent if each[0] is not Opcode.PONG or each[1] in sink.pinged]
            assert [each for each in sink.got if each not in ours] == to_others
            # Nobody misses an answer, although both sides answer just the latest ping.
            assert [each[1] for each in sink.got if each[0] is Opcode.PONG] == sink.pinged
            scanner = bench.relay.up.scanner if source is client else bench.relay.down.scanner
            assert scanner.frames == len(to_others)
            assert scanner.violation is None
        assert pings_of_ours > 5


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("seed", range(16))
async def test_our_close_in_the_middle_of_anything(
    seed: int, up: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Both sides read whole frames, then our Close, then the end, wherever the stream stood."""
    rng = random.Random(seed)
    frames = [
        frame(
            rng.randbytes(rng.choice([0, 5, 125] if opcode is PING else [0, 5, 125, 126, 700])),
            mask=up,
            fin=opcode is PING or rng.random() < 0.5,
            opcode=opcode,
        )
        for opcode in (Opcode.BINARY, Opcode.CONT, Opcode.CONT, PING, Opcode.CONT)
    ]
    stream = b"".join(frames)
    async with relaying(capacity=rng.choice([60, 5000]), segment=rng.choice([1, 9, None])) as bench:
        source, sink = (bench.client, bench.backend) if up else (bench.backend, bench.client)
        at = rng.randrange(len(stream) + 1)
        received = bytearray()

        async def listen() -> None:
            received.extend(await bench.rest(sink))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await send_all(source, stream[:at])
            await trio.testing.wait_all_tasks_blocked()
            bench.relay.end_both(Cause.CLIENT_PING_TIMEOUT)
            await trio.testing.wait_all_tasks_blocked()
            await send_all(source, stream[at:])
            source.shutdown()  # to close it with bytes unread would be a reset, which may destroy what was sent
        got = list(iter(lambda: parse(received, masked=up), None))
        assert not received
        last = got.pop()
        assert (last[0], last[1][:2]) == (Opcode.CLOSE, b"\x03\xe9")
        whole = bytearray(stream)
        sent = list(iter(lambda: parse(whole, masked=up), None))
        assert got == sent[: len(got)]
        # Not one frame more than had begun.
        begun = next(index for index in range(len(frames) + 1) if len(b"".join(frames[:index])) >= at)
        assert len(got) == begun


async def test_a_close_towards_the_backend_is_masked(autojump_clock: trio.testing.MockClock) -> None:
    masks = set()
    for _ in range(4):
        async with relaying() as bench:
            await trio.testing.wait_all_tasks_blocked()
            bench.relay.end_both(Cause.CLIENT_PING_TIMEOUT)
            wire = await bench.rest(bench.backend)
        assert wire[0] == 0x88
        assert wire[1] & 0x80
        masks.add(wire[2:6])
        assert mask_payload(wire[6:], wire[2:6]) == b"\x03\xe9client_ping_timeout"
    assert len(masks) == 4  # fresh for each frame, and not to be guessed (RFC 6455 section 5.3)


async def test_no_ping_after_a_close(autojump_clock: trio.testing.MockClock) -> None:
    async with relaying(limits=LIMITS) as bench:
        await bench.pass_through(close_frame(1000), up=False)
        await trio.sleep(25)
        # The client has not answered the backend's Close, and is asked nothing any more; the backend neither.
        await bench.pass_through(close_frame(1000, mask=True), up=True)
        bench.backend.close()
        assert await bench.rest(bench.client) == b""
    assert (bench.relay.cause, bench.relay.close_code) == (Cause.BACKEND_CLOSED, 1000)
