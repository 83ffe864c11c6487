"""Looking at the first bytes of a connection without taking them.

Who reads a header from a socket that is somebody else's afterwards must not take a byte too many, and cannot put one
back. So the bytes are looked at (MSG_PEEK) and stay where they are.
"""

from __future__ import annotations

import select
import socket
from typing import Final

import trio

from trio_wsb.net.sockets import check_open

PEEK_PAUSE: Final = 0.02
"""Seconds between two looks where the kernel cannot wait for several bytes: on a Unix socket."""


async def peek(sock: socket.socket, count: int, limit: int) -> bytes:
    """Return up to `limit` bytes that wait to be received, once there are `count`; fewer if the peer has ended.

    A socket with bytes in it is readable, so that a peer that sends one byte and then nothing would keep its reader
    spinning; SO_RCVLOWAT (socket(7)) makes the kernel wait for as many as are wanted. The caller sets the deadline.

    Raises:
      OSError: the connection is broken.
      trio.ClosedResourceError: it was closed meanwhile.

    """
    raised = False
    try:
        while True:
            check_open(sock)
            try:
                data = sock.recv(limit, socket.MSG_PEEK)
            except BlockingIOError:
                data = None
            if data is not None and (len(data) >= count or not data or _ended(sock)):
                return data
            if not raised:
                raised = True
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            elif data is not None:
                await trio.sleep(PEEK_PAUSE)
            await trio.lowlevel.wait_readable(sock)
    finally:
        if raised and sock.fileno() != -1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def take(sock: socket.socket, size: int) -> None:
    """Take `size` bytes away that `peek` has shown.

    Raises:
      OSError: the connection is broken.

    """
    while size:
        taken = len(sock.recv(size))
        if not taken:
            raise ConnectionResetError("the bytes are gone")
        size -= taken


def _ended(sock: socket.socket) -> bool:
    """Whether the peer sends no more; what it has sent may still be there."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
