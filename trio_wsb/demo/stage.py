"""The demo's plan and arithmetic: who starts when, what the configuration says, how far counts are apart."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence

import yaml
from attrs import frozen

CACHE_TTL = 2.0
"""How often the balancer asks each backend in the demo, in seconds."""

FIRST_WAVE = 0.6
"""Part of the clients that connect while there are three backends."""

PORTS = range(18_000, 32_000)
"""Where free ports are looked for: below those that the system gives to outgoing connections."""


@frozen
class DemoOptions:
    """What the user chose. Times are seconds."""

    clients: int = 300
    duration: float = 20.0


@frozen
class Plan:
    """What happens in a demo. Times are seconds from the first client."""

    foreign: tuple[int, ...]
    """The connections that each of the first backends has already, from elsewhere."""
    first_wave: int
    second_wave: int
    rate: float
    """Clients that connect per second, in either wave."""
    scale_out: float
    """When the fourth backend starts."""
    end: float


def make_plan(options: DemoOptions) -> Plan:
    """Return the plan for that many clients in that time.

    The backends begin with 0, 1/6 and 1/3 as many foreign connections as there will be clients. The first wave
    levels that out with room to spare, and the second is a little more than the fourth backend takes to
    come level with the others, so that in the end each of them should have the same.
    """
    first = round(options.clients * FIRST_WAVE)
    foreign = (0, options.clients // 6, options.clients // 3)
    ramp = max(0.2 * options.duration, 0.1)
    return Plan(
        foreign=foreign,
        first_wave=first,
        second_wave=options.clients - first,
        rate=first / ramp,
        scale_out=0.4 * options.duration,
        end=options.duration,
    )


@frozen
class Reading:
    """What one backend said last."""

    name: str
    foreign: int
    reported: int | None
    """As ``/metric`` has it, or None before the first answer."""

    @property
    def total(self) -> int:
        """All its connections."""
        return self.foreign if self.reported is None else self.reported

    @property
    def live(self) -> int:
        """Its sessions that came through the balancer."""
        return max(0, self.total - self.foreign)


def spread(readings: Sequence[Reading]) -> int:
    """Return how far the totals are apart: the largest less the smallest."""
    totals = [reading.total for reading in readings]
    return max(totals) - min(totals) if totals else 0


def allowed_spread(readings: Sequence[Reading]) -> int:
    """Return up to which spread the demo passes: 2 connections, or 2 % of the mean where that is more."""
    mean = sum(reading.total for reading in readings) / max(1, len(readings))
    return max(2, round(0.02 * mean))


def configuration(port: int, admin_port: int, control: str, backends: Sequence[str]) -> str:
    """Return the daemon's configuration for `backends`, which are URLs; `control` is its control socket's path."""
    document = {
        "entryPoints": {
            "web": {"address": f"127.0.0.1:{port}"},
            "admin": {"address": f"127.0.0.1:{admin_port}"},
        },
        "control": {"socket": control},
        "wsbalancer": {
            "metricPath": "/metric",
            "pods": list(backends),
            "cacheTTL": f"{CACHE_TTL:g}s",
        },
    }
    return "# Written by trio-wsb demo.\n" + yaml.safe_dump(document, sort_keys=False)


def free_port(
    taken: Sequence[int] = (), choose: Callable[[range], int] = random.choice, attempts: int = 200
) -> int:
    """Return a loopback TCP port that nobody listens on, none of `taken`.

    Raises:
      OSError: none of the `attempts` ports tried was free.

    """
    for _ in range(attempts):
        port = choose(PORTS)
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"found no free port between {PORTS.start} and {PORTS.stop - 1}")
