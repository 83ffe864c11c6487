"""Routers that cannot run, and the configuration without them.

A router whose rule is none, or that leads, over however many steps, to something that nothing defines, is disabled, and
the others run; so is one whose middleware cannot be used, since without it the router would let through what it was meant
to hold back. Anything else that is wrong is wrong with the file as a whole.

    service    -> weighted, mirroring, failover -> router      what is wrong with the first
    middleware -> chain                         -> router      is wrong with all that name it
    middleware -> chain         -> entry point  -> router      no router is offered there, nor is anything redirected
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias, TypeVar

from attrs import evolve, frozen

from trio_wsb.config.internal import NOOP
from trio_wsb.config.model import HTTP, Config, Router
from trio_wsb.config.offered import places, redirection_name
from trio_wsb.config.problems import Problem, printable
from trio_wsb.config.servicetree import service_references

Element: TypeAlias = tuple[str, str]
"""A section of `http`, or `entryPoints`, and a name in it."""

_Reasons: TypeAlias = dict[Element, list[Problem]]
_Named = TypeVar("_Named")

ENTRY_POINTS: Final = "entryPoints"

_DISABLING: Mapping[str, frozenset[str]] = {
    "routers": frozenset({"rule", "reference", "value"}),
    "services": frozenset({"reference", "cycle"}),
    "middlewares": frozenset({"reference", "cycle", "value", "empty"}),
}
"""Codes of the problems that take a part out of service rather than the whole file."""


@frozen
class DisabledRouter:
    """A router that does not run.

    `reasons` are lines, ready to be shown; `router` is what the file says of it, None where its rule is unusable;
    `entry_points` are those that it is not offered on, none where it runs nowhere. `leads_to` is the service of one that has
    no `router`, where that is known at least.
    """

    name: str
    reasons: tuple[str, ...]
    router: Router | None = None
    entry_points: tuple[str, ...] = ()
    leads_to: str | None = None

    def __str__(self) -> str:
        names = ", ".join(f'"{printable(name)}"' for name in self.entry_points)
        where = f" on {names}" if names else ""
        return f'router "{printable(self.name)}" is disabled{where}: {"; ".join(self.reasons)}'


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
    # Of two parts with one name the first counts, and nothing else is wrong with that.
    return problem.severity == "error" and problem.code != "duplicate" and _element(problem) is None


def usable(config: Config, problems: Iterable[Problem]) -> Usable:
    """Return `config` without what its problems make unusable.

    Args:
      config: what fits the model, after the check between its parts.
      problems: of the whole file; none of them is fatal.

    """
    problems = tuple(problems)
    http = config.http
    reasons = _reasons(config, problems)
    routers = _without(_on_known_entry_points(config), "routers", reasons)
    disabled = {name: why for (section, name), why in reasons.items() if section == "routers"}
    found = [
        (DisabledRouter(name, (), http.routers.get(name)), why) for name, why in sorted(disabled.items())
    ]
    closed = {name: why for (section, name), why in reasons.items() if section == ENTRY_POINTS}
    if closed:
        found += _close(config, routers, closed)
    left = HTTP(
        routers=routers,
        services=_without(http.services, "services", reasons),
        middlewares=_without(http.middlewares, "middlewares", reasons),
        servers_transports=http.servers_transports,
    )
    told = {id(problem) for _, why in found for problem in why}
    return Usable(
        evolve(config, http=left),
        tuple(evolve(router, reasons=tuple(map(str, why))) for router, why in found),
        tuple(problem for problem in problems if id(problem) not in told),
    )


def _close(
    config: Config, routers: dict[str, Router], closed: Mapping[str, list[Problem]]
) -> Iterator[tuple[DisabledRouter, list[Problem]]]:
    """Take `routers` off the entry points whose middlewares cannot be used, and yield those that this concerns.

    What such an entry point redirects is no router of the file, and does not run there either.
    """
    for name, router in sorted(routers.items()):
        names = places(router, config.entry_points)
        shut = tuple(each for each in names if each in closed)
        if not shut:
            continue
        left = tuple(each for each in names if each not in closed)
        if left:
            routers[name] = evolve(router, entry_points=left)
        else:
            del routers[name]
        why = list({id(problem): problem for each in shut for problem in closed[each]}.values())
        yield DisabledRouter(name, (), router, shut if left else ()), why
    for name, problems in closed.items():
        target = config.entry_points[name].http.redirections.entry_point
        if target is not None:
            yield DisabledRouter(redirection_name(name, target), (), None, (name,), NOOP), problems


def _element(problem: Problem) -> Element | None:
    """Return what `problem` takes out of service, or None."""
    match problem.path:
        case ("http", str(section), str(name), *_) if problem.code in _DISABLING.get(section, ()):
            return (section, name)
        case ("entryPoints", str(name), "http", "middlewares", *_) if problem.code == "reference":
            return (ENTRY_POINTS, name)
        case ("entryPoints", str(name), "http", "tls", "options") if problem.code == "reference":
            return (ENTRY_POINTS, name)
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
    users = _users(config)
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


def _users(config: Config) -> dict[Element, list[Element]]:
    """Return for each part that others name who these are."""
    users: dict[Element, list[Element]] = {}
    for used, user in _uses(config):
        users.setdefault(used, []).append(user)
    return users


def _uses(config: Config) -> Iterator[tuple[Element, Element]]:
    http = config.http
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
    for name, entry in config.entry_points.items():
        for part in entry.http.middlewares:
            yield ("middlewares", part), (ENTRY_POINTS, name)


def _without(defined: Mapping[str, _Named], section: str, reasons: _Reasons) -> dict[str, _Named]:
    return {name: each for name, each in defined.items() if (section, name) not in reasons}
