"""TCP may bring bytes twice; a session gets each once, whoever moves it."""

from __future__ import annotations

import random
import socket

import pytest
import trio

from tests.net.kernel.repair import rewound
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
from trio_wsb.net.kernel.legs import KernelLeg
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.proxy.relaying import choose_relay
from trio_wsb.websocket.frames import FrameScanner

pytestmark = needs_kernel


@pytest.mark.parametrize("back", [1, 6, 100, 4095, 4096, 20_000])
@pytest.mark.parametrize("shut", [False, True], ids=["kernel", "user"])
async def test_bytes_that_are_sent_again(back: int, *, shut: bool) -> None:
    data = traffic(random.Random(back), 60_000, masked=True)
    async with kernel_table() as table:
        session = KernelSession(table)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, session, 0)
            nursery.start_soon(pump, session, 1)
            await send(session.client, data[:30_000])
            assert await receive(session.backend, 30_000) == data[:30_000]
            if shut:
                session.up.give_up()
            session.client = rewound(session.client, back)
            await send(session.client, data[30_000 - back :])
            assert await receive(session.backend, len(data) - 30_000) == data[30_000:]
            if not shut:
                assert session.up.repeated == back
            nursery.cancel_scope.cancel()
        session.close()


@pytest.mark.parametrize("read", [1, 300, 999, 1000])
async def test_what_waits_before_is_read_before(read: int) -> None:
    """A segment that was read in part would make the kernel keep as many of the bytes to itself that come after it."""
    data = traffic(random.Random(read), 1000, masked=True)
    last = frame(b"", masked=True)
    client, ours = tcp_pair()
    theirs, backend = tcp_pair()
    await send(client, data)
    assert await receive(ours, read) == data[:read]
    async with kernel_table() as table:
        relayed = choose_relay(table, "kernel", SocketChannel(ours), SocketChannel(theirs), mirrored=False)
        assert relayed.kind == "kernel"
        assert relayed.client_early == data[read:]
        legs = (relayed.client, relayed.backend)
        assert isinstance(legs[0], KernelLeg)
        assert isinstance(legs[1], KernelLeg)
        legs[0].follow(FrameScanner(masked=True), 0)
        for _ in range(3):
            await send(client, last)
            assert await read_from(legs[0], len(last)) == last
        for leg in legs:
            leg.close()
        client.close()
        backend.close()


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("scratch", [65_536, 100])
@pytest.mark.parametrize("back", [1, 100, 1000])
async def test_the_first_segment_has_old_bytes(back: int, scratch: int, *, half_closed: bool) -> None:
    """What was read before the session entered the map is sent again, with the first bytes after it.

    The kernel believes from then on that more was read than has come, and keeps small segments to itself: no way back.
    """
    data = traffic(random.Random(back), 2000, masked=True)
    client, ours = tcp_pair()
    await send(client, data[:1000])
    assert await receive(ours, 1000) == data[:1000]
    async with kernel_table() as table:
        session = KernelSession(table, (rewound(client, back), ours))
        session.scanners[0].feed(data[:1000])
        session.legs[0].follow(session.scanners[0], 1000)
        await send(session.client, data[1000 - back :])
        if half_closed:
            session.client.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionAbortedError):
            await read_from(session.legs[0], 1, scratch)
        session.close()


async def read_from(leg: KernelLeg, size: int, scratch: int = 65_536) -> bytes:
    """Return the next `size` bytes."""
    came, buffer = b"", bytearray(scratch)
    with trio.fail_after(10):
        while len(came) < size:
            try:
                came += buffer[: leg.recv_into(buffer)]
            except BlockingIOError:
                await leg.wait_readable()
    return came
