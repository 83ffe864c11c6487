"""Containers as the Engine describes them, and where each of them is reached.

A `Container` is what matters of the answer to ``GET /containers/ID/json`` (Docker Engine API, ContainerInspect): a plain value,
so that two looks at the same container can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from trio_wsb.config.problems import quoted
from trio_wsb.config.template import normalize

MAX_NAME: Final = 255
"""Characters of a container's name; the Engine itself allows about as many."""

MAX_LABELS: Final = 2000
"""Labels of one container that are looked at, and the most characters of one of them in thousands."""

_PROJECT: Final = "com.docker.compose.project"
_SERVICE: Final = "com.docker.compose.service"
_CREATED: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?")
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - what a binding may say, nothing is bound here


@frozen
class Binding:
    """A TCP port of a container, and where on the host it is bound: `host_ip` and `host_port` are "" where it is not."""

    port: int
    host_ip: str = ""
    host_port: str = ""


@frozen
class Container:
    """A running container.

    `created` sorts as the moment does. `health` is "" without a health check, else starting, healthy or unhealthy. `networks`
    are names and addresses.
    """

    id: str
    name: str
    created: str = ""
    paused: bool = False
    health: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    network_mode: str = ""
    networks: tuple[tuple[str, str], ...] = ()
    ports: tuple[Binding, ...] = ()

    @property
    def well(self) -> bool:
        """Whether its health check, if it has one, says so."""
        return self.health in {"", "healthy"}

    @property
    def service_name(self) -> str:
        """The name of the service and the router that it has without saying so, as Traefik makes it."""
        labels = dict(self.labels)
        if _PROJECT in labels and _SERVICE in labels:
            return normalize(f"{labels[_SERVICE]}_{labels[_PROJECT]}")
        return normalize(self.name)


@frozen
class Found:
    """What the Engine has at a moment: its running containers in the order in which they were created.

    `host` is the address of the Engine's own host, at which containers without a network of their own are.
    """

    containers: tuple[Container, ...] = ()
    host: str = "127.0.0.1"


class Unreachable(ValueError):
    """Nobody knows where a container is reached; the message says why, and after a semicolon what would help."""


def parse_container(document: object) -> Container | None:
    """Return the container that an answer of the Engine describes, None when it does not run.

    Raises:
      ValueError: the answer has not the shape of one.

    """
    state = _part(document, "State", Mapping)
    if not _get(state, "Running", bool, False):
        return None
    name = _get(document, "Name", str, "").removeprefix("/")
    identity = _get(document, "Id", str, "")
    if not identity or not name or len(name) > MAX_NAME:
        raise ValueError("has no name or id")
    settings = _part(document, "NetworkSettings", Mapping)
    health = _part(state, "Health", Mapping)
    status = _get(health, "Status", str, "")
    return Container(
        id=identity,
        name=name,
        created=_created(_get(document, "Created", str, "")),
        paused=_get(state, "Paused", bool, False),
        health="" if status == "none" else status,
        labels=tuple(_labels(_part(_part(document, "Config", Mapping), "Labels", Mapping))),
        network_mode=_get(_part(document, "HostConfig", Mapping), "NetworkMode", str, ""),
        networks=tuple(sorted(_networks(_part(settings, "Networks", Mapping)))),
        ports=tuple(sorted(_ports(_part(settings, "Ports", Mapping)), key=lambda each: each.port)),
    )


def address_of(container: Container, found: Found, network: str | None) -> tuple[str, str]:
    """Return the address of a container, and what is odd about it ("" for nothing).

    Args:
      container: one of `found`.
      found: where another container is looked for whose network it may share.
      network: the network at whose address it is to be reached.

    Raises:
      Unreachable: it has no address.

    """
    seen = {container.id}
    while True:
        networks = dict(container.networks)
        if network is not None and networks.get(network):
            return networks[network], ""
        if container.network_mode == "host":
            return found.host, ""
        if not container.network_mode.startswith("container:"):
            break
        other = _find(container.network_mode.partition(":")[2], found.containers)
        if other is None or other.id in seen:
            raise Unreachable("shares the network of a container that is not there; start that one first")
        seen.add(other.id)
        container = other
        network = dict(other.labels).get("traefik.docker.network", "").strip() or network
    for name, address in container.networks:
        if address:
            if network is None:
                return address, ""
            return (
                address,
                f"is not in the network {quoted(network)}, so its address in {quoted(name)} is used",
            )
    raise Unreachable("has no address in any network; put it in a network that the balancer reaches")


def port_of(container: Container, wanted: str) -> str:
    """Return the port of a container: `wanted`, or the lowest TCP port that its image exposes.

    Raises:
      Unreachable: there is none.

    """
    if wanted:
        return wanted
    if not container.ports:
        raise Unreachable("exposes no port; write traefik.http.services.NAME.loadbalancer.server.port")
    return str(container.ports[0].port)


def binding_of(container: Container, port: str) -> tuple[str, str] | None:
    """Return the address and the port of the host that a port is bound to, None if it is bound to no one address."""
    for each in container.ports:
        if str(each.port) == port and each.host_port and each.host_ip not in _EVERYWHERE:
            return each.host_ip, each.host_port
    return None


def _find(reference: str, containers: Sequence[Container]) -> Container | None:
    """Return the container with this id, the beginning of it, or this name."""
    for each in containers:
        if reference in {each.id, each.name} or (len(reference) >= 12 and each.id.startswith(reference)):
            return each
    return None


def _get(document: object, key: str, kind: type, other: Any) -> Any:
    value = document.get(key) if isinstance(document, Mapping) else None
    if value is None:
        return other
    if not isinstance(value, kind):
        raise ValueError(f"has a {key} of another kind")
    return value


def _part(document: object, key: str, kind: type) -> Any:
    return _get(document, key, kind, {})


def _created(text: str) -> str:
    found = _CREATED.match(text)
    return text[:40] if found is None else f"{found[1]}.{(found[2] or ''):0<9}"


def _labels(labels: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    if len(labels) > MAX_LABELS:
        raise ValueError(f"has more than {MAX_LABELS} labels")
    for key in sorted(labels):
        value = labels[key]
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError("has a label that is no text")
        if len(key) + len(value) <= MAX_LABELS * 1000:
            yield key, value


def _networks(networks: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    for name, each in networks.items():
        address = _get(each, "IPAddress", str, "") or _get(each, "GlobalIPv6Address", str, "")
        yield str(name), address


def _ports(ports: Mapping[Any, Any]) -> Iterator[Binding]:
    for key, bound in ports.items():
        number, _, protocol = str(key).partition("/")
        if protocol.lower() not in {"", "tcp"} or not number.isdigit():
            continue
        first = bound[0] if isinstance(bound, list) and bound else {}
        yield Binding(int(number), _get(first, "HostIp", str, ""), _get(first, "HostPort", str, ""))
