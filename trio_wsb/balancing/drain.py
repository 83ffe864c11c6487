"""Drains: which backends get no new sessions because somebody takes them away, and how far that is.

The table outlives reloads, and a drain outlives its backend: one that leaves the configuration and comes back is still
drained. Who ends the sessions is not in here; who chooses among backends only asks `DrainTable.covering`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from attrs import define

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.moving import DrainPolicy


class DrainKey(NamedTuple):
    """What is drained: a server, in one service or, with None, in every one."""

    url: BackendURL
    service: str | None


@define(eq=False)
class Drain:
    """One drain. Owned by the table, brought forward by whoever ends the sessions; everybody else only reads.

    Times are seconds on the event loop's clock.
    """

    key: DrainKey
    policy: DrainPolicy
    begun_at: float
    removal: bool = False
    """Whether it began because the server left the configuration; then it ends when the server comes back."""
    rate: float = 0.0
    """Sessions per second at present: the policy's, or more where they would not all be told within the timeout."""
    total: int = 0
    """Sessions found there so far."""
    closing: int = 0
    """Sessions that have been sent a Close frame and have not ended yet."""
    ended: int = 0
    """Sessions that ended in order, by themselves or by our Close frame."""
    cut: int = 0
    """Sessions that did not answer their Close frame in time."""
    left: int = 0
    """What is there still: sessions, and handshakes and requests under way."""
    finished_at: float | None = None
    """When nothing was left for the first time, or the timeout was over."""
    timed_out: bool = False

    @property
    def deadline(self) -> float | None:
        """When it is over in any case; None without a timeout."""
        return self.begun_at + self.policy.timeout if self.policy.timeout else None

    def covers(self, url: BackendURL, service: str) -> bool:
        """Whether it takes the server `url` away from `service`."""
        return self.key.url == url and self.key.service in {None, service}


class DrainTable:
    """Every drain, by what it drains; there is none twice."""

    def __init__(self) -> None:
        self._drains: dict[DrainKey, Drain] = {}
        self.version = 0
        """Rises whenever a drain begins or is taken back; lets a pool keep what it derived until then."""

    def begin(self, key: DrainKey, policy: DrainPolicy, now: float, *, removal: bool = False) -> Drain:
        """Begin a drain of what is not drained yet under the same key."""
        assert key not in self._drains, f"{key} is drained already"
        drain = self._drains[key] = Drain(key, policy, now, removal, rate=policy.rate)
        self.version += 1
        return drain

    def end(self, key: DrainKey) -> Drain | None:
        """Take a drain back, and return it; None if there is none."""
        drain = self._drains.pop(key, None)
        if drain is not None:
            self.version += 1
        return drain

    def get(self, key: DrainKey) -> Drain | None:
        """Return the drain under exactly this key."""
        return self._drains.get(key)

    def covering(self, url: BackendURL, service: str) -> Drain | None:
        """Return the drain that takes the server `url` away from `service`, if there is one."""
        if not self._drains:
            return None
        return self._drains.get(DrainKey(url, None)) or self._drains.get(DrainKey(url, service))

    def __iter__(self) -> Iterator[Drain]:
        """Iterate over the drains, the oldest first; some may be taken back meanwhile."""
        return iter(list(self._drains.values()))

    def __len__(self) -> int:
        return len(self._drains)
