"""Ports for what a test is about to start, so that nobody else has them by then.

Port 0 is better wherever the program says which port it got. Where a configuration must name one beforehand, a port that is
free *now* is not enough: the system gives the ports of its own range to outgoing connections at any moment, and other
workers of the same run look for ports too. So these are taken below that range, each once, and each worker has its share.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator
from itertools import cycle
from typing import Final

ALL: Final = range(10_000, 18_000)
"""Below the system's own (ip_local_port_range in ip(7)) and below those that `trio-wsb demo` takes."""

SHARES: Final = 16
"""Workers that have ports of their own; more than that, and two have the same."""


def share(worker: str) -> range:
    """Return the ports of a worker, which pytest-xdist calls gw0, gw1 and so on; without it there is one, called anything."""
    index = int(worker.removeprefix("gw")) if worker.startswith("gw") else 0
    size = len(ALL) // SHARES
    start = ALL.start + index % SHARES * size
    return range(start, start + size)


def _in_turn(ports: range) -> Iterator[int]:
    # Another run on the same machine begins somewhere else.
    begin = random.SystemRandom().randrange(len(ports))
    return cycle([*ports[begin:], *ports[:begin]])


_NEXT: Final = _in_turn(share(os.environ.get("PYTEST_XDIST_WORKER", "")))


def free_port() -> int:
    """Return a port of loopback that nobody uses, and that nobody else of this run is given."""
    for port in _NEXT:
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
    raise AssertionError("a cycle has no end")
