"""How much a session may send: token buckets for its messages and its bytes. No clock: time is an argument.

A bucket holds at most `burst` tokens and gains `rate` a second. Whoever reads for the session asks first how much is
left, reads and passes on no more than that, and says what it was. When a bucket is empty the answer is how long to
wait; that is a twentieth of a second's worth at least, so that a flood wakes its reader twenty times a second and
not for each message.
"""

from __future__ import annotations

from typing import Final

WAKE_INTERVAL: Final = 0.05
"""Seconds that tokens are gathered for, where the bucket is large enough to hold them."""


class Bucket:
    """Tokens of one kind. Full at first."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Fill the bucket at `now`; `rate` is in tokens a second, `burst` at least one token."""
        self._rate = rate
        self._burst = max(1.0, burst)
        self._tokens = self._burst
        self._at = now

    def whole(self, now: float) -> int:
        """Return how many whole tokens there are."""
        # The clock may stand still; a burst after a pause is never more than the bucket holds.
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        return int(self._tokens + 1e-9)

    def spend(self, tokens: int) -> None:
        """Take tokens out, no more than `whole` has just said."""
        self._tokens -= tokens

    def wait(self) -> float:
        """Return the seconds until there is something worth waking up for."""
        wanted = min(self._burst, max(1.0, self._rate * WAKE_INTERVAL))
        return max(0.0, (wanted - self._tokens) / self._rate)


class Allowance:
    """What is left of a session's messages and bytes.

    Args:
      message_rate: messages and control frames a second; 0 is no limit.
      message_burst: as many at once after a pause; 0 is as many as a second brings.
      byte_rate: bytes a second; 0 is no limit.
      byte_burst: as many at once after a pause; 0 is as many as a second brings.
      now: the time, in seconds, of the clock that every other call means too.

    """

    __slots__ = ("_bytes", "_messages")

    def __init__(
        self,
        *,
        message_rate: float = 0.0,
        message_burst: int = 0,
        byte_rate: float = 0.0,
        byte_burst: int = 0,
        now: float,
    ) -> None:
        self._messages = Bucket(message_rate, message_burst or message_rate, now) if message_rate else None
        self._bytes = Bucket(byte_rate, byte_burst or byte_rate, now) if byte_rate else None

    def messages(self, now: float, unlimited: int) -> int:
        """Return how many messages may begin; `unlimited` if there is no limit."""
        return unlimited if self._messages is None else self._messages.whole(now)

    def bytes(self, now: float, unlimited: int) -> int:
        """Return how many bytes may be read, at most `unlimited`."""
        return unlimited if self._bytes is None else min(unlimited, self._bytes.whole(now))

    def spend_messages(self, count: int) -> None:
        """Note that so many messages began."""
        if self._messages is not None:
            self._messages.spend(count)

    def spend_bytes(self, count: int) -> None:
        """Note that so many bytes were read."""
        if self._bytes is not None:
            self._bytes.spend(count)

    def wait_for_messages(self) -> float:
        """Return the seconds until it is worth going on with messages."""
        return 0.0 if self._messages is None else self._messages.wait()

    def wait_for_bytes(self) -> float:
        """Return the seconds until it is worth reading again."""
        return 0.0 if self._bytes is None else self._bytes.wait()
