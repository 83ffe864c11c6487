"""One container by itself: whether it counts, what its labels give, and what the provider adds where they say nothing.

As with Traefik, a container without a service in its labels is one service, named after it, and a container without a router is
one router to its one service, with the rule that `defaultRule` makes. A router that names no service leads to the one of its container.

A container with an error in its labels gives nothing at all: what is left of it could be a router without its guard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from attrs import field, frozen
from cattrs import BaseValidationError

from trio_wsb.addresses import format_host
from trio_wsb.config.containers import (
    Container,
    Found,
    Unreachable,
    address_of,
    binding_of,
    port_of,
)
from trio_wsb.config.docker import DockerProvider
from trio_wsb.config.labels import Endpoint, LabelTree, read_labels
from trio_wsb.config.problems import Finding, KeyPath, Problem, quoted
from trio_wsb.config.scalars import kind, show
from trio_wsb.config.structure import WrongValue, findings, structure
from trio_wsb.config.template import Subject
from trio_wsb.config.yamltree import ListNode, MapNode

Verdict: TypeAlias = Literal["used", "ignored", "bad"]

SECTIONS = ("routers", "services", "middlewares", "serversTransports")

_SCHEMES = frozenset({"http", "https", "ws", "wss"})
_KINDS = ("weighted", "failover", "mirroring")
_MOST_CUTS = 16


@frozen(eq=False)
class Reading:
    """What a container gives.

    `made_from` is all that it depends on. `reason` says why it is ignored. `given` is what the labels say, without servers, `added`
    what the provider adds, both below ``http``; `servers` has the container's server for each of its services, none
    while it is not well. `places` has the label of each path.
    """

    container: Container
    made_from: tuple[object, ...]
    verdict: Verdict
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    given: MapNode = field(factory=MapNode)
    added: MapNode = field(factory=MapNode)
    servers: Mapping[str, MapNode] = field(factory=dict)
    places: Mapping[KeyPath, str] = field(factory=dict)

    def placed(self, finding: Finding) -> Problem:
        """Return `finding`, whose path begins with ``http``, as a problem of the label that it is about."""
        return _problem(self.container, finding, self.places)


def source_of(container: Container) -> str:
    """Return how problems name a container."""
    return f"container {quoted(container.name)}"


def depends_on(container: Container, found: Found, options: DockerProvider) -> tuple[object, ...]:
    """Return all that the reading of `container` depends on."""
    shared = container.network_mode.startswith("container:")
    return (container, options, found if shared else found.host)


def read_container(container: Container, found: Found, options: DockerProvider) -> Reading:
    """Return what `container` gives. Never raises on its account."""
    tree = read_labels(dict(container.labels))
    reason = _ignored(container, tree, options)
    made_from = depends_on(container, found, options)
    if reason and not any(each.severity == "error" for each in tree.findings):
        return Reading(container, made_from, "ignored", reason)
    reader = _Reader(container, found, options, tree)
    reader.read()
    if reader.reason:
        return Reading(container, made_from, "ignored", reader.reason)
    found_problems = reader.problems()
    bad = any(each.severity == "error" for each in found_problems)
    return Reading(
        container,
        made_from,
        "bad" if bad else "used",
        "",
        found_problems,
        tree.root,
        reader.added,
        reader.servers,
        tree.places,
    )


def _ignored(container: Container, tree: LabelTree, options: DockerProvider) -> str:
    exposed = options.exposed_by_default if tree.enable is None else tree.enable
    if not exposed:
        return "traefik.enable is not true" if tree.enable is None else "traefik.enable is false"
    if options.constraints is not None and not options.constraints.match(dict(container.labels)):
        return "does not fit the constraints"
    if container.paused:
        return "is paused"
    if not container.well and not options.allow_empty_services:
        return f"is {container.health}"
    return ""


class _Reader:
    def __init__(self, container: Container, found: Found, options: DockerProvider, tree: LabelTree) -> None:
        self.container = container
        self.found = found
        self.options = options
        self.tree = tree
        self.added = MapNode()
        self.servers: dict[str, MapNode] = {}
        self.reason = ""
        self.findings: list[Finding] = list(tree.findings)

    def read(self) -> None:
        root = self.tree.root
        services = _mapping(root, "services")
        routers = _mapping(root, "routers")
        own = self.container.service_name
        names = list(services)
        if not names:
            try:
                where = self._where(Endpoint())
            except Unreachable as error:
                if not self.tree.any:
                    self.reason = str(error).partition("; ")[0]
                    return
                if not routers or not all(
                    isinstance(each, MapNode) and "service" in each for each in routers.values()
                ):
                    self._unreachable(("http", "services", own), error)
                    names = [own]
            else:
                names = [own]
                _put(self.added, ("services", own, "loadBalancer"), MapNode())
                self._serve(own, where, MapNode())
        else:
            for name, service in services.items():
                self._service(name, service)
        self._routers(routers, names, own)
        self._fit()

    def _service(self, name: str, service: object) -> None:
        if not isinstance(service, MapNode) or (
            any(kind in service for kind in _KINDS) and "loadBalancer" not in service
        ):
            return  # one that leads to others, or that the model will complain about
        balancer = service.setdefault("loadBalancer", MapNode())
        if not isinstance(balancer, MapNode):
            return
        servers = balancer.pop("servers", None)
        given = servers[0] if isinstance(servers, ListNode) and servers else MapNode()
        path: KeyPath = ("http", "services", name, "loadBalancer", "servers", 0)
        endpoint = self.tree.endpoints.get(name, Endpoint())
        if servers is not None and not isinstance(servers, ListNode):
            self._error(path[:-1], f"is {kind(servers)}, not a server", "write loadbalancer.server.port")
        elif isinstance(servers, ListNode) and len(servers) > 1:
            hint = "a container is one server of a service; write loadbalancer.server"
            self._error((*path[:-1], 1), "is one server too many", hint)
        elif not isinstance(given, MapNode):
            self._error(path, "is not a mapping", "write loadbalancer.server.port")
        elif "url" in given:
            if endpoint != Endpoint():
                self._error(
                    (*path, "url"), "is given together with a port or a scheme", "write one of the two"
                )
            self._add(name, given)
        elif endpoint.scheme and endpoint.scheme.lower() not in _SCHEMES:
            self._error(
                (*path, "scheme"),
                f"{show(endpoint.scheme)} is no scheme that is known here",
                "write http or https",
            )
        else:
            try:
                self._serve(name, self._where(endpoint), given)
            except Unreachable as error:
                self._unreachable((*path, "port"), error)

    def _where(self, endpoint: Endpoint) -> str:
        """Return the URL at which the container is reached.

        Raises:
          Unreachable: nobody knows.

        """
        port = port_of(self.container, endpoint.port)
        bound = binding_of(self.container, port) if self.options.use_bind_port_ip else None
        if bound is None:
            address, odd = address_of(self.container, self.found, self.tree.network or self.options.network)
            if odd:
                hint = "networks of compose have the project's name in front: PROJECT_NAME"
                path = ("traefik.docker.network",)
                if not any(each.path == path for each in self.findings):
                    self.findings.append(Finding(path, odd, hint, "warning", "effect"))
        else:
            address, port = bound
        return f"{endpoint.scheme.lower() or 'http'}://{format_host(address)}:{port}"

    def _serve(self, name: str, url: str, given: MapNode) -> None:
        given["url"] = url
        self._add(name, given)

    def _add(self, name: str, server: MapNode) -> None:
        if self.container.well:
            self.servers[name] = server

    def _routers(self, routers: Mapping[str, object], services: list[str], own: str) -> None:
        """Add what routers lack. Names of services of other containers are no concern of theirs."""
        if not routers and len(services) == 1:
            _put(self.added, ("routers", own), MapNode())
        for name in [*routers, *_mapping(self.added, "routers")]:
            router = routers.get(name, MapNode())
            if not isinstance(router, MapNode):
                continue
            path: KeyPath = ("routers", name)
            if not router.get("rule"):
                router.pop("rule", None)
                subject = Subject(own, self.container.name, dict(self.container.labels))
                _put(self.added, (*path, "rule"), self.options.default_rule.fill(subject))
            if "service" not in router:
                _put(self.added, (*path, "service"), services[0] if services else own)
                if len(services) != 1:
                    several = "has several services" if services else "has no service of its own"
                    place = ("http", *path, "service")
                    self._error(place, f"names no service, and the container {several}", "write its service")

    def _fit(self) -> None:
        """Find what does not fit the model, and take out what is passed over."""
        whole = MapNode()
        join(whole, self.tree.root)
        join(whole, self.added)
        for name, service in _mapping(whole, "services").items():
            if isinstance(service, MapNode) and isinstance(balancer := service.get("loadBalancer"), MapNode):
                servers = balancer["servers"] = ListNode()
                servers += [self.servers[name]] if name in self.servers else []
        root = MapNode()
        root["http"] = whole
        for _ in range(_MOST_CUTS):
            try:
                structure(root)
            except (BaseValidationError, WrongValue) as error:
                found = list(findings(error, root))
                self.findings += found
                passed_over = [each for each in found if each.severity == "warning"]
                for each in passed_over:
                    cut(whole, each.path[1:])
                    cut(self.tree.root, each.path[1:])
                if len(found) > len(passed_over) or not passed_over:
                    return
            else:
                return

    def _unreachable(self, path: KeyPath, error: Unreachable) -> None:
        message, _, hint = str(error).partition("; ")
        self._error(path, f"the container {message}", hint)

    def _error(self, path: KeyPath, message: str, hint: str) -> None:
        self.findings.append(Finding(path, message, hint))

    def problems(self) -> tuple[Problem, ...]:
        return tuple(_problem(self.container, each, self.tree.places) for each in self.findings)


def join(whole: MapNode, part: MapNode) -> None:
    """Add to `whole` what `part` has and it lacks; neither shares a mapping with the other afterwards."""
    for key, value in part.items():
        known = whole.get(key)
        if not isinstance(value, MapNode):
            whole.setdefault(key, value)
        elif known is None:
            whole[key] = below = MapNode()
            join(below, value)
        elif isinstance(known, MapNode):
            join(known, value)


def cut(root: MapNode, path: KeyPath) -> None:
    """Take away what is at `path`; nothing where there is nothing."""
    node: object = root
    for step in path[:-1]:
        if isinstance(node, MapNode):
            node = node.get(str(step))
        elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node):
            node = node[step]
        else:
            return
    if isinstance(node, MapNode):
        node.pop(str(path[-1]), None)


def label_of(path: KeyPath, places: Mapping[KeyPath, str]) -> str:
    """Return the label that `path` below ``http`` stands in, or that would have to be written for it."""
    for length in range(len(path), 0, -1):
        if (label := places.get(path[:length])) is not None:
            return label
    return "traefik.http" + "".join(_spelt(path))


def _spelt(path: KeyPath) -> Iterator[str]:
    for index, step in enumerate(path):
        if index == 3 and path[index : index + 2] == ("servers", 0):
            yield ".server"
        elif index != 4 or path[3:5] != ("servers", 0):
            yield f"[{step}]" if isinstance(step, int) else f".{step}"


def _problem(container: Container, finding: Finding, places: Mapping[KeyPath, str]) -> Problem:
    path = finding.path
    if path[:1] == ("http",):
        label = label_of(path[1:], places)
    else:
        label = places.get(path, str(path[0]) if path else "")
    return Problem(
        source_of(container),
        0,
        0,
        label,
        finding.message,
        finding.hint,
        finding.severity,
        finding.code,
        path,
    )


def _mapping(root: MapNode, key: str) -> MapNode:
    found = root.get(key)
    return found if isinstance(found, MapNode) else MapNode()


def _put(root: MapNode, path: KeyPath, value: object) -> None:
    node = root
    for step in path[:-1]:
        below = node.setdefault(str(step), MapNode())
        assert isinstance(below, MapNode)
        node = below
    node[str(path[-1])] = value
