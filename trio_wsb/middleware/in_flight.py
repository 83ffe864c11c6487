"""inFlightReq: how many requests of a source are served at the same time; a session counts as long as it lives."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from trio_wsb.middleware.exchange import Answer
from trio_wsb.middleware.options import MANY, OptionProblem, between, option
from trio_wsb.middleware.source import REQUEST_HOST, SourceCriterionOptions


@frozen
class InFlightReqOptions:
    """How many requests and sessions a source may have at the same time."""

    amount: int = option(
        "Requests and sessions of a source at the same time; 0 refuses all.", check=between(0, MANY)
    )
    source_criterion: SourceCriterionOptions = option(
        "What makes requests come from the same source; the host that is asked for unless given.",
        REQUEST_HOST,
    )

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        for each in self.source_criterion.problems():
            yield OptionProblem(("source_criterion", *each.path), each.message, each.hint, each.severity)


class InFlightLimiter:
    """Who is being served.

    Resource handling: a source is kept as long as it has something in flight, so memory is bounded by connections. Who
    acquires must release, whatever becomes of the request.
    """

    __slots__ = ("_held", "amount")

    def __init__(self, amount: int) -> None:
        self.amount = amount
        """The limit, which a reload may change; what is over a smaller one stays."""
        self._held: dict[str, int] = {}

    def acquire(self, key: str) -> bool:
        """Whether one more of the source `key` is within the limit; it counts from now on if so."""
        held = self._held.get(key, 0)
        if held >= self.amount:
            return False
        self._held[key] = held + 1
        return True

    def release(self, key: str) -> None:
        """Give back what was acquired for `key`."""
        held = self._held[key] - 1
        if held:
            self._held[key] = held
        else:
            del self._held[key]

    def held(self, key: str) -> int:
        """Return how many of the source `key` are in flight."""
        return self._held.get(key, 0)

    @property
    def total(self) -> int:
        """How many are in flight, of all sources."""
        return sum(self._held.values())

    def refusal(self) -> Answer:
        """Return the answer to one too many."""
        text = f"max connections reached: {self.amount}"
        return Answer(429, "too many requests in flight from this source", body=text.encode())
