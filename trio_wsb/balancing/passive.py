"""Passive health: what our own attempts say about a backend.

A failed dial or handshake is a failure. So is a session that the backend ended within `QUICK_DROP` seconds,
but only the third such within `DROP_WINDOW` seconds: a backend that accepts and drops would otherwise always
look least loaded, while a single short session is nothing unusual. After as many failures as the policy says, within its
window, the backend is avoided for a cool-down that doubles from `FIRST_COOL_DOWN` to the window's length while
failures go on.

A success does not end a cool-down by itself. Handshakes that were under way when it began would end it at
once, and with an accept-and-drop backend there is always one under way.
"""

from __future__ import annotations

from collections import deque
from math import inf

from attrs import frozen

QUICK_DROP = 2.0
"""A session that ended within this many seconds by the backend's fault counts as dropped; also how long no
failure may follow a success before the earlier failures are forgotten."""

DROP_WINDOW = 10.0
"""Seconds within which `DROPS` dropped sessions make a failure."""

DROPS = 3

FIRST_COOL_DOWN = 1.0
LAST_COOL_DOWN = 10.0


@frozen
class PassivePolicy:
    """How many failures within `window` seconds begin a cool-down, which `window` also bounds; 0 failures is never."""

    failures: int = 1
    window: float = LAST_COOL_DOWN


DEFAULT_POLICY = PassivePolicy()


class PassiveHealth:
    """The failures of one backend. Times are seconds of any one monotonic clock."""

    __slots__ = ("_drops", "_recent", "_succeeded_at", "failures", "last_failure", "policy", "retry_at")

    def __init__(self) -> None:
        self.policy = DEFAULT_POLICY
        """Set by whoever puts a configuration in force."""
        self.failures = 0
        """Cool-downs that followed each other without a success that lasted."""
        self.retry_at = -inf
        """When the present or last cool-down ends."""
        self.last_failure = -inf
        self._succeeded_at: float | None = None
        self._drops: deque[float] = deque(maxlen=DROPS)
        self._recent: deque[float] = deque()
        """Failures since the last cool-down, where it takes more than one to begin another."""

    def available(self, now: float) -> bool:
        """Whether no cool-down is running."""
        return self.retry_at <= now

    @property
    def recovering(self) -> bool:
        """Whether the last thing known of it is a success."""
        return self._succeeded_at is not None

    def succeeded(self, now: float) -> None:
        """Note a handshake or a request that was answered."""
        if self._succeeded_at is None:
            self._succeeded_at = now

    def failed(self, now: float) -> bool:
        """Note a failed dial or handshake; return whether a cool-down begins with it.

        During a cool-down more failures change nothing: they are the other attempts that were under way, or
        last resorts, and a burst of clients must not drive the cool-down to its end at once.
        """
        self._forget(now)
        self.last_failure = now
        if not self.available(now) or not self._enough(now):
            return False
        self.failures += 1
        self.retry_at = now + self.cool_down
        return True

    def dropped(self, now: float) -> bool:
        """Note a session that the backend ended within `QUICK_DROP`; return whether a cool-down begins with it.

        As long as earlier failures are not forgotten, one is enough.
        """
        self._drops.append(now)
        enough = len(self._drops) == DROPS and now - self._drops[0] <= DROP_WINDOW
        if enough or self._still_failing(now):
            return self.failed(now)
        self._succeeded_at = None
        return False

    @property
    def cool_down(self) -> float:
        """Seconds that the present or last cool-down takes; 0 without a failure."""
        if not self.failures:
            return 0.0
        # The exponent is bounded because a backend can stay down for weeks.
        return float(min(self.policy.window, FIRST_COOL_DOWN * 2 ** min(self.failures - 1, 20)))

    def _enough(self, now: float) -> bool:
        """Whether the failure at `now` is one too many."""
        policy, recent = self.policy, self._recent
        if policy.failures <= 1:
            return policy.failures == 1
        recent.append(now)
        while len(recent) > policy.failures or recent[0] < now - policy.window:
            recent.popleft()
        if len(recent) < policy.failures:
            return False
        recent.clear()
        return True

    def _still_failing(self, now: float) -> bool:
        return self.failures > 0 and not self._lasted(now)

    def _lasted(self, now: float) -> bool:
        return self._succeeded_at is not None and now - self._succeeded_at >= QUICK_DROP

    def _forget(self, now: float) -> None:
        if self._lasted(now):
            self.failures = 0
        self._succeeded_at = None
