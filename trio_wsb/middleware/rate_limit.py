"""rateLimit: a token bucket for each source.

A bucket holds at most `burst` tokens and gains ``average / period`` a second. A request takes one. One that finds less
than a whole token waits for the rest if that comes soon, within half the time that a token takes and at most half a
second, and is refused otherwise.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, TypeAlias

from attrs import frozen

from trio_wsb.middleware.exchange import Answer
from trio_wsb.middleware.options import MANY, POSITIVE, OptionProblem, between, option
from trio_wsb.middleware.source import PEER_ADDRESS, SourceCriterionOptions
from trio_wsb.units import Duration

MAX_SOURCES: Final = 65536
"""Buckets that are kept. One more displaces the one that was asked longest ago, whose source then has a full one again."""

MAX_WAIT: Final = 0.5
"""Seconds that a request may be held back."""


@frozen
class RateLimitOptions:
    """How many requests a source may make."""

    average: int = option(
        "Requests in each `period` for each source; 0 is no limit.", 0, check=between(0, MANY)
    )
    period: Duration = option("What `average` is counted over.", Duration(1.0), check=POSITIVE)
    burst: int = option("Requests that may come at once after a pause; 0 means 1.", 1, check=between(0, MANY))
    source_criterion: SourceCriterionOptions = option(
        "What makes requests come from the same source; the address of the peer unless given.", PEER_ADDRESS
    )

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        for each in self.source_criterion.problems():
            yield OptionProblem(("source_criterion", *each.path), each.message, each.hint, each.severity)


@frozen
class Admit:
    """The request may go on."""


@frozen
class Wait:
    """The request may go on after `seconds`. Its token is spent already, whether the client waits for it or leaves."""

    seconds: float


@frozen
class Reject:
    """The request is refused; `retry_after` is the number of seconds until there would be a token for it."""

    retry_after: float

    def answer(self) -> Answer:
        """Return the answer to the client."""
        return Answer(
            429,
            "too many requests from this source",
            (
                ("Retry-After", str(math.ceil(self.retry_after))),
                ("X-Retry-In", go_duration(self.retry_after)),
            ),
            b"Too Many Requests",
        )


Verdict: TypeAlias = Admit | Wait | Reject

_ADMIT: Final = Admit()


class RateLimiter:
    """The buckets of one rateLimit.

    Resource handling: at most `max_sources` buckets of about 200 bytes; none is ever filled by a timer.
    """

    __slots__ = ("_buckets", "_burst", "_max_sources", "_max_wait", "_rate")

    def __init__(self, options: RateLimitOptions, *, max_sources: int = MAX_SOURCES) -> None:
        self._rate = options.average / options.period
        self._burst = float(max(1, options.burst))
        self._max_wait = min(MAX_WAIT, 1 / (2 * self._rate)) if self._rate else 0.0
        self._max_sources = max_sources
        # Tokens, and when they were counted. A list, since a bucket is written at each request.
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()

    def take(self, key: str, now: float) -> Verdict:
        """Take a token of the source `key` at `now`, in seconds.

        The clock may stand still but should not go back; if it does, nothing is gained meanwhile.
        """
        if not self._rate:
            return _ADMIT
        bucket = self._buckets.get(key)
        if bucket is None:
            tokens = self._burst
            if len(self._buckets) >= self._max_sources:
                self._buckets.popitem(last=False)
            self._buckets[key] = bucket = [tokens, now]
        else:
            self._buckets.move_to_end(key)
            tokens, counted = bucket
            tokens = min(self._burst, tokens + max(0.0, now - counted) * self._rate)
        bucket[1] = now
        if tokens >= 1.0:
            bucket[0] = tokens - 1.0
            return _ADMIT
        missing = (1.0 - tokens) / self._rate
        if missing > self._max_wait:
            bucket[0] = tokens
            return Reject(missing)
        # Less than none: who comes next waits for this token too.
        bucket[0] = tokens - 1.0
        return Wait(missing)

    @property
    def sources(self) -> int:
        """How many sources have a bucket."""
        return len(self._buckets)


def go_duration(seconds: float) -> str:
    """Return `seconds` in Go's notation, which X-Retry-In is written in: ``1m30.5s``, ``395.04222ms``, ``0s``.

    Microseconds are ``us``, which Go reads as well as its own sign, and which needs no character beyond ASCII.
    """
    nanoseconds = round(seconds * 1e9)
    if nanoseconds < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("us", 1_000), ("ns", 1)):
            if nanoseconds >= size:
                return f"{_decimal(nanoseconds, size)}{unit}"
        return "0s"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    prefix = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{prefix}{_decimal(rest, 1_000_000_000)}s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(rest).zfill(len(str(unit)) - 1).rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
