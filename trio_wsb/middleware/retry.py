"""retry: how often, and after what pauses, another backend is tried while none has got the request."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from attrs import frozen

from trio_wsb.middleware.options import Bound, OptionProblem, between, option
from trio_wsb.units import Duration

MAX_ATTEMPTS: Final = 100

_SPREAD: Final = 0.5
"""Each pause is varied by up to this part of it, so that clients that failed together do not come back together."""

_A_MINUTE: Final = Duration(60.0)

_FACTOR: Final = Bound(
    "1 or more", lambda value: value is None or value >= 1, "is less than 1", "write a factor such as 2"
)


@frozen
class RetryOptions:
    """How a request is tried again."""

    attempts: int = option("Tries in all, the first one included.", check=between(1, MAX_ATTEMPTS))
    initial_interval: Duration = option(
        "The first pause; 0 is none, and none between later tries.", Duration(0.0)
    )
    max_interval: Duration | None = option(
        "The longest pause; unless given twice the first, or a minute beside `multiplier`.", None
    )
    multiplier: float | None = option(
        "What each pause is longer by than the one before; such that the last is twice the first unless given.",
        None,
        check=_FACTOR,
    )

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        if self.max_interval is not None and self.max_interval < self.initial_interval:
            yield OptionProblem(
                ("max_interval",), "is shorter than initialInterval", "write at least as much"
            )
        if not self.initial_interval:
            for name in ("max_interval", "multiplier"):
                if getattr(self, name) is not None:
                    message = "has no effect without initialInterval"
                    yield OptionProblem((name,), message, 'write initialInterval, such as "100ms"', "warning")


def pauses(options: RetryOptions, rng: Random) -> Iterator[float]:
    """Yield the seconds to wait before the second try and each that follows; ends when there is none left."""
    tries = options.attempts
    first = options.initial_interval
    # Traefik's choice: from the first interval to twice that in the number of pauses that there are.
    factor = options.multiplier or 2 ** (1 / max(1, tries - 1))
    longest = options.max_interval
    if longest is None:
        longest = Duration(2 * first) if options.multiplier is None else _A_MINUTE
    pause = first
    for _ in range(tries - 1):
        yield min(pause, longest) * rng.uniform(1 - _SPREAD, 1 + _SPREAD)
        pause = Duration(min(pause * factor, longest))
