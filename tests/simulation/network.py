"""Simulated TCP: byte channels whose segments travel, and may be held up, cut, merged or lost.

It follows Linux where it matters to a proxy: closing with unread bytes resets the connection, bytes that come for a closed
socket are answered by a reset, a reset may destroy what the receiver has not read yet, and of a host that vanished
nothing is heard until the kernel gives the connection up.

An end may be in the hands of a `Watcher`, as a socket is in the map of the kernel relay: that decides what becomes of what arrives.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Final, Protocol
from weakref import ref

import trio
from attrs import define, evolve

from trio_wsb.net.channel import Buffer, ByteChannel, Data

GIVE_UP: Final = 75.0
"""Seconds until a kernel gives up a connection whose peer has vanished (keepalive or TCP_USER_TIMEOUT, docs/explanation)."""

KEPT: Final = 32
"""Bytes that were read and may come once more."""


@define(frozen=True)
class Conditions:
    """What a connection is like. Times in seconds, sizes in bytes."""

    latency: float = 0.005
    jitter: float = 0.0
    """By how much a segment may take longer."""
    capacity: int = 65536
    """Bytes sent and not read."""
    segment: int = 65536
    """The most that one send takes and one receive gives."""
    choppy: float = 0.0
    """How often a send takes less, a receive gives less, or a segment is cut on its way."""
    half_close: bool = True
    """False for what behaves as TLS does."""


class Watcher(Protocol):
    """Who has an end of a connection in its hands, beside the one who reads and writes there."""

    def arrived(self, piece: bytes) -> None:
        """Take a segment."""

    def ended(self) -> None:
        """Note that there will be no more, by a FIN or a reset."""

    def room(self) -> None:
        """Note that there is room to write again."""


class Network:
    """Everything that is under way: one heap of events, and one task for all connections."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._waiting: trio.CancelScope | None = None
        self.open: dict[SimChannel, None] = {}
        """Ends that nobody has closed yet, the oldest first."""

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Call `act` at `when`, after what is due before and what was ordered before for the same time."""
        self._number += 1
        heappush(self._events, (when, self._number, act))
        if self._waiting is not None and self._events[0][1] == self._number:
            self._waiting.deadline = when

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry until cancelled."""
        task_status.started()
        while True:
            now = trio.current_time()
            while self._events and self._events[0][0] <= now:
                heappop(self._events)[2]()
            with trio.CancelScope(deadline=self._events[0][0] if self._events else inf) as self._waiting:
                await trio.sleep_forever()
            self._waiting = None

    def connect(self, here: Conditions, there: Conditions | None = None) -> tuple[SimChannel, SimChannel]:
        """Return the two ends of a new connection; `there` is for what the second end sends."""
        out, back = _Flow(self, here), _Flow(self, there or here)
        one, two = SimChannel(self, back, out), SimChannel(self, out, back)
        one.peer, two.peer = two, one
        out.reader, back.reader = two, one
        self.open[one] = self.open[two] = None
        return one, two


class _Flow:
    """One direction: what was sent, what is under way, and what has arrived and was not read."""

    __slots__ = (
        "_last", "broken", "changed", "conditions", "dead", "eof", "error", "fin", "held_until", "inbox",
        "last", "network", "reader", "received", "room", "under_way", "written",
    )  # fmt: skip

    def __init__(self, network: Network, conditions: Conditions) -> None:
        self.network = network
        self.conditions = conditions
        self.inbox = bytearray()
        self.last = b""  # read bytes, the last ones
        self.room = conditions.capacity
        self.fin = False  # the sender has ended it
        self.eof = False  # which has arrived
        self.error: OSError | None = None  # what the receiver sees after the inbox
        self.broken: OSError | None = None  # what the sender sees
        self.dead = False  # nothing arrives any more
        self.held_until = 0.0
        self.written = 0  # bytes, and one for the end, as TCP counts them
        self.received = 0  # which is what has been acknowledged, too
        self.under_way: deque[Callable[[], None]] = deque()
        self._last = 0.0
        self.changed = trio.lowlevel.ParkingLot()
        self.reader: SimChannel

    def chop(self, size: int) -> int:
        """Return how many of `size` bytes go at once."""
        size = min(size, self.conditions.segment)
        rng = self.network.rng
        return rng.randint(1, size) if size > 1 and rng.random() < self.conditions.choppy else size

    def travel(self, act: Callable[[], None]) -> None:
        """Call `act` when what is sent now arrives; nothing overtakes anything."""
        conditions = self.conditions
        delay = conditions.latency + self.network.rng.random() * conditions.jitter
        self._last = max(trio.current_time() + delay, self.held_until, self._last)
        self.under_way.append(act)
        self.network.at(self._last, partial(self._due, act))

    def _due(self, act: Callable[[], None]) -> None:
        if self.under_way and self.under_way[0] is act:
            self.hurry()

    def hurry(self) -> None:
        """Let what is to arrive next arrive now."""
        if self.under_way:
            self.under_way.popleft()()

    def write(self, data: bytes) -> None:
        """Take bytes for which there is room."""
        self.room -= len(data)
        self.written += len(data)
        self.carry(data)

    def take(self, count: int) -> None:
        """Note that the receiver has so many bytes less to hold."""
        self.room += count
        self.changed.unpark_all()
        watcher = self.reader.peer.watcher
        if watcher is not None:
            watcher.room()

    def carry(self, data: bytes) -> None:
        while data:
            size = self.chop(len(data))
            piece, data = data[:size], data[size:]
            self.travel(lambda piece=piece: self.arrive(piece))  # type: ignore[misc]

    def arrive(self, piece: bytes) -> None:
        if self.dead:
            return
        if self.reader.closed:
            self.reader.refuse()
            return
        self.received += len(piece)
        if self.reader.watcher is not None:
            self.reader.watcher.arrived(piece)
        else:
            self.deliver(piece)

    def deliver(self, piece: bytes) -> None:
        """Let the receiver have it."""
        self.inbox += piece
        self.changed.unpark_all()
        self.reader.arrived()

    def arrive_end(self) -> None:
        if not self.dead:
            self.eof = True
            self.received += 1
            self.changed.unpark_all()
            self.reader.arrived()
            if self.reader.watcher is not None:
                self.reader.watcher.ended()


class SimChannel(ByteChannel):
    """One end of a simulated connection."""

    __slots__ = (
        "__weakref__",
        "_network",
        "can_half_close",
        "closed",
        "confused",
        "incoming",
        "leaving",
        "outgoing",
        "peer",
        "watcher",
    )

    def __init__(self, network: Network, incoming: _Flow, outgoing: _Flow) -> None:
        self._network = network
        self.incoming = incoming
        self.outgoing = outgoing
        self.closed = False
        self.watcher: Watcher | None = None
        self.leaving = False
        """Whether whoever had it is done with it, but for what the watcher has still to write."""
        self.confused = False
        """Whether the watcher may do nothing but give it up."""
        self.can_half_close = outgoing.conditions.half_close
        self.peer: SimChannel

    # ByteChannel.

    def recv_into(self, buffer: Buffer, /) -> int:
        self._check_open()
        flow = self.incoming
        if flow.inbox:
            # The kernel cuts nothing itself; what is read of a socket in the hands of somebody else is theirs to cut.
            count = min(len(buffer), len(flow.inbox) if self.watcher else flow.chop(len(flow.inbox)))
            buffer[:count] = flow.inbox[:count]
            flow.last = bytes(flow.inbox[max(0, count - KEPT) : count])
            del flow.inbox[:count]
            flow.take(count)
            return count
        if flow.error is not None:
            raise _anew(flow.error)
        if flow.eof:
            return 0
        raise BlockingIOError

    def send(self, data: Data, /) -> int:
        self._check_open()
        flow = self.outgoing
        if flow.broken is not None:
            raise _anew(flow.broken)
        if flow.fin:
            raise BrokenPipeError(errno.EPIPE, "shut down")
        if not data:
            return 0
        if flow.room <= 0:
            raise BlockingIOError
        count = flow.chop(min(len(data), flow.room))
        flow.write(bytes(memoryview(data)[:count]))
        return count

    def has_ended(self) -> bool:
        flow = self.incoming
        return flow.eof and not (self.closed or flow.inbox or flow.error)

    async def wait_readable(self) -> None:
        flow = self.incoming
        await trio.lowlevel.checkpoint()
        while not (self.closed or flow.inbox or flow.eof or flow.error):
            await flow.changed.park()
        if self.closed:
            raise trio.ClosedResourceError

    async def wait_writable(self) -> None:
        flow = self.outgoing
        await trio.lowlevel.checkpoint()
        while not (self.closed or flow.room > 0 or flow.broken or flow.fin):
            await flow.changed.park()
        if self.closed:
            raise trio.ClosedResourceError

    def shutdown(self) -> None:
        if not self.closed and not self.outgoing.fin:
            self._end()

    def close(self) -> None:
        if self.closed:
            return
        self._give_up()
        if self.incoming.inbox:
            self._reset_peer()  # RFC 2525 section 2.17: who has not read it all must not pretend so
        elif not self.outgoing.fin:
            self._end()

    def abort(self) -> None:
        if self.closed:
            return
        self._give_up()
        if self._network.rng.random() < 0.5:
            self.outgoing.dead = True  # what was under way is gone
        self._reset_peer()

    # Faults.

    def vanish(self) -> None:
        """Let the host of this end be gone: it says nothing any more, and what is sent to it goes nowhere."""
        self._give_up()
        self.incoming.dead = self.outgoing.dead = True
        peer = ref(self.peer)  # which may be over and forgotten long before

        def given_up() -> None:
            if (survivor := peer()) is not None:
                survivor._break(TimeoutError(errno.ETIMEDOUT, "gone"))

        self._network.at(trio.current_time() + GIVE_UP, given_up)

    def hold(self, seconds: float) -> None:
        """Deliver nothing in either direction for so long; it arrives after that."""
        until = trio.current_time() + seconds
        for flow in (self.incoming, self.outgoing):
            flow.held_until = max(flow.held_until, until)

    def refuse(self) -> None:
        """Answer what came for a closed socket."""
        if not self.outgoing.dead:
            self._reset_peer()

    def arrived(self) -> None:
        """Note that something has come in; for those that do something with it."""

    def _end(self) -> None:
        self.outgoing.fin = True
        self.outgoing.written += 1
        self.outgoing.changed.unpark_all()
        self.outgoing.travel(self._end_arrives)

    def _end_arrives(self) -> None:
        self.outgoing.arrive_end()
        if not self.can_half_close and self.incoming.broken is None:
            self.incoming.broken = BrokenPipeError(errno.EPIPE, "the peer has ended")
            self.incoming.changed.unpark_all()

    def _reset_peer(self) -> None:
        self.outgoing.travel(
            lambda: self.peer._break(ConnectionResetError(errno.ECONNRESET, "reset by the peer"))
        )

    def _break(self, error: OSError) -> None:
        if self.closed:
            return
        incoming, outgoing = self.incoming, self.outgoing
        if outgoing.broken is None:
            outgoing.broken = BrokenPipeError(errno.EPIPE, "reset") if incoming.eof else error
        if not incoming.eof and incoming.error is None:
            incoming.error = error
            if self._network.rng.random() < 0.5:
                incoming.inbox.clear()
        incoming.dead = outgoing.dead = True
        incoming.changed.unpark_all()
        outgoing.changed.unpark_all()
        self.arrived()
        if self.watcher is not None:
            self.watcher.ended()

    def _give_up(self) -> None:
        self.closed = True
        self._network.open.pop(self, None)
        self.incoming.changed.unpark_all()
        self.outgoing.changed.unpark_all()

    def _check_open(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "the channel is closed")


def _anew(error: OSError) -> OSError:
    """Return the same error without its past: one that is kept would keep everything that it has been raised through."""
    return type(error)(*error.args)


def drawn_conditions(rng: Random, *, rough: float = 0.3, tls: float = 0.0) -> Conditions:
    """Return what a connection is like; `rough` is how likely each kind of trouble is, `tls` that it cannot half-close."""
    if not rough:
        return Conditions(half_close=rng.random() >= tls)
    conditions = Conditions(latency=rng.choice((0.0005, 0.005, 0.03)))
    if rng.random() < rough:
        conditions = evolve(conditions, jitter=rng.choice((0.001, 0.05, 1.0)))
    if rng.random() < rough:
        conditions = evolve(conditions, choppy=rng.choice((0.1, 0.3, 0.6)))
    if rng.random() < rough:
        conditions = evolve(conditions, capacity=rng.choice((256, 2048, 16384)))
    if rng.random() < rough:
        conditions = evolve(conditions, segment=rng.choice((7, 100, 1460)))
    return evolve(conditions, half_close=rng.random() < 0.7)
