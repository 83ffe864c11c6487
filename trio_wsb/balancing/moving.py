"""How the sessions of a service may be moved to other backends: the policies of draining and rebalancing."""

from __future__ import annotations

from attrs import frozen


@frozen
class DrainPolicy:
    """How the sessions of a backend that is taken away are ended.

    `rate` is in sessions per second. `timeout` is in seconds and bounds the whole; 0 is no bound.
    """

    rate: float = 50.0
    close_code: int = 1001
    timeout: float = 300.0


@frozen
class RebalancePolicy:
    """When backends with too many sessions shed some of them, and how.

    A backend sheds when it has more than its share by `tolerance` (a fraction), `rate` sessions per second in the whole
    service, none that is younger than `min_age` seconds.
    """

    enabled: bool = False
    tolerance: float = 0.2
    rate: float = 10.0
    min_age: float = 60.0
    close_code: int = 1012


@frozen
class Moving:
    """Both for one service.

    `drain_removed` says what becomes of the sessions of a backend that leaves the configuration. `report_interval` and
    `stale_after` are those of the service's reports, in seconds; 0 where there are none.
    """

    drain: DrainPolicy = DrainPolicy()
    drain_removed: bool = False
    rebalance: RebalancePolicy = RebalancePolicy()
    report_interval: float = 0.0
    stale_after: float = 0.0
    stays: str = ""
    """Why a client that is sent away comes back to the same backend, so that rebalancing is no use; "" if it does not."""
