"""The count table: what the backends' reports say, and what follows from it for their load.

A report counts every connection of a backend, ours too, and is seconds old. The part that is not ours, the
*foreign* connections, changes slowly and is what the table keeps; our own part is known exactly at any time
without asking. So ``load = live sessions + handshakes under way + foreign``, and a burst between two reports
spreads evenly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import ceil, inf
from statistics import median
from typing import NamedTuple

from attrs import frozen

from trio_wsb.addresses import BackendURL

_MAX_REASONS = 16

_KEPT_OF_MOVES = 0.9
"""What is kept of what moved before, whenever something moves: some ten reports count, and a quiet night forgets nothing."""


class CountKey(NamedTuple):
    """What a figure describes: the number `field` of the report at `path` of the server `url`."""

    url: BackendURL
    path: str
    field: str


class CountEntry:
    """The figures of one key. Owned by its `CountTable`; everybody else only reads."""

    __slots__ = (
        "_guessed",
        "_told",
        "exact",
        "failed_at",
        "failures",
        "foreign",
        "foreign_at_first",
        "foreign_moved",
        "key",
        "own",
        "own_at_first",
        "own_moved",
        "reason",
        "reported",
        "reported_at",
        "reports_total",
    )

    def __init__(self, key: CountKey) -> None:
        self.key = key
        self.foreign: int | None = None
        """Connections that are not ours; None as long as there was no report."""
        self.own = 0
        """Our part of the last report."""
        self.own_at_first = 0
        """Our part of the first report: nobody has watched what others did while these sessions came."""
        self.foreign_at_first = 0
        """The foreign connections of the first report: nobody has watched what we did while these came."""
        self.own_moved = 0.0
        """By how much our part has changed from report to report, the older the change the less of it."""
        self.foreign_moved = 0.0
        """The same of the foreign connections."""
        self.exact = False
        """Whether nothing of ours moved while the last report was under way, so that `foreign` is no estimate."""
        self.reported: int | None = None
        """The last report's number."""
        self.reported_at = -inf
        """When the last report was complete."""
        self.failed_at = -inf
        """When the last request without a usable answer ended."""
        self.reports_total = 0
        self.failures = 0
        """Requests without a usable answer since the last report."""
        self.reason: str | None = None
        """Why the last request had no usable answer; None after a report."""
        self._told: set[str] = set()
        self._guessed = False

    def age(self, now: float) -> float:
        """Return the seconds since the last report; infinity if there was none."""
        return now - self.reported_at

    def stale(self, now: float, stale_after: float) -> bool:
        """Whether the last report is older than `stale_after` seconds, or there was none."""
        return self.age(now) > stale_after

    def take(self, own: int, foreign: int) -> None:
        """Take the two parts of a report; `exact` is about the same report."""
        if self.foreign is None:
            self.own_at_first, self.foreign_at_first, self._guessed = own, foreign, not self.exact
        elif self._guessed:
            # What was guessed is put right. That is no sign of anybody's having moved.
            self.foreign_at_first, self._guessed = foreign, False
        else:
            moved, moved_own = abs(foreign - self.foreign), abs(own - self.own)
            if moved or moved_own:
                self.foreign_moved = self.foreign_moved * _KEPT_OF_MOVES + moved
                self.own_moved = self.own_moved * _KEPT_OF_MOVES + moved_own
        self.own, self.foreign = own, foreign

    def news(self, reason: str, now: float) -> bool:
        """Note a failure; return whether its reason was not given since the last report."""
        self.failures += 1
        self.reason, self.failed_at = reason, now
        # A set, not just the last one: a backend that alternates between two reasons is not news each time.
        if reason in self._told or len(self._told) >= _MAX_REASONS:
            return False
        self._told.add(reason)
        return True

    def recovered(self) -> bool:
        """Note a report; return whether there were failures before it."""
        self.reports_total += 1
        failed = self.failures > 0
        self.failures, self.reason = 0, None
        self._told.clear()
        return failed


@frozen
class Sample:
    """A request for a report that is under way: our own live sessions when it was sent."""

    key: CountKey
    own_live: int
    started_at: float


class CountTable:
    """Figures by key. They outlive reloads as long as the configuration asks for them."""

    def __init__(self) -> None:
        self._entries: dict[CountKey, CountEntry] = {}
        self.version = 0
        """Rises whenever a figure changes from which pools derive theirs; lets them keep those until then."""
        self._foreign_seen = False

    def entry(self, key: CountKey) -> CountEntry:
        """Return the entry of `key`, a new one if there is none."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = CountEntry(key)
        return entry

    def __iter__(self) -> Iterator[CountEntry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def retain(self, keys: Iterable[CountKey]) -> None:
        """Drop every entry whose key is not among `keys`."""
        wanted = set(keys)
        self._entries = {key: entry for key, entry in self._entries.items() if key in wanted}

    def start(self, key: CountKey, own_live: int, now: float) -> Sample:
        """Note that a request for a report goes out while we have `own_live` sessions there."""
        self.entry(key)
        return Sample(key, own_live, now)

    def finish(self, sample: Sample, reported: int, own_live: int, own_pending: int, now: float) -> bool:
        """Take the report that answers `sample`; return whether it is the first one after failures.

        Our own count may have moved while the request was under way, and the backend may have counted at
        any moment between, so that our part of `reported` is only known to lie between the smaller of the
        two counts and the larger one plus the handshakes under way (which the backend may have accepted before we
        saw its answer). The foreign figure lies in the interval that follows. If the figure that we have
        lies in it too, the report says nothing new and the figure stays; otherwise it moves to the nearest
        end. Taking the difference at one of the two moments instead would add a burst, or lose it, each time
        that a report crosses one. When nothing moves, the interval is the one number ``reported - own_live``.

        Without an earlier figure our part is taken as the mean of the two counts: this errs by half of
        what moved at most, while either end could be wrong by all of it.

        Args:
          sample: what `start` returned.
          reported: the report's number.
          own_live: our live sessions there now.
          own_pending: our handshakes under way there now.
          now: the time.

        """
        entry = self._entries.get(sample.key)
        if entry is None:  # A reload dropped the key while the request was under way.
            return False
        least = min(sample.own_live, own_live)
        most = max(sample.own_live, own_live) + own_pending
        if entry.foreign is None:
            foreign = max(0, reported - (sample.own_live + own_live) // 2)
        else:
            foreign = min(max(entry.foreign, reported - most, 0), max(0, reported - least))
        entry.exact = least == most
        own = min(max(reported - foreign, least), most)
        if foreign != entry.foreign or (own != entry.own and self._foreign_seen):
            self.version += 1
        entry.take(own, foreign)
        self._foreign_seen = self._foreign_seen or foreign > 0
        entry.reported, entry.reported_at = reported, now
        return entry.recovered()

    def fail(self, key: CountKey, reason: str, now: float) -> bool:
        """Note that a request had no usable answer; return whether `reason` is news, to be logged once.

        The figures stay: a backend whose report hangs must not look empty.
        """
        entry = self._entries.get(key)
        return entry is not None and entry.news(reason, now)

    def foreign(self, key: CountKey) -> int | None:
        """Return the foreign connections of `key`, however old; None if it has never reported."""
        entry = self._entries.get(key)
        return None if entry is None else entry.foreign

    def age(self, key: CountKey, now: float) -> float:
        """Return the seconds since the last report of `key`; infinity if there was none."""
        entry = self._entries.get(key)
        return inf if entry is None else entry.age(now)

    def stale(self, key: CountKey, now: float, stale_after: float) -> bool:
        """Whether the last report of `key` is older than `stale_after` seconds, or there was none."""
        return self.age(key, now) > stale_after


def foreign_figures(entries: Sequence[CountEntry]) -> list[int]:
    """Return the foreign connections of each of the backends of one service.

    One that has never reported gets the median of those that have, rounded up, or 0 if none has: taken for
    empty it would attract every client, taken for full none.
    """
    known = [entry.foreign for entry in entries if entry.foreign is not None]
    assumed = ceil(median(known)) if known else 0
    return [assumed if entry.foreign is None else entry.foreign for entry in entries]
