"""The real relay over the kernel's channels: whatever ends a session, nothing of it stays."""

from __future__ import annotations

import os
import random
import socket
from collections import Counter

import trio

from tests.net.kernel.stage import frame, kernel_table, needs_kernel, tcp_pair, traffic
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.proxy.causes import Cause
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.websocket.frames import CLOSE

pytestmark = needs_kernel

SESSIONS = int(os.environ.get("TRIO_WSB_ENDINGS", "600"))
AT_ONCE = 40
RESET = b"\1\0\0\0\0\0\0\0"


async def one(table: KernelTable, rng: random.Random) -> Cause | None:
    """Live through a session with a random ending and return its cause."""
    client, ours = tcp_pair()
    theirs, backend = tcp_pair()
    entered = table.enter(ours, theirs)
    assert entered is not None
    relay = Relay(
        *entered,
        scratch=memoryview(bytearray(SCRATCH_SIZE)),
        write_timeout=0,
        watch=lambda _: None,
    )
    ending = rng.choice(
        ["close", "reset", "fin", "half", "cut", "cancel", "end", "flooded", "close at once", "both"]
    )
    sock, other = rng.choice([(client, backend), (backend, client)])
    masked = sock is client
    with client, backend:
        await live(relay, rng, ending, (sock, other), masked=masked)
    return relay.cause


async def live(
    relay: Relay, rng: random.Random, ending: str, ends: tuple[socket.socket, socket.socket], *, masked: bool
) -> None:
    sock, other = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        if rng.random() < 0.7:
            await trio.lowlevel.checkpoint()
            data = traffic(rng, rng.choice([10, 1000, 100_000]), masked=masked)
            nursery.start_soon(drain, other)
            await write(sock, data)
        if rng.random() < 0.5:
            await trio.sleep(rng.random() * 0.003)
        match ending:
            case "close":
                await write(sock, frame(b"\x03\xe8", masked=masked, opcode=CLOSE))
                hang_up(sock)
            case "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                hang_up(sock)
            case "half":
                sock.shutdown(socket.SHUT_WR)
                await trio.sleep(0.001)
                hang_up(other)
            case "cut":
                relay.cut(Cause.SHUTDOWN)
            case "cancel":
                nursery.cancel_scope.cancel()
            case "end":
                relay.end(Cause.DRAIN, 1001, 0.01)
                await trio.sleep(0.001)
                relay.cut()
            case "flooded":
                for _ in range(20):
                    try:
                        sock.send(frame(bytes(60_000), masked=masked))
                    except BlockingIOError:
                        break
                relay.cut(Cause.SHUTDOWN)
            case "both":
                hang_up(other)
                hang_up(sock)
            case _:
                hang_up(sock)
        with trio.move_on_after(0.05):
            await relay_is_over(relay)
        relay.cut(Cause.SHUTDOWN)
        nursery.cancel_scope.cancel()


def hang_up(sock: socket.socket) -> None:
    # Whoever waits for it must know, or the next socket of that number has somebody waiting for it already.
    trio.lowlevel.notify_closing(sock)
    sock.close()


async def relay_is_over(relay: Relay) -> None:
    while not (relay.up.ended and relay.down.ended):
        await trio.sleep(0.001)


async def write(sock: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            try:
                view = view[sock.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)
    except OSError:
        pass  # the other side has gone, as it should


async def drain(sock: socket.socket) -> None:
    try:
        while True:
            try:
                if not sock.recv(65536):
                    return
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock)
    except (OSError, ValueError, trio.ClosedResourceError):
        pass


async def test_no_ending_leaves_anything_behind() -> None:
    causes: Counter[Cause | None] = Counter()
    limit = trio.CapacityLimiter(AT_ONCE)
    async with kernel_table(sessions=AT_ONCE * 4) as table:

        async def run(seed: int) -> None:
            async with limit:
                causes[await one(table, random.Random(seed))] += 1

        async with trio.open_nursery() as nursery:
            for seed in range(SESSIONS):
                nursery.start_soon(run, seed)
        # Its own checks follow: no session in the table, no socket in the kernel's map.
    assert causes.total() == SESSIONS
    assert causes[None] < SESSIONS // 5  # those that were cancelled
    assert len(causes) >= 4
