"""A service manager's end of sd_notify(3): a datagram socket, and what came in through it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from tests.daemon.harness import PATIENCE

Message = dict[str, str]


def parse(datagram: bytes) -> Message:
    return dict(line.split("=", 1) for line in datagram.decode().splitlines())


class Manager:
    """Collects notifications. `address` is what NOTIFY_SOCKET has to say."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.sock = sock
        self.address = address
        self.messages: list[Message] = []

    def read(self) -> list[Message]:
        """Return what has come since the last call."""
        fresh = []
        while True:
            try:
                fresh.append(parse(self.sock.recv(65536)))
            except BlockingIOError:
                self.messages += fresh
                return fresh

    async def next(self) -> Message:
        """Return the next message, once there is one."""
        with trio.move_on_after(PATIENCE):
            await trio.lowlevel.wait_readable(self.sock)
            message = parse(self.sock.recv(65536))
            self.messages.append(message)
            return message
        raise AssertionError(f"no more notifications after {self.messages}")

    async def until(self, fits: Callable[[Message], bool]) -> Message:
        """Return the next message that fits, passing over others."""
        while not fits(message := await self.next()):
            pass
        return message

    async def state(self) -> Message:
        """Return the next change of state, passing over signs of life and mere statuses."""
        return await self.until(lambda message: bool({"READY", "RELOADING", "STOPPING"} & set(message)))


@contextmanager
def manager(address: Path | str) -> Iterator[Manager]:
    """Listen at a path or, after ``@``, at an abstract address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        name = str(address)
        sock.bind("\0" + name[1:] if name.startswith("@") else name)
        yield Manager(sock, name)
