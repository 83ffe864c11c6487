"""Routers that cannot run, and the configuration without them.

A router whose rule is none, or that leads, over however many steps, to something that nothing defines, is disabled, and
the others run; so is one whose middleware cannot be used, since without it the router would let through what it was meant
to hold back. Anything else that is wrong is wrong with the file as a whole.

    service    -> weighted, mirroring, failover -> router      what is wrong with the first
    middleware -> chain                         -> router      is wrong with all that name it
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar

from attrs import evolve, frozen

from trio_wsb.config.model import HTTP, Config, Router
from trio_wsb.config.problems import Problem, printable
from trio_wsb.config.servicetree import service_references

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
    """A router that does not run.

    `reasons` are lines, ready to be shown; `router` is what the file says of it, None where its rule is unusable.
    """

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
    http = config.http
    reasons = _reasons(config, problems)
    disabled = {name: why for (section, name), why in reasons.items() if section == "routers"}
    told = {id(problem) for why in disabled.values() for problem in why}
    left = HTTP(
        routers=_without(_on_known_entry_points(config), "routers", reasons),
        services=_without(http.services, "services", reasons),
        middlewares=_without(http.middlewares, "middlewares", reasons),
        servers_transports=http.servers_transports,
    )
    return Usable(
        evolve(config, http=left),
        tuple(
            DisabledRouter(name, tuple(map(str, why)), http.routers.get(name))
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


def _on_known_entry_points(config: Config) -> dict[str, Router]:
    """Return the routers, each on those of its entry points that there are, as long as there is one."""
    routers = dict(config.http.routers)
    for name, router in routers.items():
        known = tuple(each for each in router.entry_points if each in config.entry_points)
        # One that is left with none must not come to stand for every entry point.
        if known and known != router.entry_points:
            routers[name] = evolve(router, entry_points=known)
    return routers


def _reasons(config: Config, problems: Iterable[Problem]) -> _Reasons:
    """Return what cannot be used, and why."""
    reasons: _Reasons = {}
    for problem in problems:
        element = _element(problem)
        if element is not None and not _can_do_without(config, problem):
            reasons.setdefault(element, []).append(problem)
    users = _users(config.http)
    waiting = deque(reasons)
    while waiting:
        element = waiting.popleft()
        for user in users.get(element, ()):
            if user not in reasons:
                waiting.append(user)
            known = reasons.setdefault(user, [])
            known += [each for each in reasons[element] if each not in known]
    return reasons


def _can_do_without(config: Config, problem: Problem) -> bool:
    """Whether `problem` is that an entry point is missing, and the router has another one."""
    match problem.path:
        case ("http", "routers", str(name), "entryPoints", _):
            router = config.http.routers.get(name)
            return router is not None and not config.entry_points.keys().isdisjoint(router.entry_points)
    return False


def _users(http: HTTP) -> dict[Element, list[Element]]:
    """Return for each part that others name who these are."""
    users: dict[Element, list[Element]] = {}
    for used, user in _uses(http):
        users.setdefault(used, []).append(user)
    return users


def _uses(http: HTTP) -> Iterator[tuple[Element, Element]]:
    for name, service in http.services.items():
        for part, _ in service_references(service, ()):
            yield ("services", part), ("services", name)
    for name, middleware in http.middlewares.items():
        if middleware.chain is not None:
            for part in middleware.chain.middlewares:
                yield ("middlewares", part), ("middlewares", name)
    for name, router in http.routers.items():
        yield ("services", router.service), ("routers", name)
        for part in router.middlewares:
            yield ("middlewares", part), ("routers", name)


def _without(defined: Mapping[str, _Named], section: str, reasons: _Reasons) -> dict[str, _Named]:
    return {name: each for name, each in defined.items() if (section, name) not in reasons}
