"""The router table: which of an entry point's routers takes a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from trio_wsb.routing.request import RequestView
from trio_wsb.routing.rules import Rule

T = TypeVar("T")


class RouterTable(Generic[T]):
    """Routers in the order in which they are asked; immutable.

    The higher priority comes first; 0 means the length of the rule, and a negative one comes after all others.
    Among equals the name decides, in code point order, so that the order in which a configuration lists its routers
    never does.
    """

    __slots__ = ("_routers",)

    def __init__(self, routers: Iterable[tuple[str, Rule, int, T]]) -> None:
        ordered = sorted(routers, key=lambda router: (-(router[2] or router[1].default_priority), router[0]))
        self._routers = tuple((rule.matches, (name, target)) for name, rule, _, target in ordered)

    def find(self, request: RequestView) -> tuple[str, T] | None:
        """Return the name and the target of the first router whose rule takes `request`, or None."""
        for matches, found in self._routers:
            if matches(request):
                return found
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the routers in the order in which they are asked."""
        return tuple(name for _, (name, _) in self._routers)

    def __len__(self) -> int:
        return len(self._routers)
