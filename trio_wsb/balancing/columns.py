"""The members of a pool as columns, and their present loads: what the choice among a thousand of them runs over."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from math import inf
from operator import add

from attrs import frozen

from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountEntry
from trio_wsb.balancing.echo import echo
from trio_wsb.balancing.strategies import Loads


@frozen
class Member:
    """A backend's place in a pool.

    `weight` is its share relative to its peers, 0 takes it out of the choice. `max_connections` is the load at
    which it is full, foreign connections included, since it is the backend that must bear them; 0 is no
    limit. `max_pending` bounds its handshakes under way, 0 is no limit. `sticky` is the value of a cookie that leads a client there, "" for none.
    `rank` is 0, or more for one that stands by: it is chosen only while none of a lower rank can be. `name` is the DNS name
    that it was found by, "" for none.
    """

    backend: Backend
    weight: int = 1
    max_connections: int = 0
    sticky: str = ""
    max_pending: int = 0
    rank: int = 0
    name: str = ""


class Columns:
    """The members of a pool as parallel lists, for the loop over all of them."""

    __slots__ = (
        "any_foreign",
        "backends",
        "base",
        "down",
        "draining",
        "echo",
        "foreign",
        "health",
        "index",
        "known",
        "limited",
        "limits",
        "pending",
        "pending_limited",
    )

    def __init__(self, members: Sequence[Member]) -> None:
        self.backends = [member.backend for member in members]
        self.health = [backend.passive for backend in self.backends]
        self.foreign = [0] * len(members)
        self.any_foreign = False
        self.echo = 0.0
        """How many sessions other balancers open for each of ours; see `trio_wsb.balancing.echo`."""
        self.base: list[float] = []
        self.known: list[int] = []
        """Our own part of the load that the last reports have, and with it what others opened at the same time."""
        self.down: list[int] = []
        """Those that may not be chosen at all: down by a health check, or draining."""
        self.draining: set[int] = set()
        self.limits = [float(member.max_connections or inf) for member in members]
        self.limited = any(member.max_connections for member in members)
        self.pending = [member.max_pending or inf for member in members]
        self.pending_limited = any(member.max_pending for member in members)
        self.index = {backend: index for index, backend in enumerate(self.backends)}

    def load(self, index: int) -> int:
        """Return the load of one member, whether or not it may be chosen."""
        return self.backends[index].own + self.foreign[index]

    def listen(self, entries: Sequence[CountEntry]) -> None:
        """Work out the echo anew: reports have come."""
        self.echo = echo(entries)
        if self.echo:
            self.known = [
                backend.own if entry.foreign is None else entry.own
                for backend, entry in zip(self.backends, entries, strict=True)
            ]
            # Of load + (own - known) * echo what does not change until the next report.
            self.base = [
                foreign - known * self.echo for foreign, known in zip(self.foreign, self.known, strict=True)
            ]

    def with_echo(self, loads: Iterable[float]) -> list[float]:
        """Return `loads` with what others have probably opened since the last reports."""
        factor = self.echo
        found = [
            load + (backend.own - known) * factor
            for load, backend, known in zip(loads, self.backends, self.known, strict=True)
        ]
        return _none_below_zero(found)

    def rough_loads(self) -> list[float]:
        """Return all loads, with infinity for what is down or draining and for nothing else that may not be chosen."""
        loads: list[float] = [backend.own for backend in self.backends]
        if self.echo:
            factor = 1 + self.echo
            loads = _none_below_zero(
                [own * factor + base for own, base in zip(loads, self.base, strict=True)]
            )
        elif self.any_foreign:
            loads = list(map(add, loads, self.foreign))
        for index in self.down:
            loads[index] = inf
        return loads

    def crowded(self, index: int) -> bool:
        """Whether one has as many handshakes under way as it may have."""
        return self.backends[index].opening >= self.pending[index]


def _none_below_zero(loads: list[float]) -> list[float]:
    """Return `loads` without negative ones, which weights would turn round; sessions of ours that end in numbers make them."""
    return loads if min(loads, default=0.0) >= 0 else [max(0.0, load) for load in loads]


class PresentLoads(Loads):
    """The loads of eligible members at one moment, worked out one by one or all at once as they are asked for."""

    __slots__ = ("_columns", "_exclude", "_now")

    def __init__(self, columns: Columns, now: float, exclude: Collection[Backend]) -> None:
        self._columns = columns
        self._now = now
        self._exclude = exclude

    def __len__(self) -> int:
        return len(self._columns.backends)

    def __getitem__(self, index: int, /) -> float:
        columns = self._columns
        load = columns.load(index)
        if load >= columns.limits[index] or not columns.health[index].available(self._now):
            return inf
        if columns.backends[index] in self._exclude or index in columns.down:
            return inf
        if not columns.echo:
            return load
        return max(0.0, load + (columns.backends[index].own - columns.known[index]) * columns.echo)

    def __iter__(self) -> Iterator[float]:
        columns, now = self._columns, self._now
        # The one loop as long as the pool; the method calls of __getitem__ would triple its time.
        loads: list[float] = [
            backend.own + foreign if health.retry_at <= now else inf
            for backend, health, foreign in zip(
                columns.backends, columns.health, columns.foreign, strict=True
            )
        ]
        if columns.limited:
            loads = [load if load < limit else inf for load, limit in zip(loads, columns.limits, strict=True)]
        if columns.echo:
            loads = columns.with_echo(loads)
        for index in columns.down:
            loads[index] = inf
        for backend in self._exclude:
            if backend in columns.index:
                loads[columns.index[backend]] = inf
        return iter(loads)
