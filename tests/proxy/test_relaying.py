"""Who moves a session's bytes, where that does not take a kernel to find out."""

from __future__ import annotations

from collections.abc import Callable

from trio_wsb.net.kernel.table import KernelTable
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.proxy.relaying import BUSY, MOST_WAITING, choose_relay


class Flood(SocketChannel):
    """A connection on which there is always more."""

    is_tcp = True

    def __init__(self) -> None:
        self.recv_into: Callable[..., int] = len


def test_too_much_waits_for_the_kernel_relay() -> None:
    table = KernelTable.__new__(KernelTable)  # which nobody asks
    relayed = choose_relay(table, "kernel", Flood(), Flood(), mirrored=False)
    assert (relayed.kind, relayed.reason) == ("stream", BUSY)
    assert len(relayed.client_early) == len(relayed.backend_early) == MOST_WAITING
