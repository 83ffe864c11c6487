"""The end of a stream, and what came before it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.net.kernel.stage import KernelSession, frame, kernel_table, needs_kernel, receive
from trio_wsb.net.channel import ByteChannel
from trio_wsb.net.kernel import direction
from trio_wsb.websocket.frames import CLOSE

pytestmark = needs_kernel

SMALL = 4096
CLOSING = frame(b"\x03\xe8", masked=True, opcode=CLOSE)
ANSWER = frame(bytes(5000), masked=False)


@asynccontextmanager
async def flooded() -> AsyncIterator[tuple[KernelSession, int]]:
    """Yield a session whose client reads nothing, and how many bytes the kernel has for it."""
    async with kernel_table() as table:
        session = KernelSession(table)
        session.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        session.up.source.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        await session.begin()
        assert session.up.open()
        assert session.down.open()
        count = 0
        with trio.fail_after(10):
            while session.down.is_open and count < 12:
                session.backend.send(ANSWER)
                count += 1
                await trio.sleep(0.001)
            while session.down.redirected < count * len(ANSWER):
                await trio.sleep(0.001)
        session.down.shut()
        assert not session.down.is_flushed()
        yield session, count * len(ANSWER)
        session.close_at_once()


async def test_an_end_does_not_overtake_what_came_before_it() -> None:
    """What is for user space stands in the kernel behind what waits to be sent to the same peer; the end does not."""
    async with flooded() as (session, size):
        leg, buffer = session.legs[0], bytearray(100)
        session.client.send(CLOSING)
        session.client.shutdown(socket.SHUT_WR)
        with trio.fail_after(10):
            while not session.up.ended:
                await trio.sleep(0.001)
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                leg.recv_into(buffer)
            await leg.wait_readable()
        await receive(session.client, size)
        with trio.fail_after(10):
            assert await read_some(leg, buffer) == len(CLOSING)
        assert buffer[: len(CLOSING)] == CLOSING
        assert leg.recv_into(buffer) == 0


async def test_an_end_waits_for_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direction, "END_PATIENCE", 0.1)
    async with flooded() as (session, _):
        session.client.send(CLOSING)
        session.client.shutdown(socket.SHUT_WR)
        with trio.fail_after(10):
            while not session.up.ended:
                await trio.sleep(0.001)
            begun = trio.current_time()
            assert await read_some(session.legs[0], bytearray(100)) == 0
        assert trio.current_time() - begun >= 0.1


async def read_some(leg: ByteChannel, buffer: bytearray) -> int:
    while True:
        try:
            return leg.recv_into(buffer)
        except BlockingIOError:
            await leg.wait_readable()
