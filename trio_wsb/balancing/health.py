"""Active health: what checks of our own say about a backend.

A check asks a server something, in the background; this is the memory of what came of it. One entry for each
server and question, so that a reload that changes neither forgets nothing, and two services that ask the
same share one answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Literal, NamedTuple

from attrs import frozen

from trio_wsb.addresses import BackendURL


@frozen
class Question:
    """What a check asks, whichever server it asks, and what a good answer is.

    `scheme`, `hostname` and `port` stand in for the server's own where they are not None, "" or 0. `status` is the one
    good status, 0 for any from 200 to 399. A WebSocket check has a good answer when a ping of its own is answered.
    """

    path: str
    mode: Literal["http", "websocket"] = "http"
    scheme: str | None = None
    hostname: str | None = None
    port: int = 0
    method: str = "GET"
    status: int = 0
    follow_redirects: bool = True
    headers: tuple[tuple[str, str], ...] = ()


class HealthKey(NamedTuple):
    """What an entry describes: the answers of the server `url` to `question`."""

    url: BackendURL
    question: Question


class HealthEntry:
    """What is known of one key. Owned by its `HealthTable`; everybody else only reads. Times are one clock's seconds."""

    __slots__ = ("changed_at", "checked_at", "down", "key", "known", "reason", "streak", "up_since")

    def __init__(self, key: HealthKey) -> None:
        self.key = key
        self.known = False
        """Whether a check has ended; a server that was never checked counts as up."""
        self.down = False
        self.streak = 0
        """Checks in a row that say otherwise than `down` does."""
        self.reason: str | None = None
        """Why the last check failed; None after a good one."""
        self.checked_at = -inf
        self.changed_at = -inf
        """When it went up or down; infinity in the past if it never did."""
        self.up_since = -inf
        """When it last came up after it was down."""

    @property
    def wavering(self) -> bool:
        """Whether the last check says otherwise than what holds."""
        return self.streak > 0


class HealthTable:
    """Entries by key. They outlive reloads as long as the configuration asks the same."""

    def __init__(self) -> None:
        self._entries: dict[HealthKey, HealthEntry] = {}
        self.version = 0
        """Rises whenever a server goes up or down; lets a pool keep what it derived until then."""

    def entry(self, key: HealthKey) -> HealthEntry:
        """Return the entry of `key`, a new one if there is none."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = HealthEntry(key)
        return entry

    def __iter__(self) -> Iterator[HealthEntry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def retain(self, keys: Iterable[HealthKey]) -> None:
        """Drop every entry whose key is not among `keys`."""
        wanted = set(keys)
        self._entries = {key: entry for key, entry in self._entries.items() if key in wanted}

    def passed(self, key: HealthKey, now: float, *, rise: int) -> bool:
        """Note a good check; return whether the server came up with it.

        Args:
          key: what was checked; nothing is noted when a reload has dropped it meanwhile.
          now: the time.
          rise: good checks in a row that bring a server up.

        """
        entry = self._entries.get(key)
        if entry is None:
            return False
        entry.known, entry.checked_at, entry.reason = True, now, None
        if not entry.down:
            entry.streak = 0
            return False
        entry.streak += 1
        if entry.streak < rise:
            return False
        entry.down, entry.streak = False, 0
        entry.changed_at = entry.up_since = now
        self.version += 1
        return True

    def failed(self, key: HealthKey, reason: str, now: float, *, fall: int) -> bool:
        """Note a failed check; return whether the server went down with it.

        The first check of all decides alone: nothing good is known that more failures would have to outweigh.

        Args:
          key: what was checked; nothing is noted when a reload has dropped it meanwhile.
          reason: why it failed.
          now: the time.
          fall: failed checks in a row that take a server down.

        """
        entry = self._entries.get(key)
        if entry is None:
            return False
        first, entry.known = not entry.known, True
        entry.checked_at, entry.reason = now, reason
        if entry.down:
            entry.streak = 0
            return False
        entry.streak += 1
        if entry.streak < fall and not first:
            return False
        entry.down, entry.streak, entry.changed_at = True, 0, now
        self.version += 1
        return True
