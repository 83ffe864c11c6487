"""The self-test: whether this kernel does with a session what the relay relies on, before a client depends on it."""

from __future__ import annotations

import socket
from typing import Final, Self

import trio

from trio_wsb.errors import Error
from trio_wsb.net.kernel.direction import Direction
from trio_wsb.net.kernel.legs import KernelLeg
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.websocket.frames import FrameScanner

TIMEOUT: Final = 2.0
"""Seconds for all of it; it takes a few milliseconds."""

_MESSAGE: Final = b"\x82\x05hello"
_MASKED: Final = b"\x82\x85\0\0\0\0hello"
_CLOSE: Final = b"\x88\x02\x03\xe8"


class SelfTestFailed(Error):
    """The kernel did something else than it should; the message says what."""


async def self_test(table: KernelTable) -> None:
    """Send a few frames through `table`, whose `run` must be running; nothing is left in it.

    Raises:
      SelfTestFailed: with the first thing that went wrong.
      OSError: there is no loopback network, or no descriptor.

    """
    with _Pair() as client, _Pair() as backend:
        entered = table.enter(client.far, backend.near)
        if entered is None:
            raise SelfTestFailed("there is no room for a session")
        try:
            with trio.move_on_after(TIMEOUT) as time:
                scanners = FrameScanner(masked=True), FrameScanner(masked=False)
                ways = []
                for leg, scanner, near in zip(entered, scanners, (client.near, backend.far), strict=True):
                    await _first(leg, scanner, near)
                    ways.append(leg.direction)
                await _frames(ways[0], client.near, backend.far, _MASKED)
                await _frames(ways[1], backend.far, client.near, _MESSAGE)
                await _hand_back(ways[1], backend.far)
            if time.cancelled_caught:
                raise SelfTestFailed("what was sent did not come")
        finally:
            for leg in entered:
                leg.abort()
    if table.entries():
        raise SelfTestFailed("sockets that are closed stay in the map")


async def _first(leg: KernelLeg, scanner: FrameScanner, near: socket.socket) -> None:
    """Send a message from `near`; the first one is for us."""
    message = _MASKED if scanner.masked else _MESSAGE
    leg.follow(scanner, 0)
    if not leg.direction.open():
        raise SelfTestFailed("the counters of TCP are not what they should be")
    near.send(message)
    await leg.wait_readable()
    leg.direction.shut()
    buffer = bytearray(100)
    if buffer[: leg.recv_into(buffer)] != message:
        raise SelfTestFailed("the first message did not come to user space")
    scanner.feed(message)


async def _frames(way: Direction, near: socket.socket, far: socket.socket, message: bytes) -> None:
    """Send messages from `near` to `far`, through the kernel alone."""
    assert way.scanner is not None
    before, sequence = way.scanner.messages, way.next_sequence
    if not way.open():
        raise SelfTestFailed("the counters of TCP are not what they should be")
    for _ in range(3):
        near.send(message)
        if await _receive(far, len(message)) != message:
            raise SelfTestFailed("what came is not what was sent")
    way.shut()
    if way.redirected != 3 * len(message) or way.scanner.messages - before != 3:
        raise SelfTestFailed("frames were not counted")
    if way.next_sequence != (sequence + 3 * len(message)) & 0xFFFFFFFF or way.repeated:
        raise SelfTestFailed("TCP's sequence numbers are not where they should be")
    if not way.is_flushed():
        raise SelfTestFailed("what was delivered does not seem to be written")


async def _hand_back(way: Direction, near: socket.socket) -> None:
    """Send a Close frame, which must come to user space, and what comes after it behind it."""
    way.open()
    near.send(_CLOSE)
    await trio.lowlevel.wait_readable(way.source)
    near.send(_MESSAGE)
    if await _receive(way.source, len(_CLOSE + _MESSAGE)) != _CLOSE + _MESSAGE:
        raise SelfTestFailed("a Close frame was not handed over")
    way.shut()


async def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        await trio.lowlevel.wait_readable(sock)
        data += sock.recv(size - len(data))
    return data


class _Pair:
    """Both ends of a connection over loopback. Closes them, if nobody else has."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.near = socket.create_connection(listener.getsockname(), timeout=TIMEOUT)
            self.far, _ = listener.accept()
        for sock in (self.near, self.far):
            sock.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.near.close()
        self.far.close()
