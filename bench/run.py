"""One run of the bench: rounds over scenarios and peers, in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from attrs import frozen

from bench.native import LoadGenerator, backends
from bench.peer import Direct, Peer
from bench.peers import TrioWsb
from bench.processes import raise_descriptor_limit
from bench.report import Sample
from bench.scenarios import PROBES, SESSIONS, WARM_SESSIONS, Bench, Scenario

BACKENDS = 3

SPARE_DESCRIPTORS = 1024
"""For what a process has open besides its sessions."""

FOLLOWED = frozenset({"echo-64-20", "echo-64k-20", "rate-64"})
"""The scenarios that show what following frames costs."""

HELD = 5000
"""Sessions of the scenarios that hold many, for which the targets are meant."""


@frozen
class Options:
    """What a run measures, and for how long."""

    rounds: int = 3
    seconds: float = 1.0
    held: int = HELD

    @classmethod
    def full(cls) -> Options:
        """Return those of a run that takes its time."""
        return cls(rounds=5, seconds=3.0)


@contextmanager
def prepared(options: Options) -> Iterator[Bench]:
    """Build the programs, make room for the sessions and run the backends until the block ends.

    Raises:
      BenchError: something is missing or does not start.

    """
    # A proxy holds two descriptors for each session, and more than either of its sides.
    most = max(*SESSIONS, options.held + max(PROBES, WARM_SESSIONS))
    raise_descriptor_limit(2 * most + SPARE_DESCRIPTORS)
    clients = LoadGenerator()
    with backends(BACKENDS) as servers:
        yield Bench(servers, clients, options.seconds, options.held)


def visits(
    scenarios: Sequence[Scenario], peers: Sequence[Peer], rounds: int
) -> Iterator[tuple[int, Scenario, Peer]]:
    """Who is measured when: every other round backwards, so that no peer always follows the same one."""
    for number in range(rounds):
        for scenario in scenarios:
            if number and scenario.once:
                continue
            taking_part = [peer for peer in peers if _takes_part(peer, scenario)]
            for peer in taking_part if number % 2 == 0 else reversed(taking_part):
                yield number, scenario, peer


def _takes_part(peer: Peer, scenario: Scenario) -> bool:
    if isinstance(peer, TrioWsb) and peer.routed:
        return scenario.name == "handshakes"
    if isinstance(peer, TrioWsb) and peer.blind:
        return scenario.name in FOLLOWED
    return scenario.direct or not isinstance(peer, Direct)


def measure(
    bench: Bench,
    scenarios: Sequence[Scenario],
    peers: Sequence[Peer],
    rounds: int,
    tell: Callable[[Sample], None],
) -> list[Sample]:
    """Measure everything in `visits`, and tell of each sample as soon as it is there.

    Raises:
      BenchError: a measurement went wrong; its round, scenario and peer are in the notes.

    """
    samples = []
    for number, scenario, peer in visits(scenarios, peers, rounds):
        try:
            figures = scenario.measure(bench, peer)
            bench.backends.wait_until_quiet()
        except Exception as error:
            error.add_note(f"in round {number + 1}, scenario {scenario.name}, peer {peer.name}")
            raise
        if figures:
            samples.append(Sample(scenario.name, peer.name, number + 1, figures))
            tell(samples[-1])
    return samples
