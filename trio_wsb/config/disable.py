"""Routers that cannot run, and the configuration without them.

A router whose rule is none, or that leads, over however many steps, to something that nothing defines, is disabled, and
the others run; so is one whose middleware cannot be used, since without it the router would let through what it was meant
to hold back. Anything else that is wrong is wrong with the file as a whole.

    serversTransport <- service <- service <- router      a reference, seen from what it names; what is wrong
                   middleware <- chain    <- router       spreads along the arrows
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from attrs import evolve, frozen

from trio_wsb.config.model import HTTP, Config, Router
from trio_wsb.config.problems import Problem, printable

Element: TypeAlias = tuple[str, str]
"""A section of `http` and a name in it."""

_Reasons: TypeAlias = dict[Element, list[Problem]]
_Named = TypeVar("_Named")

_DISABLING: Mapping[str, frozenset[str]] = {
    "routers": frozenset({"rule", "reference", "value"}),
    "services": frozenset({"reference", "cycle"}),
    "middlewares": frozenset({"reference", "cycle", "value", "empty"}),
}
"""Codes of the problems that take a part out of service rather than the whole file."""


@frozen
class DisabledRouter:
    """A router that does not run; `reasons` are lines, ready to be shown. `router` is None if even its text is unusable."""

    name: str
    reasons: tuple[str, ...]
    router: Router | None = None

    def __str__(self) -> str:
        return f'router "{printable(self.name)}" is disabled: {"; ".join(self.reasons)}'


@frozen
class Usable:
    """What is left to run with, and what is said of the rest.

    `warnings` are the problems that the reasons of no disabled router have.
    """

    config: Config
    disabled: tuple[DisabledRouter, ...]
    warnings: tuple[Problem, ...]


def is_fatal(problem: Problem) -> bool:
    """Whether nothing at all may run with `problem`."""
    return problem.severity == "error" and _element(problem) is None


def usable(config: Config, problems: Iterable[Problem]) -> Usable:
    """Return `config` without what its problems make unusable.

    Args:
      config: what fits the model, after the check between its parts.
      problems: of the whole file; none of them is fatal.

    """
    problems = tuple(problems)
    http = _on_known_entry_points(config)
    reasons = _reasons(http, problems)
    disabled = {name: why for (section, name), why in reasons.items() if section == "routers"}
    told = {id(problem) for why in disabled.values() for problem in why}
    left = HTTP(
        routers=_without(http.routers, "routers", reasons),
        services=_without(http.services, "services", reasons),
        middlewares=_without(http.middlewares, "middlewares", reasons),
        servers_transports=http.servers_transports,
    )
    return Usable(
        evolve(config, http=left),
        tuple(
            DisabledRouter(name, tuple(map(str, why)), config.http.routers.get(name))
            for name, why in sorted(disabled.items())
        ),
        tuple(problem for problem in problems if id(problem) not in told),
    )


def _element(problem: Problem) -> Element | None:
    """Return what `problem` takes out of service, or None."""
    match problem.path:
        case ("http", str(section), str(name), *_) if problem.code in _DISABLING.get(section, ()):
            return (section, name)
    return None


def _on_known_entry_points(config: Config) -> HTTP:
    """Return `http` with each router on those of its entry points that there are, as long as there is one."""
    routers = dict(config.http.routers)
    for name, router in routers.items():
        known = tuple(each for each in router.entry_points if each in config.entry_points)
        # One that is left with none must not come to stand for every entry point.
        if known and known != router.entry_points:
            routers[name] = evolve(router, entry_points=known)
    return evolve(config.http, routers=routers)


def _reasons(http: HTTP, problems: Iterable[Problem]) -> _Reasons:
    """Return what cannot be used, and why."""
    reasons: _Reasons = {}
    for problem in problems:
        element = _element(problem)
        if element is not None and not _spares(problem, http):
            reasons.setdefault(element, []).append(problem)
    users = _users(http)
    waiting = deque(reasons)
    while waiting:
        element = waiting.popleft()
        for user in users.get(element, ()):
            if user not in reasons:
                waiting.append(user)
            known = reasons.setdefault(user, [])
            known += [each for each in reasons[element] if each not in known]
    return reasons


def _spares(problem: Problem, http: HTTP) -> bool:
    """Whether `problem` is an entry point that a router can do without."""
    match problem.path:
        case ("http", "routers", str(name), "entryPoints", _):
            router = http.routers.get(name)
            # The first is known if any is, since then only those are left.
            return (
                router is not None
                and bool(router.entry_points)
                and problem.code == "reference"
                and _runs(router)
            )
    return False
