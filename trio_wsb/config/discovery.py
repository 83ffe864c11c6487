"""What all containers give together: one contribution of the provider `docker`.

Containers that name the same service are its servers, and may each say a part of its options. Where two say different things
under one name, the container that was created first counts: while replicas are replaced one by one what is in force stays, the
new ones are servers already, and their words count once the last old one is gone. So nobody takes a guard from another
container's router either.

A container with an error gives nothing, and its routers are shown as disabled, unless others have them too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from attrs import evolve, field, frozen
from cattrs import BaseValidationError

from trio_wsb.config.containers import Container, Found
from trio_wsb.config.disable import DisabledRouter
from trio_wsb.config.docker import DockerProvider
from trio_wsb.config.document import Element
from trio_wsb.config.model import Config
from trio_wsb.config.problems import Finding, KeyPath, Problem
from trio_wsb.config.reading import (
    SECTIONS,
    Reading,
    Verdict,
    depends_on,
    join,
    read_container,
    source_of,
)
from trio_wsb.config.references import qualified, resolved
from trio_wsb.config.structure import WrongValue, findings, structure
from trio_wsb.config.validate import Names
from trio_wsb.config.yamltree import ListNode, MapNode

DOCKER: Final = "docker"
"""The provider's name, which stands behind the @ of its names."""

Refusals = Mapping[Container, Sequence[Problem]]
"""Containers that must not run as they are, and why."""


@frozen
class ContainerState:
    """How a container stands: `used`, `ignored` for a `reason`, or `bad` with its problems; `since` is in seconds since 1970."""

    id: str
    name: str
    verdict: Verdict
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    services: tuple[str, ...] = ()
    since: float = 0.0


@frozen(eq=False)
class Discovered:
    """What the containers of a moment give; a `Contribution`.

    `readings` are those of all containers, in the order in which they count; `disabled` the routers that are in none that is used.
    """

    found: Found
    options: DockerProvider
    readings: tuple[Reading, ...]
    states: tuple[ContainerState, ...]
    disabled: tuple[DisabledRouter, ...]
    config: Config
    problems: list[Problem]
    refused: Refusals
    _origins: Mapping[KeyPath, Reading] = field(factory=dict)

    @property
    def source(self) -> str:
        """The name of the provider."""
        return DOCKER

    @property
    def names(self) -> Names:
        """What references can lead to."""
        http = self.config.http
        return Names(
            services=frozenset(http.services),
            servers_transports=frozenset(http.servers_transports),
            middlewares=frozenset(http.middlewares),
        )

    @property
    def elements(self) -> frozenset[Element]:
        """What it defines."""
        http = self.config.http
        given = dict(
            zip(
                SECTIONS,
                (http.routers, http.services, http.middlewares, http.servers_transports),
                strict=True,
            )
        )
        return frozenset(("http", section, name) for section, names in given.items() for name in names)

    def placed(self, found: Iterable[Finding]) -> list[Problem]:
        """Return `found` as problems of the labels that they are about."""
        placed = []
        for finding in found:
            reading = self._origin(finding.path)
            if reading is None:
                placed.append(
                    Problem(
                        DOCKER,
                        0,
                        0,
                        "",
                        finding.message,
                        finding.hint,
                        finding.severity,
                        finding.code,
                        finding.path,
                    )
                )
                continue
            message = finding.message if finding.other is None else f"{finding.message} another one"
            placed.append(reading.placed(evolve(finding, message=message, other=None)))
        return placed

    def blamed(self, problems: Iterable[Problem]) -> dict[Container, list[Problem]]:
        """Return the containers that `problems` are about; all that are used for a problem that is nobody's."""
        by_source = {source_of(each.container): each.container for each in self._used()}
        blamed: dict[Container, list[Problem]] = {}
        for problem in problems:
            container = by_source.get(problem.file)
            for each in by_source.values() if container is None else [container]:
                blamed.setdefault(each, []).append(problem)
        return blamed

    def _used(self) -> Iterator[Reading]:
        return (
            each for each in self.readings if each.verdict == "used" and each.container not in self.refused
        )

    def _origin(self, path: KeyPath) -> Reading | None:
        for length in range(len(path), 1, -1):
            if (reading := self._origins.get(path[:length])) is not None:
                return reading
        return None


def discover(
    found: Found,
    options: DockerProvider,
    previous: Discovered | None = None,
    refused: Refusals | None = None,
    now: float = 0.0,
) -> Discovered:
    """Return what `found` gives.

    Args:
      found: the running containers.
      options: the provider's options.
      previous: what was in force; a container that is as it was is not read again.
      refused: containers that must not run, and why.
      now: the time, in seconds since 1970.

    """
    known = {} if previous is None else {each.container.id: each for each in previous.readings}
    readings = []
    for container in found.containers:
        reading = known.get(container.id)
        if reading is None or reading.made_from != depends_on(container, found, options):
            reading = read_container(container, found, options)
        readings.append(reading)
    present = set(found.containers)
    refusals = {each: tuple(why) for each, why in (refused or {}).items() if each in present}
    while True:
        union = _Union()
        for reading in readings:
            if reading.verdict == "used" and reading.container not in refusals:
                union.add(reading)
        wrong = union.finish()
        if not wrong:
            break
        refusals |= wrong  # there is one container less each time
    states = _states(readings, refusals, previous, now)
    lost = _lost_routers(readings, states, union)
    told = [problem for each in readings if each.container not in refusals for problem in each.problems]
    warnings = [each for each in told if each.severity == "warning"] + union.problems
    return Discovered(
        found, options, tuple(readings), states, lost, union.config, warnings, refusals, union.origins
    )


class _Union:
    """The trees of several containers as one."""

    def __init__(self) -> None:
        self.root = MapNode()
        self.origins: dict[KeyPath, Reading] = {}
        self.config = Config()
        self.problems: list[Problem] = []
        self._readings: list[Reading] = []
        self._servers: dict[str, list[tuple[MapNode, Reading]]] = {}

    def add(self, reading: Reading) -> None:
        """Add a container, which was created after those that are there."""
        self._readings.append(reading)
        self._join(self.root, reading.given, ("http",), reading)
        for name, server in reading.servers.items():
            self._servers.setdefault(name, []).append((server, reading))

    def finish(self) -> dict[Container, tuple[Problem, ...]]:
        """Make `config` of it, or return which containers must go so that it can be made, and why."""
        for reading in self._readings:
            join(self.root, reading.added)
            self._claim(reading.added, ("http",), reading)
        services = self.root.get("services")
        for name, service in services.items() if isinstance(services, MapNode) else ():
            if isinstance(service, MapNode) and isinstance(balancer := service.get("loadBalancer"), MapNode):
                balancer["servers"] = self._list_servers(name)
        root = MapNode()
        root["http"] = self.root
        try:
            self.config = resolved(Config(http=structure(root).http), DOCKER)
        except (BaseValidationError, WrongValue) as error:
            return self._wrong([each for each in findings(error, root) if each.severity == "error"])
        return {}

    def _list_servers(self, name: str) -> ListNode:
        servers, urls = ListNode(), set()
        for server, reading in self._servers.get(name, ()):
            if server["url"] in urls:
                continue  # two containers in the network of one host
            urls.add(server["url"])
            path: KeyPath = ("http", "services", name, "loadBalancer", "servers", len(servers))
            self.origins[path] = reading
            servers.append(server)
        return servers

    def _wrong(self, found: Iterable[Finding]) -> dict[Container, tuple[Problem, ...]]:
        wrong: dict[Container, tuple[Problem, ...]] = {}
        for finding in found:
            path, reading = finding.path, None
            while reading is None and path:
                reading, path = self.origins.get(path), path[:-1]
            reading = reading or self._readings[-1]
            wrong[reading.container] = (*wrong.get(reading.container, ()), reading.placed(finding))
        return wrong

    def _join(self, whole: MapNode, part: MapNode, path: KeyPath, reading: Reading) -> None:
        for key, value in part.items():
            here = (*path, key)
            known = whole.get(key)
            if known is None and key not in whole:
                if isinstance(value, MapNode):
                    whole[key] = below = MapNode()
                    self._join(below, value, here, reading)
                else:
                    whole[key] = value
                self.origins[here] = reading
            elif isinstance(known, MapNode) and isinstance(value, MapNode):
                self._join(known, value, here, reading)
                self.origins[here] = reading  # of what stands below it the newest is to blame
            elif known != value:
                first = self.origins[here]
                message = f"differs from what the {source_of(first.container)} says, which was created first and counts"
                finding = Finding(here, message, "give both the same value", "warning", "duplicate")
                self.problems.append(reading.placed(finding))

    def _claim(self, part: MapNode, path: KeyPath, reading: Reading) -> None:
        for key, value in part.items():
            here = (*path, key)
            self.origins.setdefault(here, reading)
            if isinstance(value, MapNode):
                self._claim(value, here, reading)


def _states(
    readings: Iterable[Reading], refused: Refusals, previous: Discovered | None, now: float
) -> tuple[ContainerState, ...]:
    before = {} if previous is None else {each.id: each for each in previous.states}
    states = []
    for reading in readings:
        container = reading.container
        verdict: Verdict = "bad" if container in refused else reading.verdict
        problems = tuple(refused.get(container, ())) or tuple(
            each for each in reading.problems if each.severity == "error"
        )
        services = tuple(sorted(reading.servers)) if verdict == "used" else ()
        state = ContainerState(container.id, container.name, verdict, reading.reason, problems, services, now)
        old = before.get(container.id)
        if old is not None and evolve(old, since=now) == state:
            state = old
        states.append(state)
    return tuple(states)


def _lost_routers(
    readings: Iterable[Reading], states: Iterable[ContainerState], union: _Union
) -> tuple[DisabledRouter, ...]:
    """Return the routers that only containers have that are bad."""
    kept = union.config.http.routers
    lost: dict[str, DisabledRouter] = {}
    for reading, state in zip(readings, states, strict=True):
        if state.verdict != "bad":
            continue
        for tree in (reading.given, reading.added):
            routers = tree.get("routers")
            for name, router in routers.items() if isinstance(routers, MapNode) else ():
                if name in kept:
                    continue
                service = router.get("service") if isinstance(router, MapNode) else None
                whole, known = qualified(name, DOCKER), lost.get(name)
                leads_to = service if isinstance(service, str) else (known.leads_to if known else None)
                reasons = tuple(map(str, state.problems)) if known is None else known.reasons
                lost[name] = DisabledRouter(
                    whole, reasons, leads_to=None if leads_to is None else qualified(leads_to, DOCKER)
                )
    return tuple(lost[name] for name in sorted(lost))
