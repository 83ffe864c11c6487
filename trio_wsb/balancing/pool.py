"""The pool: the backends that a service chooses from, with their weights, limits and present loads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import inf
from random import Random

from trio_wsb.addresses import IPAddress
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.columns import Columns, PresentLoads
from trio_wsb.balancing.columns import Member as Member  # noqa: PLC0414 - part of this module's interface
from trio_wsb.balancing.counts import CountEntry, CountKey, CountTable, foreign_figures
from trio_wsb.balancing.drain import Drain, DrainTable
from trio_wsb.balancing.health import HealthEntry, HealthKey, HealthTable, Question
from trio_wsb.balancing.rebalance import Figure
from trio_wsb.balancing.slowstart import SlowStart
from trio_wsb.balancing.sticky import Affinity
from trio_wsb.balancing.strategies import STRATEGIES, Strategy


class Pool:
    """What one service of one runtime snapshot chooses from.

    It owns nothing but its strategy's state; backends and figures live in their tables and outlast it. Nothing
    in here is a checkpoint, and there must be none between `choose` and `Backend.begin_handshake`.

    Args:
      members: the backends, each once.
      strategy: a key of `STRATEGIES`.
      counts: the count table.
      count: path and field of the reports that tell foreign connections; None counts only our own.
      rng: what breaks ties and draws.
      previous: the pool of the same service before a reload, whose strategy's state goes on.
      health: the health table, and what to look for there; None takes every backend for well.
      slow_start: seconds over which a backend that came up gets its whole weight.
      drains: which backends are being taken away, and from which service; None of none.
      service: whose pool it is, as drains name it.
      missing: says why there are no members, when there are none.

    """

    def __init__(
        self,
        members: Sequence[Member],
        strategy: str,
        *,
        counts: CountTable,
        count: tuple[str, str] | None = None,
        rng: Random,
        previous: Pool | None = None,
        health: tuple[HealthTable, Question] | None = None,
        slow_start: float = 0.0,
        drains: DrainTable | None = None,
        service: str = "",
        missing: Callable[[], str] = lambda: "no backends",
    ) -> None:
        self.members = tuple(members)
        self.strategy = strategy
        self._counts = counts
        self._health: list[HealthEntry] = []
        self._health_table = None if health is None else health[0]
        if health is not None:
            table, question = health
            self._health = [table.entry(HealthKey(member.backend.url, question)) for member in members]
        self._entries: list[CountEntry] = []
        if count is not None:
            self._entries = [counts.entry(CountKey(member.backend.url, *count)) for member in members]
        self._columns = Columns(self.members)
        self._drains = DrainTable() if drains is None else drains
        self._service = service
        self._missing = missing
        self._standby = _standby(self.members)
        self._version = self._health_version = self._drains_version = -1
        self._by_cookie = {member.sticky: index for index, member in enumerate(members) if member.sticky}
        names = [str(member.backend.url) for member in members]
        self.chooser: Strategy = STRATEGIES[strategy](names, [member.weight for member in members], rng)
        self._slow_start = SlowStart(slow_start, [member.weight for member in members])
        if previous is not None:
            self.chooser.adopt(previous.chooser)
            self._ramp_up_new(previous)

    def choose(
        self,
        client: IPAddress | None,
        now: float,
        exclude: Collection[Backend] = (),
        *,
        opening: bool = False,
    ) -> Backend | None:
        """Return the backend for a client, or None if none is eligible; `reason` tells why.

        Eligible are backends with a weight, not down by a health check, not draining, below their `max_connections`, not cooling
        down after failures and not in `exclude`. If only cool-downs are in the way, a cooling backend is tried after all, which is
        better than refusing: one that has succeeded since its last failure, else that with the fewest attempts
        under way, and of these the one whose last failure is the longest ago.

        Args:
          client: the client's real address, for the strategies that hash it.
          now: the time, on the clock of `Backend.handshake_failed`.
          exclude: backends that were tried for this client already.
          opening: it is for a handshake, so that `max_pending` counts too.

        """
        columns = self._present()
        if self._slow_start.ramping:
            self._reweigh(now)
        if self.chooser.memoryless and len(self._standby) == 1:
            # Who takes the fewest of all nearly always may be chosen, and to look at that one alone is much quicker than
            # to look at a thousand. If not, what is chosen among the others does not depend on this look.
            index = self.chooser.choose(columns.rough_loads(), client)
            if index is not None and self._eligible(columns, index, now, exclude, opening=opening):
                return columns.backends[index]
        if opening and columns.pending_limited:
            exclude = self._crowded_ones(exclude)
        index = None
        for later in self._standby:
            left_out = {*exclude, *later} if later else exclude
            index = self.chooser.choose(PresentLoads(columns, now, left_out), client)
            if index is not None:
                break
        if index is None:
            index = self._last_resort(columns, client, exclude)
        return None if index is None else columns.backends[index]

    def crowded(self, exclude: Collection[Backend] = ()) -> bool:
        """Whether a backend could be chosen for a handshake if fewer of them were under way there."""
        columns = self._present()
        return columns.pending_limited and any(
            columns.crowded(index)
            and member.weight > 0
            and member.backend not in exclude
            and index not in columns.down
            and columns.load(index) < columns.limits[index]
            for index, member in enumerate(self.members)
        )

    def affinity(self, value: str, now: float, *, opening: bool = False) -> Affinity:
        """Return where a client with a cookie of that value belongs.

        One that is unknown, has no weight, is down, draining or cools down loses its clients for good; one that is full only
        turns them away.
        """
        index = self._by_cookie.get(value)
        if index is None:
            return Affinity(None, lasting=False)
        columns, member = self._present(), self.members[index]
        if not member.weight or index in columns.down or not columns.health[index].available(now):
            return Affinity(None, lasting=False)
        if columns.load(index) >= columns.limits[index] or (opening and columns.crowded(index)):
            return Affinity(None, lasting=True)
        return Affinity(member.backend, lasting=True)

    def sticky_value(self, backend: Backend) -> str:
        """Return the value of a cookie that leads to a member.

        Raises `KeyError` for a backend that is no member.
        """
        return self.members[self._columns.index[backend]].sticky

    def reason(self, now: float, exclude: Collection[Backend] = (), *, opening: bool = False) -> str:
        """Return why `choose` with the same arguments returned None: ``all 3 backends at maxConnections``."""
        columns = self._present()
        causes: dict[str, int] = {}
        for index, member in enumerate(self.members):
            if member.weight == 0:
                cause = "of weight 0"
            elif member.backend in exclude:
                cause = "failed for this client"
            elif index in columns.draining:
                cause = "draining"
            elif index in columns.down:
                cause = "down by health check"
            elif columns.load(index) >= columns.limits[index]:
                cause = "at maxConnections"
            elif not member.backend.passive.available(now):
                cause = "cooling down after failures"
            elif opening and columns.crowded(index):
                cause = "at maxPending"
            else:
                cause = "eligible"
            causes[cause] = causes.get(cause, 0) + 1
        if len(causes) == 1:
            [(cause, count)] = causes.items()
            return f"the only backend {cause}" if count == 1 else f"all {count} backends {cause}"
        return ", ".join(f"{count} {cause}" for cause, count in causes.items()) or self._missing()

    def load(self, backend: Backend) -> int:
        """Return the load of a member: own live sessions, handshakes under way and foreign connections.

        Raises `KeyError` for a backend that is no member.
        """
        columns = self._present()
        return columns.load(columns.index[backend])

    def foreign(self, backend: Backend) -> int:
        """Return the foreign connections that a member is taken to have.

        Raises `KeyError` for a backend that is no member.
        """
        columns = self._present()
        return columns.foreign[columns.index[backend]]

    def report(self, backend: Backend) -> CountEntry | None:
        """Return what a member has reported, to be read only; None when this pool asks for no reports.

        Raises `KeyError` for a backend that is no member.
        """
        index = self._columns.index[backend]
        return self._entries[index] if self._entries else None

    def health(self, backend: Backend) -> HealthEntry | None:
        """Return what is known of a member by health checks, to be read only; None when this pool has none.

        Raises `KeyError` for a backend that is no member.
        """
        index = self._columns.index[backend]
        return self._health[index] if self._health else None

    def drain(self, backend: Backend) -> Drain | None:
        """Return the drain that takes a backend away from this service, to be read only; None if there is none."""
        return self._drains.covering(backend.url, self._service)

    def standing(self, now: float, stale_after: float = inf) -> list[Figure]:
        """Return how each member stands, for a comparison of their loads.

        One counts if it may be chosen, were it not for its load, and if its figures are known: a report that is older
        than `stale_after` seconds, or missing, is only a guess.
        """
        columns = self._present()
        return [
            Figure(
                load=columns.load(index),
                own=member.backend.live,
                weight=member.weight,
                limit=columns.limits[index],
                counts=member.weight > 0
                and not member.rank
                and index not in columns.down
                and columns.health[index].available(now)
                and (not self._entries or not self._entries[index].stale(now, stale_after)),
            )
            for index, member in enumerate(self.members)
        ]

    def ramping(self, now: float) -> bool:
        """Whether a backend is on its way to its whole weight."""
        self._present()
        self._reweigh(now)
        return self._slow_start.ramping

    def available(self, now: float) -> bool:
        """Whether a backend is well: it has a weight, is not down, draining or cooling down.

        One that is full is well all the same.
        """
        down = self._present().down
        return any(
            member.weight and index not in down and member.backend.passive.available(now)
            for index, member in enumerate(self.members)
        )

    def __contains__(self, backend: Backend) -> bool:
        return backend in self._columns.index

    def _present(self) -> Columns:
        if self._version != self._counts.version:
            self._version = self._counts.version
            if self._entries:
                self._columns.foreign = foreign_figures(self._entries)
                self._columns.any_foreign = any(self._columns.foreign)
                self._columns.listen(self._entries)
        table = self._health_table
        if table is not None and self._health_version != table.version:
            self._health_version = table.version
            for index, entry in enumerate(self._health):
                self._slow_start.begin(index, entry.up_since)
            self._take_out()
        if self._drains_version != self._drains.version:
            self._drains_version = self._drains.version
            before = self._columns.draining
            self._columns.draining = {
                index for index, member in enumerate(self.members) if self.drain(member.backend) is not None
            }
            for index in before - self._columns.draining:
                # It comes back empty, and would get every client at once.
                self._slow_start.begin_at_next_look(index)
            self._take_out()
        return self._columns

    def _take_out(self) -> None:
        columns = self._columns
        down = {index for index, entry in enumerate(self._health) if entry.down}
        columns.down = sorted(down | columns.draining)

    def _reweigh(self, now: float) -> None:
        if self._slow_start.ramping and (weights := self._slow_start.weights(now)) is not None:
            self.chooser.reweigh(weights)

    def _eligible(
        self, columns: Columns, index: int, now: float, exclude: Collection[Backend], *, opening: bool
    ) -> bool:
        if opening and columns.pending_limited and columns.crowded(index):
            return False
        return PresentLoads(columns, now, exclude)[index] < inf

    def _crowded_ones(self, exclude: Collection[Backend]) -> Collection[Backend]:
        """Return `exclude` with the backends that have as many handshakes under way as they may have."""
        columns = self._columns
        crowded = [
            backend
            for backend, limit in zip(columns.backends, columns.pending, strict=True)
            if backend.opening >= limit
        ]
        return {*exclude, *crowded} if crowded else exclude

    def _ramp_up_new(self, previous: Pool) -> None:
        """Let backends that a reload adds begin slowly, if others have sessions, and carry on what has begun."""
        busy = any(member.backend.own for member in previous.members)
        for index, member in enumerate(self.members):
            known = previous._columns.index.get(member.backend)
            if known is not None:
                self._slow_start.begin(index, previous._slow_start.begun(known))
            elif busy:
                self._slow_start.begin_at_next_look(index)

    def _last_resort(
        self, columns: Columns, client: IPAddress | None, exclude: Collection[Backend]
    ) -> int | None:
        left = [
            index
            for index, member in enumerate(self.members)
            if member.weight
            and member.backend not in exclude
            and index not in columns.down
            and columns.load(index) < columns.limits[index]
        ]
        recovering = {index for index in left if columns.health[index].recovering}
        if recovering:
            loads = [columns.load(i) if i in recovering else inf for i in range(len(self.members))]
            return self.chooser.choose(loads, client)
        return min(
            left, key=lambda i: (columns.backends[i].pending, columns.health[i].last_failure), default=None
        )


def _standby(members: Sequence[Member]) -> Sequence[Collection[Backend]]:
    """Return for each rank, beginning with the lowest, who is not to be chosen because he stands by for it."""
    ranks = sorted({member.rank for member in members})
    return [{each.backend for each in members if each.rank > rank} for rank in ranks] or [()]
