"""The model of the kernel itself: the sockets in its map, what stands in their queues, and what overtakes whom."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

import trio
from attrs import define

from tests.simulation import verdict
from tests.simulation.network import KEPT, Network
from tests.simulation.verdict import Run
from trio_wsb.net.kernel.direction import WORDS
from trio_wsb.net.kernel.maps import KernelMaps

if TYPE_CHECKING:
    from tests.simulation.kernel import SimSocket

TCP_ESTABLISHED: Final = 1
TCP_CLOSE_WAIT: Final = 8
TCP_CLOSE: Final = 7
"""States of include/net/tcp_states.h."""


@define(frozen=True)
class Temper:
    """How much the kernel does that one would not expect; chances, and times in seconds."""

    races: float = 0.1
    """How often somebody is overtaken between two looks, and a run has not committed when the next thing happens."""
    lag: float = 0.1
    """How often what was sent on is not written at once."""
    lags: tuple[float, ...] = (0.0, 0.001, 0.02, 0.3)
    late: float = 0.3
    """How often a note comes late."""
    repeats: float = 0.05
    """How often a segment brings old bytes too."""
    merges: float = 0.1
    """How often a segment is merged with the one behind it."""
    max_frames: int = verdict.MAX_FRAMES
    credit: int = 1 << 20
    sessions: int = 1000


def drawn_temper(rng: Random) -> Temper:
    """Return what the kernel of a story is like."""
    wild = rng.choice((0.0, 0.1, 0.5))
    return Temper(
        races=wild,
        lag=rng.choice((0.0, 0.1, 0.6)),
        late=rng.choice((0.0, 0.3, 1.0)),
        repeats=rng.choice((0.0, 0.05, 0.3)),
        merges=rng.choice((0.0, 0.1, 0.5)),
        max_frames=rng.choice((verdict.MAX_FRAMES, verdict.MAX_FRAMES, 5, 64)),
        credit=rng.choice((1 << 20, 1 << 20, 65536, 4096)),
        sessions=rng.choice((1000, 1000, 1000, 5)),
    )


class SimWords:
    """The program's words, as user space sees them: it may be overtaken before each look."""

    def __init__(self, maps: SimMaps) -> None:
        self._maps = maps

    def __getitem__(self, key: Any) -> Any:
        self._maps.overtake((key.start if isinstance(key, slice) else key) // WORDS)
        return self._maps.raw[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._maps.overtake((key.start if isinstance(key, slice) else key) // WORDS)
        self._maps.raw[key] = value


class Entry:
    """A socket in the map: what the kernel has of it (struct sk_psock)."""

    def __init__(self, maps: SimMaps, slot: int, sock: SimSocket) -> None:
        self.maps = maps
        self.slot = slot
        self.sock = sock
        self.channel = sock.channel
        self.running: Run | None = None
        self.queue: deque[tuple[bool, bytes]] = deque()
        """What is to be written (True), and what is to be read after it was (False)."""
        self.broken = False
        self.sequence = maps.rng.getrandbits(32)
        self.past = self.channel.incoming.last
        """Bytes that came before."""
        self.kept: bytes | None = None
        self._working = False

    # What arrives.

    def begin(self) -> None:
        """Let the program see what came before the socket was in the map."""
        waiting = bytes(self.channel.incoming.inbox)
        self.channel.incoming.inbox.clear()
        if waiting:
            self._run(waiting)

    def arrived(self, piece: bytes) -> None:
        """Take a segment (`Watcher`)."""
        rng, temper = self.maps.rng, self.maps.temper
        if self.kept is not None:
            piece, self.kept = self.kept + piece, None
        elif rng.random() < temper.merges:
            self.kept = piece
            self.maps.network.at(trio.current_time(), self._no_more_to_merge)
            return
        self._run(piece)

    def _no_more_to_merge(self) -> None:
        if self.kept is not None:
            piece, self.kept = self.kept, None
            self._run(piece)

    def _run(self, piece: bytes) -> None:
        known, chance = self.maps.raw[self.slot * WORDS + verdict.NEXT] >> 32, self.maps.temper.repeats
        repeated = b""
        if self.maps.draw(chance if known else chance / 20):
            repeated = self.past[-self.maps.rng.randint(1, KEPT) :]
            # Of the first segment nobody can tell what is old, so that the relay has to give the session up.
            if repeated and not known:
                self.channel.confused = True
                self.maps.confused += 1
        self._judge(repeated, piece)

    def _judge(self, repeated: bytes, piece: bytes) -> None:
        self.commit()
        maps = self.maps
        rng, temper, words, at = maps.rng, maps.temper, maps.raw, self.slot * WORDS
        segment = repeated + piece
        self.past = (self.past + piece)[-KEPT:]
        self.sequence = self.sequence + len(piece) & 0xFFFFFFFF
        data, known = verdict.only_new(words, at, segment, self.sequence - len(segment) & 0xFFFFFFFF)
        if not data:
            return
        self.running = verdict.judge(words, at, data, temper.max_frames, known=known)
        if rng.random() < temper.races:
            maps.network.at(trio.current_time(), self.commit)
        else:
            self.commit()

    def commit(self) -> None:
        """End the run under way, if there is one."""
        run, self.running = self.running, None
        if run is None:
            return
        maps = self.maps
        other = maps.entries_by_slot.get(self.slot ^ 1)
        sent = run.scan is not None and other is not None
        note = verdict.commit(maps.raw, self.slot * WORDS, run, sent=sent)
        if sent and other is not None:
            other.add(True, run.data)
            self.channel.incoming.take(len(run.data))
        elif maps.raw[self.slot * WORDS + verdict.GATE] != verdict.OVER:
            self.add(False, run.data)
        if note:
            maps.note(self.slot)

    def settle(self) -> None:
        """Let everything that was received have been seen by the program: it holds the socket's lock for as long as that takes."""
        self._no_more_to_merge()
        self.commit()

    # The queue.

    def add(self, outward: bool, data: bytes) -> None:
        """Put something in the queue; what is to be read goes past it when it is empty."""
        if not outward and not self.queue:
            self.channel.incoming.deliver(data)
        elif not self.broken:
            self.queue.append((outward, data))
            self._order()

    def _order(self) -> None:
        if not self._working:
            self._working = True
            rng, temper = self.maps.rng, self.maps.temper
            pause = rng.choice(temper.lags) if rng.random() < temper.lag else 0.0
            self.maps.network.at(trio.current_time() + pause, self._work_now)

    def _work_now(self) -> None:
        self._working = False
        self.work()

    def work(self) -> None:
        """Do what the queue holds, as far as there is room to write."""
        outgoing = self.channel.outgoing
        while self.queue:
            outward, data = self.queue[0]
            if not outward:
                self.queue.popleft()
                self.channel.incoming.deliver(data)
                continue
            if outgoing.fin or outgoing.broken is not None or self.channel.closed:
                self.break_down()
                return
            if outgoing.room <= 0:
                return
            count = outgoing.chop(min(len(data), outgoing.room))
            outgoing.write(data[:count])
            if count == len(data):
                self.queue.popleft()
            else:
                self.queue[0] = True, data[count:]
                self._order()
                return

    def room(self) -> None:
        """Note that there is room to write again (`Watcher`)."""
        if self.queue:
            self._order()

    def break_down(self) -> None:
        """Lose what is in the queue: it cannot be written, and what is to be read stands behind it."""
        self.broken = True
        self.queue.clear()
        incoming = self.channel.incoming
        if incoming.error is None and not incoming.eof:
            incoming.error = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            incoming.changed.unpark_all()

    # The end.

    def ended(self) -> None:
        """Note a FIN or a reset (`Watcher`)."""
        self._no_more_to_merge()
        incoming = self.channel.incoming
        if incoming.error is not None and self.queue:
            self.queue.clear()
            self.broken = True
            if self.maps.rng.random() < 0.5:
                incoming.error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.maps.ended(self.slot)

    def overtake(self) -> None:
        """Let something happen, perhaps."""
        self.maps.overtake(self.slot)


class SimMaps(KernelMaps):
    """The program and its maps, in a story."""

    def __init__(self, slots: int, network: Network, rng: Random, temper: Temper) -> None:
        self.network = network
        self.rng = rng
        self.temper = temper
        self.raw = [0] * (slots * WORDS)
        self.words = cast("memoryview[int]", SimWords(self))
        self.entries_by_slot: dict[int, Entry] = {}
        self._noted: list[int] = []
        self._ended: list[int] = []
        self._news = trio.Event()
        self._quiet = False
        self.confused = 0
        """Sessions that had to be given up."""
        self.overtaken = 0
        """How often somebody was."""

    def draw(self, chance: float) -> bool:
        """Whether something happens that does with a chance."""
        return self.rng.random() < chance

    def entries(self) -> int:
        return len(self.entries_by_slot)

    def insert(self, slot: int, source: socket.socket) -> None:
        sock = cast("SimSocket", source)
        if sock.fileno() == -1 or sock.state != TCP_ESTABLISHED or sock.channel.outgoing.fin:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        entry = Entry(self, slot, sock)
        self.entries_by_slot[slot] = sock.entry = sock.channel.watcher = entry
        entry.begin()

    def remove(self, slot: int, source: socket.socket) -> None:
        entry = self.entries_by_slot.pop(slot, None)
        if entry is not None:
            entry.commit()
            entry.queue.clear()
            entry.broken = True
            entry.sock.entry = entry.channel.watcher = None

    async def wait(self) -> None:
        await self._news.wait()

    def take(self) -> tuple[list[int], list[int]]:
        noted, ended = self._noted, self._ended
        self._noted, self._ended, self._news = [], [], trio.Event()
        return noted, ended

    def close(self) -> None:
        pass

    def note(self, slot: int) -> None:
        """Let user space know of a note, at once or later."""
        late = self.rng.choice(self.temper.lags) if self.rng.random() < self.temper.late else 0.0

        def tell() -> None:
            self._noted.append(slot)
            self._news.set()

        self.network.at(trio.current_time() + late, tell)

    def ended(self, slot: int) -> None:
        """Let user space know of an end."""

        def tell() -> None:
            self._ended.append(slot)
            self._news.set()

        self.network.at(trio.current_time(), tell)

    def overtake(self, slot: int) -> None:
        """Let something happen to the session of a slot, perhaps."""
        rng = self.rng
        if self._quiet or rng.random() >= self.temper.races:
            return
        self.overtaken += 1
        with self.quiet():
            for _ in range(rng.randint(1, 3)):
                entry = self.entries_by_slot.get(slot ^ rng.randint(0, 1))
                if entry is None:
                    return
                now = trio.current_time()
                match rng.randrange(4):
                    case 0 if entry.channel.incoming.held_until <= now:
                        entry.channel.incoming.hurry()
                    case 1 if entry.channel.outgoing.held_until <= now:
                        entry.channel.outgoing.hurry()
                    case 2:
                        entry.commit()
                    case 3:
                        entry.work()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let nothing else happen meanwhile."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
