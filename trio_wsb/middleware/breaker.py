"""circuitBreaker: no more requests to a service that fails.

    closed ──expression holds──> open ──fallbackDuration──> recovering ──recoveryDuration──> closed
                                  ^                             │
                                  └──────expression holds───────┘

Closed, everything passes. Open, nothing does. Recovering, a request passes with a probability that grows linearly from 0
to 1, so that a service that just came back is not met by all at once.

A WebSocket is judged by its handshake: the time until the backend's answer and the status of that. A session's
lifetime says nothing about the health of a service.
"""

from __future__ import annotations

from enum import Enum
from random import Random

from attrs import frozen

from trio_wsb.middleware.exchange import Answer, status_text
from trio_wsb.middleware.expression import Expression
from trio_wsb.middleware.options import POSITIVE, STATUS, option
from trio_wsb.middleware.statistics import RollingFigures
from trio_wsb.units import Duration


@frozen
class CircuitBreakerOptions:
    """When requests are kept from a failing service, and for how long."""

    expression: Expression = option(
        "Condition that opens the circuit: NetworkErrorRatio(), ResponseCodeRatio(from, to, dividedByFrom, dividedByTo) and "
        "LatencyAtQuantileMS(50.0) of the last 10 s, compared with numbers and combined with `&&`, `||` and `!`."
    )
    check_period: Duration = option("Least time between two checks.", Duration(0.1), check=POSITIVE)
    fallback_duration: Duration = option(
        "How long the circuit stays open before it tries to recover.", Duration(10.0), check=POSITIVE
    )
    recovery_duration: Duration = option(
        "How long it takes until all requests pass again.", Duration(10.0), check=POSITIVE
    )
    response_code: int = option("Status for requests that do not pass.", 503, check=STATUS)


class State(Enum):
    """What a circuit breaker does with requests."""

    CLOSED = "closed"
    OPEN = "open"
    RECOVERING = "recovering"


@frozen
class Ticket:
    """Proof that a request passed; hand it in with its outcome."""

    period: int


class CircuitBreaker:
    """The state of one circuit breaker, at one router.

    Times are seconds of one monotonic clock. Whoever wants to log changes compares `state` before and after a call.
    """

    __slots__ = ("_figures", "_next_check", "_options", "_period", "_rng", "_until", "opened_total", "state")

    def __init__(self, options: CircuitBreakerOptions, rng: Random) -> None:
        self._options = options
        self._rng = rng
        self._figures = RollingFigures()
        self._next_check = float("-inf")
        self._until = 0.0
        self._period = 0
        self.state = State.CLOSED
        """As the last call found it; `state_at` says what it is now."""
        self.opened_total = 0
        """How often it has opened."""

    def admit(self, now: float) -> Ticket | None:
        """Return a ticket for a request that may pass, None for one to be answered with `refusal`."""
        self._advance(now)
        if self.state is State.OPEN:
            return None
        if self.state is State.RECOVERING and self._rng.random() >= self.passing(now):
            return None
        return Ticket(self._period)

    def record(
        self, ticket: Ticket, now: float, status: int, seconds: float, *, network_error: bool = False
    ) -> bool:
        """Note what became of a request that passed; return whether that opened the circuit.

        Args:
          ticket: what `admit` gave for it. If the circuit has opened or begun to recover since then, the outcome says
            nothing about the present and is not counted.
          now: when the final answer came.
          status: of the answer that the client gets: 101 for a session, 502 or 504 without a backend's answer.
          seconds: from the admission to the answer.
          network_error: no backend gave an answer.

        """
        self._advance(now)
        if ticket.period != self._period or self.state is State.OPEN:
            return False
        self._figures.record(now, status, seconds, network_error=network_error)
        if now < self._next_check:
            return False
        self._next_check = now + self._options.check_period
        if not self._options.expression.holds(self._figures.at(now)):
            return False
        self._enter(State.OPEN, now + self._options.fallback_duration)
        self.opened_total += 1
        return True

    def state_at(self, now: float) -> State:
        """Return the state at `now`."""
        self._advance(now)
        return self.state

    def figures_at(self, now: float) -> RollingFigures:
        """Return what it judges by at `now`, to be read at once."""
        return self._figures.at(now)

    def passing(self, now: float) -> float:
        """Return which part of the requests passes at `now`, from 0 to 1."""
        if self.state is State.CLOSED:
            return 1.0
        if self.state is State.OPEN:
            return 0.0
        return max(0.0, 1.0 - (self._until - now) / self._options.recovery_duration)

    def refusal(self) -> Answer:
        """Return the answer to a request that does not pass."""
        code = self._options.response_code
        return Answer(code, "the circuit breaker is open", body=status_text(code))

    def _advance(self, now: float) -> None:
        """Make the changes of state that time has brought by `now`."""
        # By the clock alone, not from the next request on: after a night without any, the first client of the morning
        # must not be the one that is turned away at the foot of the ramp.
        if self.state is State.OPEN and now >= self._until:
            self._enter(State.RECOVERING, self._until + self._options.recovery_duration)
        if self.state is State.RECOVERING and now >= self._until:
            # Figures and tickets stay valid: nothing has changed for the service.
            self.state = State.CLOSED

    def _enter(self, state: State, until: float) -> None:
        self.state = state
        self._until = until
        self._period += 1
        self._figures.clear()
        # The first outcome from now on that counts is looked at, whenever the last check was.
        self._next_check = float("-inf")
