"""The part of the configuration that says how sessions are moved away: draining and rebalancing."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from trio_wsb.config.options import option
from trio_wsb.middleware.options import Bound
from trio_wsb.units import Duration, Percent, Rate
from trio_wsb.websocket.closecodes import is_valid_close_code

OnRemove = Literal["keep", "drain"]

PACE = Bound(
    "1/h to 100000/s",
    lambda value: 1 / 3600 <= value <= 100_000,
    "is no pace that sessions can be ended at",
    'write a rate such as "50/s", from 1/h to 100000/s',
)
"""How quickly sessions are ended: 0 would be never."""

CLOSE_CODE = Bound(
    "a close code that may be sent",
    is_valid_close_code,
    "is not a close code that may be sent",
    "write 1001, 1012, or one from 3000 to 4999",
)
"""A code for a Close frame (RFC 6455 section 7.4)."""


@frozen
class Drain:
    """How the sessions of a server that is drained are ended; `trio-wsb drain` can say otherwise."""

    rate: Rate = option("Sessions told to go in a second, at jittered moments.", Rate(50.0), check=PACE)
    close_code: int = option("The code in their Close frame.", 1001, check=CLOSE_CODE)
    timeout: Duration = option(
        "Time for the whole; what is left is cut. Where the rate is too low for it, sessions go faster. 0 is no bound.",
        Duration(300.0),
    )


@frozen
class Rebalance:
    """Servers that have more than their share of the sessions shed some, so that a server that was added gets its share."""

    enabled: bool = option("Do it without being asked; `trio-wsb rebalance` does it once.", default=False)
    tolerance: Percent = option(
        "How far above its share a server must be before it sheds; it sheds down to the share.", Percent(0.2)
    )
    rate: Rate = option("Sessions of the service told to go in a second.", Rate(10.0), check=PACE)
    min_age: Duration = option("Only sessions that are older are moved.", Duration(60.0))
    close_code: int = option("The code in their Close frame.", 1012, check=CLOSE_CODE)
