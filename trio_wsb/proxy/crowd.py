"""How much of an entry point one client address takes: connections at all, and those that have yet to ask for something.

A stranger with one machine opens thousands of connections and drips a byte into each (slowloris). Deadlines bound the time of
each of them; what bounds their number is here. Whoever speaks for many is exempt: proxies that are trusted, programs of
this host, Unix sockets.

An IPv6 client has a whole /64, so that is what counts as one address (RFC 6177 section 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trio_wsb.addresses import IPAddress
from trio_wsb.proxy.refusals import Refusals

if TYPE_CHECKING:
    from trio_wsb.proxy.runtime import EntryPointRuntime

_INTERFACE_BITS: Final = 64

_Key = tuple[str, int, int]


class Crowd(Refusals):
    """The connections of each address by entry point, and those over a cap; survives reloads. Empty when nobody is connected."""

    def __init__(self) -> None:
        super().__init__()
        self.answering = 0
        """Refused connections that are being told so."""
        self._open: dict[_Key, int] = {}
        self._waiting: dict[_Key, int] = {}

    def __len__(self) -> int:
        return len(self._open.keys() | self._waiting.keys())

    def visit(self, entry: EntryPointRuntime, address: IPAddress | None) -> Visit | None:
        """Let a connection of `address` in, which waits for its first request; None when that is one too many.

        The caller ends the visit.
        """
        key = _key(entry, address)
        if key is None:
            return Visit(self, None, 0)
        most = entry.connections_per_address
        if most:
            if self._open.get(key, 0) >= most:
                return None
            self._open[key] = self._open.get(key, 0) + 1
        visit = Visit(self, key, entry.pending_per_address, counted=bool(most))
        if visit.wait():
            return visit
        visit.end()
        return None


class Visit:
    """What one connection takes of its address's share. Made by `Crowd.visit`; `end` gives everything back, once."""

    __slots__ = ("_counted", "_crowd", "_key", "_most", "_waits")

    def __init__(self, crowd: Crowd, key: _Key | None, most: int, *, counted: bool = False) -> None:
        self._crowd = crowd
        self._key = key
        self._most = most
        self._counted = counted
        self._waits = False

    @property
    def lasts(self) -> bool:
        """Whether there is anything to give back at its end."""
        return self._key is not None and (self._counted or self._waits)

    def wait(self) -> bool:
        """From now on it waits for a request; False if too many of its address do, and then it does not count as one."""
        key, waiting = self._key, self._crowd._waiting  # noqa: SLF001 - two parts of one thing
        if key is None or not self._most or self._waits:
            return True
        if waiting.get(key, 0) >= self._most:
            return False
        waiting[key] = waiting.get(key, 0) + 1
        self._waits = True
        return True

    def asked(self) -> None:
        """Take note that a whole request head has come."""
        if self._waits and self._key is not None:
            self._waits = False
            _take(self._crowd._waiting, self._key)  # noqa: SLF001

    def end(self) -> None:
        """Give everything back; again is allowed."""
        self.asked()
        if self._counted and self._key is not None:
            self._counted = False
            _take(self._crowd._open, self._key)  # noqa: SLF001


def _take(counts: dict[_Key, int], key: _Key) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]


def _key(entry: EntryPointRuntime, address: IPAddress | None) -> _Key | None:
    """Return what `address` is counted by, None for one that is exempt."""
    if address is None or address.is_loopback or entry.policy.trusts(address):
        return None
    if entry.proxy_protocol is not None and entry.proxy_protocol.trusts(address):
        return None
    number = int(address)
    return entry.name, address.version, number if address.version == 4 else number >> _INTERFACE_BITS
