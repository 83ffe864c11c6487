"""A model of the kernel under the kernel relay, so that its own code runs in a story: what is a socket there is a `SimSocket` here.

What the model has of Linux is what the relay must cope with:

- A run of the verdict program judges first and commits later. Only who takes the socket's lock knows that it is over.
- Whoever looks at the program's words or at TCP's counters may be overtaken: between any two looks segments arrive, runs
  begin and end, acknowledgements come, and what was sent on is written.
- What is sent on stands in a queue of the other socket until a worker writes it; what is passed to user space there stands
  behind it in the same queue. The end of a stream, and a reset, are seen before what is in the queue.
- A shutdown, or leaving the map, loses what is still in the queue.
- Notes come late. A segment may bring bytes that have come before.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import termios
from collections.abc import Awaitable
from random import Random
from typing import Final, cast

from tests.simulation.network import Network, SimChannel
from tests.simulation.psock import TCP_CLOSE, TCP_CLOSE_WAIT, TCP_ESTABLISHED, Entry, SimMaps, Temper
from trio_wsb.net.channel import ByteChannel
from trio_wsb.net.kernel.direction import Direction
from trio_wsb.net.kernel.legs import KernelLeg, KernelPair
from trio_wsb.net.kernel.maps import KernelMaps
from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.net.sockets import SocketChannel, check_open

_FIRST_DESCRIPTOR: Final = 1 << 24
"""No real descriptor has such a number."""


class SimSocket:
    """What the kernel relay asks of a socket, over one end of a simulated connection."""

    family = socket.AF_INET

    def __init__(self, table: SimTable, channel: SimChannel, number: int) -> None:
        self.channel = channel
        self._table = table
        self.number = number
        self.entry: Entry | None = None
        self.recv_into, self.send = channel.recv_into, channel.send
        self._reset_on_close = False

    def fileno(self) -> int:
        return -1 if self.channel.closed else _FIRST_DESCRIPTOR + self.number

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """Answer SO_COOKIE, and TCP_INFO, for which the socket's lock is taken."""
        self._check()
        if level == socket.SOL_SOCKET:
            return struct.pack("=Q", self.number)
        assert option == socket.TCP_INFO
        self._overtake()
        if self.entry is not None:
            self.entry.settle()
        channel = self.channel
        if size == 1:
            return bytes([self.state])
        return (
            bytes([self.state])
            + bytes(119)
            + struct.pack("=QQ", channel.outgoing.received, channel.incoming.received)
        )

    def queued(self, request: int) -> int:
        """Return what the ioctls FIONREAD and SIOCOUTQ do."""
        self._check()
        self._overtake()
        if request == termios.FIONREAD:
            return len(self.channel.incoming.inbox)
        return self.channel.outgoing.written - self.channel.outgoing.received

    @property
    def state(self) -> int:
        incoming, outgoing = self.channel.incoming, self.channel.outgoing
        if incoming.error is not None or outgoing.broken is not None:
            return TCP_CLOSE
        if not incoming.eof:
            return TCP_ESTABLISHED
        return TCP_CLOSE if outgoing.fin and outgoing.received == outgoing.written else TCP_CLOSE_WAIT

    def setsockopt(self, level: int, option: int, _: object) -> None:
        self._check()
        assert level == socket.SOL_SOCKET
        if option == socket.SO_LINGER:
            self._reset_on_close = True

    def shutdown(self, _: int) -> None:
        self._check()
        self.channel.shutdown()

    def close(self) -> None:
        if self._reset_on_close:
            self.channel.abort()
        else:
            self.channel.close()

    def _overtake(self) -> None:
        if self.entry is not None:
            self.entry.overtake()
        elif self._table.maps.draw(self._table.temper.races) and self.channel.incoming.held_until == 0:
            self.channel.incoming.hurry()

    def _check(self) -> None:
        if self.channel.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def sim_of(sock: socket.socket) -> SimSocket:
    """Return what is behind a socket of a story."""
    return cast("SimSocket", sock)


class TCPChannel(SocketChannel):
    """A connection of which the kernel relay can take over the socket."""

    def wait_readable(self) -> Awaitable[None]:
        check_open(self._sock)
        return sim_of(self._sock).channel.wait_readable()

    def wait_writable(self) -> Awaitable[None]:
        check_open(self._sock)
        return sim_of(self._sock).channel.wait_writable()

    def has_ended(self) -> bool:
        return sim_of(self._sock).channel.has_ended()

    def close(self) -> None:
        self._sock.close()


class SimDirection(Direction):
    """A direction over simulated sockets."""

    @staticmethod
    def _queued(sock: socket.socket, request: int) -> int:
        return sim_of(sock).queued(request)


class SimLeg(KernelLeg):
    """A leg over simulated sockets."""

    def _wait_for_bytes(self) -> Awaitable[None]:
        return sim_of(self._sock).channel.wait_readable()

    def _wait_for_room(self) -> Awaitable[None]:
        check_open(self._sock)
        return sim_of(self._sock).channel.wait_writable()


class SimPair(KernelPair):
    """A pair over simulated sockets."""

    def legs(self) -> tuple[KernelLeg, KernelLeg]:
        return (
            SimLeg(self, self.up.source, self.up, self.down),
            SimLeg(self, self.down.source, self.down, self.up),
        )


class SimTable(KernelTable):
    """The kernel relay of a story: all of it but the kernel."""

    def __init__(self, network: Network, rng: Random, temper: Temper) -> None:
        self.network = network
        self.rng = rng
        self.temper = temper
        self.maps: SimMaps
        self._numbers = 0
        super().__init__(temper.sessions, temper.credit)

    def _load(self, slots: int) -> KernelMaps:
        self.maps = SimMaps(slots, self.network, self.rng, self.temper)
        return self.maps

    def _direction(self, slot: int, source: socket.socket, sink: socket.socket) -> Direction:
        return SimDirection(slot, self._maps.words, source, sink, self._credit)

    def _pair(self, up: Direction, down: Direction) -> KernelPair:
        return SimPair(self, up, down)

    def leave(self, pair: KernelPair, *, flush: bool) -> None:
        for direction in (pair.up, pair.down):
            sim_of(direction.source).channel.leaving = True
        super().leave(pair, flush=flush)

    def channel(self, end: SimChannel) -> ByteChannel:
        """Return the channel by which the balancer knows its end of a connection."""
        if not end.can_half_close:
            return end  # TLS
        self._numbers += 1
        return TCPChannel(cast("socket.socket", SimSocket(self, end, self._numbers)))
