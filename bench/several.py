"""Several balancers over the same backends, each by itself: ``python -m bench.several [docs/explanation]``.

Pools and count tables are those of the daemon; time is a number, so that five minutes take a second. Each balancer asks each backend at
times of its own, learns what it had a moment ago, and gets clients at random. Measured is how even the backends are, with what the daemon
does and with what it could do instead; the numbers and the picture of docs/explanation/several-balancers.md come from here.
"""

from __future__ import annotations

import heapq
import itertools
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from attrs import frozen

from bench.curves import Panel, picture
from bench.fleet import COUNT, REPORT_DELAY, Sample, Scenario
from trio_wsb.addresses import BackendURL, IPAddress
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.columns import Columns
from trio_wsb.balancing.counts import CountKey, CountTable
from trio_wsb.balancing.pool import Member, Pool
from trio_wsb.balancing.strategies import LeastConnections, Loads, TwoChoices

EVERY = 2.0
"""Seconds between two samples."""


@frozen
class Several:
    """What happens. Times are seconds.

    `loads` are the sessions of each backend at the beginning, opened through the balancers like all others; `direct` those of
    clients that come to it directly, and stay. Sessions end after `life` on average, 0 is never; `rate` are those that begin in a second, and `burst` begin
    within two seconds at the time `burst_at`.
    """

    balancers: int
    loads: tuple[int, ...]
    direct: tuple[int, ...] = ()
    interval: float = 30.0
    rate: float = 0.0
    life: float = 0.0
    burst: int = 0
    burst_at: float = 40.0
    duration: float = 300.0
    judged_from: float = 20.0
    seed: int = 1


class Deaf(Pool):
    """Believes that nobody but us does anything between two reports."""

    def _present(self) -> Columns:
        columns = super()._present()
        columns.echo = 0.0
        return columns


class NearEquals(LeastConnections):
    """Any of those that are within a tenth of the least."""

    memoryless = False

    def choose(self, loads: Loads, _client: IPAddress | None, /) -> int | None:
        """See `Strategy.choose`."""
        present = list(loads)
        enough = min(present) * 1.1
        return self._rng.choice([index for index, load in enumerate(present) if load <= enough])


Variant = Callable[[Sequence[Member], CountTable, Random], Pool]


def echoing(members: Sequence[Member], counts: CountTable, rng: Random) -> Pool:
    """Return what the daemon has."""
    return Pool(members, "leastconn", counts=counts, count=COUNT, rng=rng)


def plain(members: Sequence[Member], counts: CountTable, rng: Random) -> Pool:
    """Return least connections by what is known for certain."""
    return Deaf(members, "leastconn", counts=counts, count=COUNT, rng=rng)


def near_equals(members: Sequence[Member], counts: CountTable, rng: Random) -> Pool:
    """Return a random choice among near-equals."""
    pool = plain(members, counts, rng)
    pool.chooser = NearEquals(pool.chooser.names, [1] * len(members), rng)
    return pool


def two_choices(members: Sequence[Member], counts: CountTable, rng: Random) -> Pool:
    """Return the better of two at random."""
    pool = plain(members, counts, rng)
    pool.chooser = TwoChoices(pool.chooser.names, [1] * len(members), rng)
    return pool


VARIANTS: dict[str, Variant] = {
    "least connections, plain": plain,
    "at random among near-equals": near_equals,
    "the better of two at random": two_choices,
    "least connections with the echo": echoing,
}

CASES: dict[str, Several] = {
    "10 balancers, sessions come and go": Several(10, (300,) * 10, rate=25.0, life=120.0),
    "10 balancers, 2 of 10 backends are new": Several(10, (375,) * 8 + (0,) * 2, rate=25.0, life=120.0),
    "10 balancers, 1,000 clients at once, 1 of 10 is new": Several(
        10, (200,) * 9 + (0,), burst=1000, duration=60.0, judged_from=42.0
    ),
    "2 balancers, 2 of 10 backends are new": Several(2, (375,) * 8 + (0,) * 2, rate=25.0, life=120.0),
    "1 balancer": Several(1, (300,) * 10, rate=25.0, life=120.0),
    "1 balancer, others come directly, 900 at once": Several(
        1, (0, 0, 0), direct=(0, 100, 200), burst=900, duration=60.0, judged_from=42.0
    ),
}


class Balancers:
    """A case that runs; `run` it once."""

    def __init__(self, case: Several, variant: Variant) -> None:
        self.case = case
        self.samples: list[Sample] = []
        self._rng = Random(case.seed)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._loads = list(case.direct) or [0] * len(case.loads)
        urls = [
            BackendURL("http", f"10.0.{index >> 8}.{index & 255}", 80) for index in range(len(case.loads))
        ]
        self._balancers: list[tuple[list[Backend], CountTable, Pool]] = []
        for number in range(case.balancers):
            backends, counts = [Backend(url) for url in urls], CountTable()
            pool = variant([Member(each) for each in backends], counts, Random(case.seed * 1000 + number))
            self._balancers.append((backends, counts, pool))

    def run(self) -> list[Sample]:
        """Let it happen; return how loaded the backends were."""
        case = self.case
        for index, count in enumerate(case.loads):
            for number in range(count):
                self._open(self._balancers[number % case.balancers][0][index], index)
        for backends, counts, _ in self._balancers:
            for index, backend in enumerate(backends):
                self._ask(backend, counts, index, self._rng.random())
        for _ in range(case.burst):
            self._at(case.burst_at + self._rng.uniform(0.0, 2.0), self._arrive)
        if case.rate:
            self._at(1.0, self._arrive_and_on)
        looks = 0.0
        while self._events and self._events[0][0] < case.duration:
            when, _, happens = heapq.heappop(self._events)
            while looks <= when:
                self.samples.append(Sample(looks, list(self._loads), 0))
                looks += EVERY
            self._now = when
            happens()
        return self.samples

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happens))

    def _ask(self, backend: Backend, counts: CountTable, index: int, phase: float = 1.0) -> None:
        sample = counts.start(CountKey(backend.url, *COUNT), backend.live, self._now)
        reported = self._loads[index]

        def arrives() -> None:
            counts.finish(sample, reported, backend.live, backend.pending, self._now)

        self._at(self._now + REPORT_DELAY, arrives)
        pause = self.case.interval * self._rng.uniform(0.9, 1.1) * phase
        self._at(self._now + pause, lambda: self._ask(backend, counts, index))

    def _arrive_and_on(self) -> None:
        self._arrive()
        self._at(self._now + self._rng.expovariate(self.case.rate), self._arrive_and_on)

    def _arrive(self) -> None:
        backends, _, pool = self._rng.choice(self._balancers)
        backend = pool.choose(None, self._now)
        assert backend is not None
        self._open(backend, backends.index(backend))

    def _open(self, backend: Backend, index: int) -> None:
        backend.begin_handshake()
        backend.session_opened(self._now)
        self._loads[index] += 1
        if self.case.life:
            opened = self._now
            ends = opened + self._rng.expovariate(1 / self.case.life)
            self._at(ends, lambda: self._close(backend, index, opened))

    def _close(self, backend: Backend, index: int, opened: float) -> None:
        backend.session_ended(self._now, opened)
        self._loads[index] -= 1


@frozen
class Evenness:
    """How even the backends are: the standard deviation in parts of the mean, on average, and the highest peak."""

    deviation: float
    peak: float


def evenness(samples: Sequence[Sample], begin: float) -> Evenness:
    """Return it for the samples from `begin` on."""
    loads = [each.loads for each in samples if each.time >= begin]
    means = [statistics.mean(each) for each in loads]
    deviations = [statistics.pstdev(each) / mean for each, mean in zip(loads, means, strict=True)]
    return Evenness(
        statistics.mean(deviations), max(max(each) / mean for each, mean in zip(loads, means, strict=True))
    )


def main(arguments: Sequence[str]) -> None:
    """Print what was measured, as Markdown; draw the picture into the folder that is named."""
    print(f"| | {' | '.join(VARIANTS)} |")
    print(f"| --- |{' --- |' * len(VARIANTS)}")
    for title, case in CASES.items():
        found = [evenness(Balancers(case, each).run(), case.judged_from) for each in VARIANTS.values()]
        cells = " | ".join(f"{each.deviation:.1%}, {each.peak:.2f}" for each in found)
        print(f"| {title} | {cells} |")
    if arguments:
        title = "10 balancers, 2 of 10 backends are new"
        case = CASES[title]
        panels = []
        for name, variant in VARIANTS.items():
            if variant is not near_equals:
                panels.append((Panel(name, Scenario(case.loads), lines=True), Balancers(case, variant).run()))
        (Path(arguments[0]) / "several-balancers.svg").write_text(picture(panels), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
