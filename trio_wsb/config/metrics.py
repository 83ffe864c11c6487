"""Metrics: who may scrape them where, and what they have."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from attrs import frozen

from trio_wsb.config.options import option
from trio_wsb.middleware.options import Bound
from trio_wsb.units import Duration

DEFAULT_BUCKETS: Final = tuple(map(Duration, (0.005, 0.01, 0.025, 0.05, 0.1, 0.3, 1.2, 5.0)))
"""Seconds that requests and handshakes take. The last four are Traefik's, so that its queries find theirs."""

DEFAULT_SESSION_BUCKETS: Final = tuple(
    map(Duration, (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0, 43200.0, 86400.0))
)
"""Seconds that sessions live."""

_MOST: Final = 64

BUCKETS: Final = Bound(
    f"1 to {_MOST}, ascending, above 0",
    lambda bounds: (
        0 < len(bounds) <= _MOST and bounds[0] > 0 and all(low < high for low, high in pairwise(bounds))
    ),
    "is not one of ascending times above 0",
    f"write 1 to {_MOST} times above 0, each longer than the one before it, such as [0.1, 0.3, 1.2, 5.0]",
)


@frozen
class Prometheus:
    """What Prometheus scrapes at /metrics."""

    entry_point: str | None = option("The entry point that answers /metrics; without it `admin`.", None)
    manual_routing: bool = option(
        "Do not answer /metrics by ourselves: a router leads to the service `prometheus@internal`.",
        default=False,
    )
    buckets: tuple[Duration, ...] = option(
        "Upper bounds of the ranges in which the times of requests and handshakes are counted. "
        "A change begins these histograms anew.",
        DEFAULT_BUCKETS,
        check=BUCKETS,
    )
    session_buckets: tuple[Duration, ...] = option(
        "The same for how long sessions live.", DEFAULT_SESSION_BUCKETS, check=BUCKETS
    )
    add_entry_points_labels: bool = option("Metrics of each entry point.", default=True)
    add_routers_labels: bool = option("Metrics of each router.", default=False)
    add_services_labels: bool = option("Metrics of each service and of its backends.", default=True)
    traefik_names: bool = option(
        "Traefik's metrics under Traefik's names beside ours, for the dashboards that ask for them.",
        default=False,
    )


@frozen
class Metrics:
    """Figures for monitoring."""

    prometheus: Prometheus = option("What Prometheus scrapes.", Prometheus())
    add_internals: bool = option(
        "Count requests for the balancer's own pages too, such as /ping and /metrics.", default=False
    )
