"""What the tests of the kernel relay share: a table, sessions in it, and traffic for them."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_wsb.net.kernel.direction import Direction
from trio_wsb.net.kernel.legs import KernelLeg
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.websocket.frames import BINARY, CONTINUATION, PING, PONG, TEXT, FrameScanner, mask_payload


def refusal() -> str:
    """Return why this host does not let us load the program; "" if it does."""
    try:
        KernelTable(1, 1 << 16).close()
    except PermissionError as error:
        return f"the kernel relay needs CAP_BPF and CAP_NET_ADMIN: {error}"
    return ""


_REFUSAL = refusal()
needs_kernel = pytest.mark.skipif(bool(_REFUSAL), reason=_REFUSAL)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    return near, far


def frame(payload: bytes, *, masked: bool, opcode: int = BINARY, final: bool = True) -> bytes:
    size = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + mask_payload(payload, key)


def traffic(rng: random.Random, size: int, *, masked: bool) -> bytes:
    """Return at least `size` bytes of legal frames of every kind but Close."""
    pieces: list[bytes] = []
    total = 0
    while total < size:
        chance = rng.random()
        if chance < 0.1:
            opcode = rng.choice([PING, PONG])
            piece = frame(rng.randbytes(rng.randrange(126)), masked=masked, opcode=opcode)
        elif chance < 0.3:
            count = rng.randrange(2, 5)
            piece = b"".join(
                frame(
                    rng.randbytes(rng.randrange(3000)),
                    masked=masked,
                    opcode=TEXT if index == 0 else CONTINUATION,
                    final=index == count - 1,
                )
                for index in range(count)
            )
        elif chance < 0.35:
            piece = frame(rng.randbytes(rng.randrange(65_536, 100_000)), masked=masked)
        else:
            piece = frame(rng.randbytes(rng.choice([0, 1, 20, 125, 126, 1000, 5000])), masked=masked)
        pieces.append(piece)
        total += len(piece)
    return b"".join(pieces)


@asynccontextmanager
async def kernel_table(*, sessions: int = 16, credit: int = 1 << 20) -> AsyncIterator[KernelTable]:
    """Run a table; when it is over nothing may be left in it."""
    table = KernelTable(sessions, credit)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(table.run)
            yield table
            with trio.fail_after(20):
                while len(table):
                    await trio.sleep(0.001)
            assert table.entries() == 0
            nursery.cancel_scope.cancel()
    finally:
        table.close()


class KernelSession:
    """A session in the table, with a scanner for each direction and somebody at both ends."""

    def __init__(self, table: KernelTable, client: tuple[socket.socket, socket.socket] | None = None) -> None:
        self.client, ours = client or tcp_pair()
        theirs, self.backend = tcp_pair()
        entered = table.enter(ours, theirs)
        assert entered is not None
        self.legs: tuple[KernelLeg, KernelLeg] = entered
        self.scanners = (FrameScanner(masked=True), FrameScanner(masked=False))
        for leg, scanner in zip(self.legs, self.scanners, strict=True):
            leg.follow(scanner, 0)

    async def begin(self) -> None:
        """Let the first segments pass, which always come to user space; nobody counts them."""
        for index, near in enumerate((self.client, self.backend)):
            leg, scanner = self.legs[index], self.scanners[index]
            near.send(frame(b"", masked=scanner.masked, opcode=PONG))
            await leg.wait_readable()
            leg.follow(scanner, -leg.recv_into(bytearray(100)))

    @property
    def up(self) -> Direction:
        """What the client sends."""
        return self.legs[0].direction

    @property
    def down(self) -> Direction:
        """What the backend sends."""
        return self.legs[1].direction

    def close_at_once(self) -> None:
        """Close everything, what is under way is lost."""
        for leg in self.legs:
            leg.abort()
        self.client.close()
        self.backend.close()

    def close(self) -> None:
        for leg in self.legs:
            leg.close()
        self.client.close()
        self.backend.close()


async def receive(sock: socket.socket, size: int) -> bytes:
    """Return the next `size` bytes."""
    data = b""
    with trio.fail_after(10):
        while len(data) < size:
            try:
                more = sock.recv(size - len(data))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock)
                continue
            assert more, "the stream ended"
            data += more
    return data


async def send(sock: socket.socket, data: bytes) -> None:
    """Send all of `data`."""
    view = memoryview(data)
    with trio.fail_after(10):
        while view:
            try:
                view = view[sock.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)
