"""One run of the bench: rounds over scenarios and peers, in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from attrs import frozen

from bench.native import LoadGenerator, backends
from bench.peers import Direct, Peer, TrioWsb
from bench.processes import raise_descriptor_limit
from bench.report import Sample
from bench.scenarios import WARM_SESSIONS, Bench, Scenario

BACKENDS = 3

SPARE_DESCRIPTORS = 1024
"""For what a process has open besides its sessions."""


@frozen
class Options:
    """What a run measures, and for how long."""

    rounds: int = 3
    seconds: float = 3.0
    sessions: int = 20
    size: int = 64
    idle: int = 2000

    @property
    def standard(self) -> bool:
        """Whether the targets apply: they are meant for the default sizes."""
        default = Options()
        return (self.sessions, self.size, self.idle) == (default.sessions, default.size, default.idle)


@contextmanager
def prepared(options: Options) -> Iterator[Bench]:
    """Build the programs, make room for the sessions and run the backends until the block ends.

    Raises:
      BenchError: something is missing or does not start.

    """
    # A proxy holds two descriptors for each session, and more than either of its sides.
    most = max(options.sessions, options.idle + WARM_SESSIONS)
    raise_descriptor_limit(2 * most + SPARE_DESCRIPTORS)
    clients = LoadGenerator()
    with backends(BACKENDS) as servers:
        yield Bench(servers, clients, options.sessions, options.size, options.seconds, options.idle)


def visits(
    scenarios: Sequence[Scenario], peers: Sequence[Peer], rounds: int
) -> Iterator[tuple[int, Scenario, Peer]]:
    """Who is measured when: every other round backwards, so that no peer always follows the same one."""
    for number in range(rounds):
        for scenario in scenarios:
            taking_part = [peer for peer in peers if _takes_part(peer, scenario)]
            for peer in taking_part if number % 2 == 0 else reversed(taking_part):
                yield number, scenario, peer


def _takes_part(peer: Peer, scenario: Scenario) -> bool:
    if isinstance(peer, TrioWsb) and peer.routed:
        return scenario.name == "handshakes"
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
        samples.append(Sample(scenario.name, peer.name, number + 1, figures))
        tell(samples[-1])
    return samples
