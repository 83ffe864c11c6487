"""A herd of clients in virtual time: they open sessions over memory, answer Close frames and come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import trio
import trio.testing

from tests.daemon.state import World
from trio_wsb.balancing.backend import Backend
from trio_wsb.net.channel import receive_some, send_all
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.proxy.relay import Relay
from trio_wsb.proxy.session import Session

ABNORMAL = 1006
"""What an end without a Close frame is called."""


class Herd:
    """Clients of one service. `codes` are the close codes that they saw, `ends` when and at which backend."""

    def __init__(self, world: World, service: str = "wsbalancer", *, returns: bool = True) -> None:
        self.world = world
        self.service = service
        self.returns = returns
        self.deaf = False
        """Whether clients ignore Close frames."""
        self.codes: Counter[int] = Counter()
        self.ends: list[tuple[float, str]] = []
        self.refused = 0
        self._rng = Random(7)

    def live(self) -> dict[str, int]:
        """Return the live sessions of each backend of the service."""
        members = self.world.proxy.runtime.services[self.service].pool.members
        return {str(member.backend.url): member.backend.live for member in members}

    async def client(self, backend: Backend | None = None) -> None:
        """Be a client until the end of the test.

        With `backend` its first handshake is under way there already, counted in, and becomes a session now.
        """
        counted_in = backend is not None
        while True:
            pool = self.world.proxy.runtime.services[self.service].pool
            chosen = backend or pool.choose(None, trio.current_time())
            backend = None
            if chosen is None:
                self.refused += 1
                await trio.sleep(1.0)
                continue
            if not counted_in:
                chosen.begin_handshake()
            counted_in = False
            code = await self._session(chosen)
            self.codes[code] += 1
            if not self.returns:
                return
            await trio.sleep(self._rng.uniform(0.05, 0.5))

    async def _session(self, backend: Backend) -> int:
        proxy = self.world.proxy
        client, near = memory_channel_pair(4096)
        server, far = memory_channel_pair(4096)
        relay = Relay(near, far, scratch=proxy.scratch, write_timeout=0, watch=proxy.sweeper.watch)
        session = Session(
            relay, backend, self.service, "r", "web", "192.0.2.1:1", "192.0.2.1", "chat.example", "/", 1
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxy.sessions.run, session)
            nursery.start_soon(self._backend, server)
            code = await _close_code(client)
            self.ends.append((trio.current_time(), str(backend.url)))
            if code != ABNORMAL and not self.deaf:
                await _send(client, bytes.fromhex("888200000000") + code.to_bytes(2, "big"))
            while await _some(client):
                pass
            client.close()
        return code

    async def _backend(self, server: MemoryChannel) -> None:
        """Answer the client's Close frame, which comes masked, and end the connection."""
        received = await _some(server)
        if received[:1] == b"\x88":
            await _send(server, bytes([0x88, 2]) + received[6:8])
        server.close()


async def _some(channel: MemoryChannel) -> bytes:
    buffer = bytearray(256)
    try:
        count = await receive_some(channel, buffer)
    except OSError:
        return b""
    return bytes(buffer[:count])


async def _send(channel: MemoryChannel, data: bytes) -> None:
    try:
        await send_all(channel, data)
    except OSError:
        pass


async def _close_code(channel: MemoryChannel) -> int:
    received = await _some(channel)
    return int.from_bytes(received[2:4], "big") if received[:1] == b"\x88" else ABNORMAL


@asynccontextmanager
async def herd(
    world: World, count: int, *, service: str = "wsbalancer", returns: bool = True, moving: bool = True
) -> AsyncIterator[Herd]:
    """Run `count` clients for as long as the block lasts, with the sweeper and, but for `moving`, what moves sessions."""
    made = Herd(world, service, returns=returns)
    async with trio.open_nursery() as nursery:
        if moving:
            await nursery.start(world.state.mover.run)
            nursery.start_soon(world.proxy.sweeper.run)
        for _ in range(count):
            nursery.start_soon(made.client)
        await trio.testing.wait_all_tasks_blocked()
        try:
            yield made
        finally:
            nursery.cancel_scope.cancel()
