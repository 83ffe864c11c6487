"""A table of hosts: what belongs to a name or, with a wildcard, to every name one label below another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

_WILDCARD = "*."


class HostTable(Generic[T]):
    """Values by host; immutable. Of two entries for a host the first one counts.

    Hosts are in the form of `trio_wsb.routing.request.normal_host`, a wildcard is ``*.`` and a name. A name of its own
    goes before a wildcard, which stands for exactly one label (RFC 6125 section 6.4.3).
    """

    __slots__ = ("_values",)

    def __init__(self, entries: Iterable[tuple[str, T]] = ()) -> None:
        self._values: dict[str, T] = {}
        for host, value in entries:
            self._values.setdefault(host, value)

    def find(self, host: str) -> T | None:
        """Return the value for `host`, or None."""
        found = self._values.get(host)
        if found is None:
            label, dot, parent = host.partition(".")
            if label and dot and parent:
                return self._values.get(_WILDCARD + parent)
        return found

    def below(self, wildcard: str) -> list[T]:
        """Return the values of the names that `wildcard` stands for, its own among them."""
        parent = wildcard.removeprefix(_WILDCARD)
        return [
            value
            for host, value in self._values.items()
            if host == wildcard or host.partition(".")[2] == parent
        ]

    def __len__(self) -> int:
        return len(self._values)
