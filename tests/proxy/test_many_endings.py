"""Thousands of sessions that end in every way there is: what we recorded is what both sides saw."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import structlog.testing
import trio
import trio.testing
from attrs import define, field
from websockets.frames import Opcode

from tests.proxy.world import FarEnd, KernelWorld, StreamWorld, close_frame, frame
from tests.simulation.network import SimChannel
from tests.simulation.psock import Temper
from trio_wsb.addresses import parse_backend_url
from trio_wsb.balancing.backend import Backend
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.proxy.causes import CLOSE_CODES, Cause
from trio_wsb.proxy.guard import NO_LIMITS, SessionLimits
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.proxy.relaying import RelayKind
from trio_wsb.proxy.session import Session, SessionTable
from trio_wsb.proxy.sweeper import Sweeper

AT_ONCE: dict[RelayKind, int] = {"stream": 2_500, "kernel": 500}
"""Sessions of one wave."""
WAVES = 4
LIMIT = 300
"""Bytes that a message may have where there is a limit."""

CODES = (1000, 1001, 1008, 1011, 3000, 4999)
MESSAGES = {
    mask: [frame(bytes(size), mask=mask, opcode=Opcode.BINARY) for size in (0, 1, 125, 126, 300)]
    for mask in (True, False)
}
TOO_BIG = {mask: frame(bytes(LIMIT + 1), mask=mask) for mask in (True, False)}


@define(eq=False)
class Peer:
    """One side: counts what it gets, answers pings and Close frames, and ends its connection when it is due."""

    channel: FarEnd
    mask: bool
    """Whether it is the client."""
    reads: bool = True
    messages: int = 0
    payload: int = 0
    code: int | None = None
    """Of the Close that it got; None as long as there is none, 1006 when its connection ended without."""
    said_close: bool = False

    async def say(self, data: bytes) -> None:
        try:
            await send_all(self.channel, data)
        except (OSError, trio.ClosedResourceError):
            pass  # the connection has ended, which `live` sees too

    async def close(self, code: int) -> None:
        if not self.said_close:
            self.said_close = True
            await self.say(close_frame(code, mask=self.mask))

    async def live(self) -> None:
        if not self.reads:
            return
        buffer, received = bytearray(4096), bytearray()
        try:
            while count := await receive_some(self.channel, buffer):
                received += buffer[:count]
                while (size := self.take(received)) is not None:
                    await self.act(received[0] & 0xF, bytes(received[:size]))
                    del received[:size]
                if self.code is not None and self.said_close and not self.mask:
                    break  # a server ends the connection first (RFC 6455 section 7.1.1)
        except (OSError, trio.ClosedResourceError):
            pass
        self.code = self.code or 1006
        self.channel.close()

    def take(self, data: bytearray) -> int | None:
        """Return the size of the frame at the beginning of `data`, None if it is not all there."""
        if len(data) < 2:
            return None
        length, head = data[1] & 0x7F, 2
        if length == 126:
            if len(data) < 4:
                return None
            length, head = data[2] << 8 | data[3], 4
        size = head + (0 if self.mask else 4) + length
        return size if len(data) >= size else None

    async def act(self, opcode: int, data: bytes) -> None:
        head = (4 if data[1] & 0x7F == 126 else 2) + (0 if self.mask else 4)
        body = data[head:]
        if not self.mask and body:
            body = (
                bytes(byte ^ data[head - 4 + index % 4] for index, byte in enumerate(body[:125])) + body[125:]
            )
        if opcode == Opcode.BINARY:
            self.messages += 1
            self.payload += len(body)
        elif opcode == Opcode.PING:
            await self.say(frame(body, opcode=Opcode.PONG, mask=self.mask))
        elif opcode == Opcode.CLOSE:
            assert self.code is None
            self.code = int.from_bytes(body[:2], "big")
            await self.close(self.code)


@define(eq=False)
class Trial:
    """One session, how it is to end, and what both sides saw of it."""

    cause: Cause
    rng: random.Random
    client: Peer
    backend: Peer
    session: Session
    code: int | None = field(init=False)
    """The close code that is to be recorded."""

    def __attrs_post_init__(self) -> None:
        self.code = max(CLOSE_CODES[self.cause]) if self.cause in CLOSE_CODES else None
        if self.cause in {Cause.CLIENT_CLOSED, Cause.BACKEND_CLOSED}:
            self.code = self.rng.choice(CODES)
        elif self.cause in {Cause.DRAIN, Cause.REBALANCE, Cause.SHUTDOWN}:
            self.code = self.rng.choice([1001, 1012, 4000])

    @property
    def confused(self) -> bool:
        """Whether TCP repeated what nobody can tell from what is new, so that the relay had to give the session up."""
        ends = self.client.channel, self.backend.channel
        return any(isinstance(end, SimChannel) and end.peer.confused for end in ends)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.client.live)
            nursery.start_soon(self.backend.live)
            for peer in (self.client, self.backend):
                for _ in range(self.rng.randrange(4)):
                    await peer.say(self.rng.choice(MESSAGES[peer.mask]))
            await trio.sleep(self.rng.random())
            await self.end()

    async def end(self) -> None:
        rng, relay, cause = self.rng, self.session.relay, self.cause
        if cause in {Cause.CLIENT_CLOSED, Cause.BACKEND_CLOSED}:
            assert self.code is not None
            await (self.client if cause is Cause.CLIENT_CLOSED else self.backend).close(self.code)
        elif cause in {Cause.CLIENT_LOST, Cause.BACKEND_LOST}:
            channel = (self.client if cause is Cause.CLIENT_LOST else self.backend).channel
            rng.choice([channel.close, channel.abort])()
        elif cause in {Cause.CLIENT_MESSAGE_TOO_BIG, Cause.BACKEND_MESSAGE_TOO_BIG}:
            sender = self.client if cause is Cause.CLIENT_MESSAGE_TOO_BIG else self.backend
            await sender.say(rng.choice(MESSAGES[sender.mask]) + TOO_BIG[sender.mask])
        elif cause in {Cause.CLIENT_WRITE_TIMEOUT, Cause.BACKEND_WRITE_TIMEOUT}:
            sender = self.backend if cause is Cause.CLIENT_WRITE_TIMEOUT else self.client
            await sender.say(MESSAGES[sender.mask][-1] * 60)  # more than may be under way
        elif cause in {Cause.DRAIN, Cause.REBALANCE, Cause.SHUTDOWN}:
            assert self.code is not None
            relay.end(cause, self.code, timeout=5)

    def check(self) -> None:
        """Compare what was recorded with what both sides saw."""
        relay, up, down = self.session.relay, self.session.relay.up, self.session.relay.down
        assert relay.cause is self.cause
        assert relay.close_code == self.code
        assert relay.closed_by == self.cause.side
        for peer, pump, told in (
            (self.client, down, relay.code_to_client),
            (self.backend, up, relay.code_to_backend),
        ):
            if peer.reads:
                passed = pump.scanner.payload_bytes - pump.scanner.control_payload
                if peer.code == 1006 and peer.channel is self.lost_channel():
                    assert (peer.messages, peer.payload) <= (pump.scanner.messages, passed)
                else:
                    assert peer.code == (told or 1006)
                    assert (peer.messages, peer.payload) == (pump.scanner.messages, passed)
        # Who closed in good order got the same code back.
        if self.cause is Cause.CLIENT_CLOSED:
            assert self.client.code == self.backend.code == self.code

    def lost_channel(self) -> FarEnd | None:
        sides = {Cause.CLIENT_LOST: self.client.channel, Cause.BACKEND_LOST: self.backend.channel}
        return sides.get(self.cause)


LIMITS: dict[Cause, SessionLimits] = {
    Cause.IDLE_TIMEOUT: SessionLimits(idle_timeout=3, ping_interval=1),
    Cause.MAX_LIFETIME: SessionLimits(max_lifetime=4, lifetime_jitter=0.5),
    Cause.CLIENT_PING_TIMEOUT: SessionLimits(ping_interval=1, pong_timeout=2),
    Cause.BACKEND_PING_TIMEOUT: SessionLimits(ping_interval=1, pong_timeout=2),
    Cause.CLIENT_MESSAGE_TOO_BIG: SessionLimits(max_message_bytes=LIMIT),
    Cause.BACKEND_MESSAGE_TOO_BIG: SessionLimits(max_message_bytes=LIMIT),
}
ANY = SessionLimits(
    idle_timeout=100,
    max_lifetime=200,
    ping_interval=1,
    max_message_bytes=LIMIT,
    message_rate=1000,
    byte_rate=10_000,
)
DEAF = {
    Cause.CLIENT_PING_TIMEOUT: True,
    Cause.CLIENT_WRITE_TIMEOUT: True,
    Cause.BACKEND_PING_TIMEOUT: False,
    Cause.BACKEND_WRITE_TIMEOUT: False,
}
"""Who reads nothing: whether it is the client."""

CAUSES = [cause for cause in Cause if cause is not Cause.INTERNAL_ERROR]


def make(
    cause: Cause,
    seed: int,
    backend: Backend,
    world: StreamWorld | KernelWorld,
    watch: Callable[[Relay], None],
    scratch: memoryview,
) -> Trial:
    rng = random.Random(seed)
    capacity = 1000 if cause.value.endswith("write_timeout") else 65536
    client, client_near = world.connect(capacity, None, tls=rng.random() >= 0.8)
    far, far_near = world.connect(capacity, None, tls=rng.random() >= 0.8)
    relayed = world.choose(client_near, far_near)
    limits = LIMITS.get(cause, ANY if seed % 2 else NO_LIMITS)
    relay = Relay(
        relayed.client, relayed.backend, scratch=scratch, write_timeout=3, watch=watch, limits=limits
    )
    backend.begin_handshake()
    session = Session(
        relay,
        backend,
        "s",
        "r",
        "web",
        "192.0.2.1:1",
        "192.0.2.1",
        "chat.example",
        "/",
        1,
        relay_kind=relayed.kind,
    )
    deaf = DEAF.get(cause)
    return Trial(
        cause,
        rng,
        Peer(client, mask=True, reads=deaf is not True),
        Peer(far, mask=False, reads=deaf is not False),
        session,
    )


WILD = Temper(races=0.1, lag=0.3, late=0.3, repeats=0.05, merges=0.1, credit=4096)
"""A kernel that does what it may. About every third session is not its: one of its connections is TLS."""


@asynccontextmanager
async def connected(kind: RelayKind, seed: int) -> AsyncIterator[StreamWorld | KernelWorld]:
    """Yield what connections are made of; nothing of them may be left in the end."""
    if kind == "stream":
        yield StreamWorld()
        return
    world = KernelWorld(random.Random(seed), WILD)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        yield world
        await world.table.empty()
        assert world.table.entries() == 0
        assert world.table.maps.overtaken
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wave", range(WAVES))
async def test_what_was_recorded_is_what_both_sides_saw(
    wave: int, relay_kind: RelayKind, autojump_clock: trio.testing.MockClock
) -> None:
    at_once, sweeper, table = AT_ONCE[relay_kind], Sweeper(), SessionTable()
    backend = Backend(parse_backend_url("http://10.0.0.1:8080"))
    scratch = memoryview(bytearray(SCRATCH_SIZE))
    with structlog.testing.capture_logs() as lines:
        async with connected(relay_kind, wave) as world, trio.open_nursery() as nursery:
            nursery.start_soon(sweeper.run)
            trials = [
                make(CAUSES[at % len(CAUSES)], wave * at_once + at, backend, world, sweeper.watch, scratch)
                for at in range(at_once)
            ]
            async with trio.open_nursery() as sessions:
                for trial in trials:
                    sessions.start_soon(table.run, trial.session)
                    sessions.start_soon(trial.run)
            nursery.cancel_scope.cancel()
    sound = [trial for trial in trials if not trial.confused]
    for trial in sound:
        trial.check()
    ended = [line for line in lines if line["event"] == "session ended"]
    if relay_kind == "stream":
        assert sound == trials
        assert table.ended_total == Counter(trial.cause for trial in trials)
        assert Counter((line["cause"], line["closeCode"]) for line in ended) == Counter(
            (trial.cause.value, trial.code) for trial in trials
        )
    else:
        assert len(sound) >= 0.99 * at_once
        assert sum(trial.session.relay_kind == "kernel" for trial in trials) >= at_once / 2
    assert (len(table), backend.live, table.opened_total, len(ended)) == (0, 0, at_once, at_once)
    assert sum(line["messagesOut"] for line in ended) >= sum(trial.client.messages for trial in sound)
