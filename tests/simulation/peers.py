"""The two ends of a conversation: clients and backends that speak WebSocket, politely or not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import trio
from attrs import define, field
from websockets.frames import Opcode

from tests.simulation.ledger import Lane, Received, Violation, encode
from tests.simulation.network import SimChannel
from trio_wsb.net.channel import receive_some, send_all

CLOSE_PATIENCE = 30.0
"""Seconds that a polite peer waits for the end of a connection after both Close frames."""

GIVE_UP_SILENT = 60.0
"""Seconds after which a peer that keeps to no rules goes away."""


@define(eq=False)
class Manner:
    """How a peer behaves."""

    echoes: float = 0.0
    """How often it answers a message with the same one."""
    deaf: bool = False
    """It reads nothing after the handshake."""
    slow: float = 0.0
    """Seconds between two reads."""
    mute: bool = False
    """It reads, and answers neither pings nor Close frames."""
    dozes: float = 0.0
    """How often it does something else for a moment before it reads on."""

    @property
    def polite(self) -> bool:
        return not (self.deaf or self.slow or self.mute)


@define(eq=False)
class Talker:
    """One side of a conversation after the handshake: one writer, one reader.

    `out` and `into` are the lanes; the writer notes each frame there before it begins to write it.
    """

    channel: SimChannel
    out: Lane
    into: Lane
    rng: Random
    manner: Manner
    is_client: bool
    fail: Callable[[Violation], None]
    early: bytes = b""
    """What was received together with the handshake."""
    heard: Callable[[Received], None] = lambda _: None
    ended: bool = False
    """Whether its connection is over."""
    code: int | None = None
    """Of the Close frame that came; 1006 when the connection ended without."""
    said_close: bool = False
    broke: bool = False
    """Whether its connection broke, or its writes did."""
    halved: bool = False
    """Whether it has ended its direction without a Close frame, and read on."""
    faulty: bool = False
    """Whether somebody has tampered with it, or it has ended without a Close frame by itself."""
    _queue: deque[tuple[bytes, bool]] = field(factory=deque)
    _wanted: trio.Event = field(factory=trio.Event)
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _busy: bool = False

    # What a script asks of it.

    def say(self, payload: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> None:
        """Send a frame when its turn comes; none after a Close."""
        if not self.said_close and not self.ended:
            self._put(encode(payload, opcode, mask=self.is_client, fin=fin))

    def message(self, size: int) -> None:
        """Send a message of random bytes, in several frames at times, with a control frame between them at times."""
        rng, payload = self.rng, self.rng.randbytes(size)
        if rng.random() < 0.1:
            self.say(payload[:5], Opcode.PING)
        if size < 2 or rng.random() < 0.7:
            self.say(payload, rng.choice((Opcode.BINARY, Opcode.TEXT)))
            return
        cut = rng.randint(1, size - 1)
        self.say(payload[:cut], Opcode.BINARY, fin=False)
        if rng.random() < 0.5:
            self.say(b"beat", Opcode.PONG)
        self.say(payload[cut:], Opcode.CONT)

    def close(self, code: int = 1000) -> None:
        """Send a Close frame after what is queued."""
        if not self.said_close and not self.ended:
            self.said_close = True
            self._put(encode(code.to_bytes(2, "big"), Opcode.CLOSE, mask=self.is_client))

    def drop(self) -> None:
        """End the connection without a Close frame."""
        self.faulty = True
        self._over(self.channel.close)

    def reset(self) -> None:
        self.faulty = True
        self._over(self.channel.abort)

    def vanish(self) -> None:
        self.faulty = True
        self._over(self.channel.vanish)

    def half_close(self) -> None:
        """Send no more after what is queued, not even a Close frame, and read on."""
        if not self.said_close and not self.ended:
            self.halved = self.said_close = True
            self._put(b"", expected=False)

    # Its tasks.

    async def run(self) -> None:
        """Talk until the connection is over."""
        if not self.manner.polite:
            self._scope.deadline = trio.current_time() + GIVE_UP_SILENT
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
                nursery.cancel_scope.cancel()
        self.ended = True
        if self.code is None:
            self.code = 1006
        self.channel.close()

    async def _read(self) -> None:
        manner, buffer = self.manner, bytearray(65536)
        if manner.deaf:
            await trio.sleep_forever()
        waiting = trio.CancelScope()
        try:
            with waiting:
                for frame in self.into.receive(self.early):
                    self._act(frame)
                while count := await receive_some(self.channel, buffer):
                    for frame in self.into.receive(buffer[:count]):
                        self._act(frame)
                    if self.code is not None and self.said_close and not (self._queue or self._busy):
                        if not self.is_client:
                            return  # a server ends the connection first (RFC 6455 section 7.1.1)
                        waiting.deadline = min(waiting.deadline, trio.current_time() + CLOSE_PATIENCE)
                    if manner.slow:
                        await trio.sleep(manner.slow)
                    # Not with every few bytes, which would take minutes.
                    if manner.dozes and count > 50 and self.rng.random() < manner.dozes:
                        await trio.sleep(self.rng.choice((0.01, 0.3, 1.0)))
        except OSError:
            self.broke = True
        except trio.ClosedResourceError:
            pass  # a script has ended it
        except Violation as violation:
            self.fail(violation)

    def _act(self, frame: Received) -> None:
        if frame.opcode == Opcode.PING and not self.manner.mute:
            pong = encode(frame.payload, Opcode.PONG, mask=self.is_client)
            # The answer to a ping of the balancer's is the balancer's alone.
            if not self.said_close:
                self._put(pong, expected=not frame.ours)
        elif frame.opcode == Opcode.CLOSE:
            self.code = frame.code
            if not self.manner.mute:
                self.close(1000 if frame.code in {1005, 1006} else frame.code)
        elif (
            frame.opcode in {Opcode.BINARY, Opcode.TEXT}
            and frame.fin
            and self.rng.random() < self.manner.echoes
        ):
            self.say(frame.payload, Opcode(frame.opcode))
        self.heard(frame)

    async def _write(self) -> None:
        while True:
            while self._queue:
                frame, expected = self._queue.popleft()
                if not frame:
                    self.channel.shutdown()
                    continue
                if expected:
                    self.out.send(frame)
                self.out.written += frame
                self._busy = True
                try:
                    await send_all(self.channel, frame)
                    self._busy = False
                except OSError:
                    self.broke = True
                    self._queue.clear()
                    return
                except trio.ClosedResourceError:
                    return
                if frame[0] == 0x88 and self.code is not None and not self.is_client:
                    self.channel.close()  # both Close frames are through
                    self._scope.cancel()
            self._wanted = trio.Event()
            await self._wanted.wait()

    def _put(self, frame: bytes, *, expected: bool = True) -> None:
        self._queue.append((frame, expected))
        self._wanted.set()

    def _over(self, how: Callable[[], None]) -> None:
        if not self.ended:
            how()
            self._scope.cancel()
