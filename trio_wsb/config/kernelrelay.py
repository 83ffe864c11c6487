"""What the configuration says of the relay in the kernel."""

from __future__ import annotations

from attrs import frozen

from trio_wsb.config.options import option
from trio_wsb.middleware.options import between
from trio_wsb.units import Size


@frozen
class KernelRelay:
    """The relay in the kernel, which every service uses whose `relay` lets it."""

    enabled: bool = option(
        "Load the program at the start if a service may use it and the host lets us; without it the daemon moves all bytes itself.",
        default=True,
        reload="restart",
    )
    sessions: int = option(
        "Sessions that there is room for, at two thirds of a kilobyte each; more are relayed by the daemon.",
        20000,
        reload="restart",
        check=between(1, 1_000_000),
    )
    in_flight: Size = option(
        "Bytes that may be under way in the kernel in each direction of a session, when its receiver is slow.",
        Size(1 << 20),
        reload="restart",
        check=between(1 << 16, 1 << 30),
    )
