"""Labels of a container as the tree that a YAML file would be composed to.

    traefik.http.routers.chat.rule=Host(`a`)                 http: {routers: {chat: {rule: Host(`a`)}}}
    traefik.http.routers.chat.entrypoints=web,websecure      http: {routers: {chat: {entryPoints: [web, websecure]}}}
    traefik.http.services.chat.loadbalancer.server.port=80   a port that the container's address is put before

As with Traefik, keys of the model are written in any case, lists as values with commas or as items with `[0]`, and ``true`` or
nothing stands for a section with its defaults; names keep their case. A label has text alone: it becomes a number or a
truth value where the model wants one. What does not fit the model stays as it is, and the model says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, Final, get_args, get_origin

import attrs
from attrs import define, field, frozen

from trio_wsb.config.foreign import FOREIGN
from trio_wsb.config.model import HTTP, key_of
from trio_wsb.config.problems import Finding, KeyPath
from trio_wsb.config.scalars import show
from trio_wsb.config.services import LoadBalancer, Server
from trio_wsb.config.structure import KINDS
from trio_wsb.config.yamltree import ListNode, MapNode

PREFIX: Final = "traefik."

MAX_STEPS: Final = 24
"""Parts of a label's key; the model needs ten."""

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[-+]?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_STEP: Final = re.compile(r"([^\[\]]*)((?:\[[0-9]{1,4}\])*)")


@frozen
class Endpoint:
    """What the labels of a service say of where its server is: `scheme` and `port`, "" where nothing is said."""

    scheme: str = ""
    port: str = ""


@define(eq=False)
class LabelTree:
    """What labels mean.

    `root` is the tree below ``http``; `places` has the label of each path in it that a label gives a value. `enable` and
    `network` are those of the labels of the same name. `endpoints` are by the name of a service. `findings` are problems of the
    labels themselves; their paths are in `places` too.
    """

    root: MapNode = field(factory=MapNode)
    places: dict[KeyPath, str] = field(factory=dict)
    enable: bool | None = None
    network: str | None = None
    endpoints: dict[str, Endpoint] = field(factory=dict)
    findings: list[Finding] = field(factory=list)
    any: bool = False
    """Whether there is a label for us at all."""


def read_labels(labels: Mapping[str, str]) -> LabelTree:
    """Return what `labels` mean; those that do not begin with ``traefik.`` are somebody else's. Never raises on their account."""
    reader = _Reader()
    for label in sorted(labels):
        if label.lower().startswith(PREFIX):
            reader.read(label, labels[label])
    return reader.result()


class _Reader:
    def __init__(self) -> None:
        self.tree = LabelTree()
        # Items of lists are kept by their index until all are there.
        self.grown: dict[Any, Any] = {}
        self.off: set[KeyPath] = set()

    def read(self, label: str, value: str) -> None:
        self.tree.any = True
        match label.lower().split("."):
            case ["traefik", "enable"]:
                self._enable(label, value)
            case ["traefik", "docker", "network"]:
                self.tree.network = value.strip() or None
            case ["traefik", "http", _, *_]:
                self._http(label, value)
            case ["traefik", "tcp" | "udp", *_]:
                self._ignored(label, "this is a balancer for HTTP and WebSocket")
            case ["traefik", "docker", "lbswarm"]:
                self._ignored(label, "there is no swarm mode")
            case ["traefik", "tls", *_]:
                self._ignored(label, "certificates are named in files")
            case _:
                self._ignored(label, "labels for us begin with traefik.http")

    def result(self) -> LabelTree:
        for path in self.off:
            _remove(self.grown, path)
        root = _finished(self.grown)
        assert isinstance(root, MapNode)
        self.tree.root = root
        return self.tree

    def _enable(self, label: str, value: str) -> None:
        if value.strip() in _TRUE | _FALSE:
            self.tree.enable = value.strip() in _TRUE
        else:
            self._error(label, f"{show(value)} is neither true nor false", "write true or false")

    def _ignored(self, label: str, reason: str) -> None:
        path = (label,)
        self.tree.places[path] = label
        message = "has no meaning here and is ignored"
        self.tree.findings.append(Finding(path, message, reason, "warning", "ignored", at="key"))

    def _error(self, label: str, message: str, hint: str) -> None:
        path = (label,)
        self.tree.places[path] = label
        self.tree.findings.append(Finding(path, message, hint, at="key"))

    def _http(self, label: str, value: str) -> None:
        steps = list(_steps(label))[2:]
        if len(steps) > MAX_STEPS or "" in steps:
            self._error(label, "is no key", "write it as traefik.http.routers.NAME.rule")
            return
        path, wanted = _canonical(steps)
        if isinstance(wanted, _EndpointPart):
            self._endpoint(path, wanted, label, value.strip())
            return
        known = self.tree.places.get(path)
        if known is not None:
            self._error(
                label,
                f'is the same key as "{known}"',
                "upper and lower case are the same: write one of the two",
            )
            return
        self.tree.places[path] = label
        section = _section(wanted)
        if section is None:
            self._put(path, _converted(value, wanted), label)
        elif value.strip() in _TRUE | {""}:
            self._put(path, {}, label)
        elif value.strip() in _FALSE:
            self.off.add(path)
        else:
            self._error(label, f"{show(value)} is no value for a section", "write true, or the keys below it")

    def _endpoint(self, path: KeyPath, part: _EndpointPart, label: str, value: str) -> None:
        self.tree.places[path] = label
        service = str(path[1])
        known = self.tree.endpoints.get(service, Endpoint())
        if part.name == "port":
            if not _is_port(value):
                self._error(label, f"{show(value)} is no port", "write a number from 1 to 65535")
                return
            self.tree.endpoints[service] = attrs.evolve(known, port=value)
        else:
            self.tree.endpoints[service] = attrs.evolve(known, scheme=value)
        self._put(path[:-1], {}, label)

    def _put(self, path: KeyPath, value: object, label: str) -> None:
        node = self.grown
        for step in path[:-1]:
            below = node.setdefault(step, {})
            if not isinstance(below, dict):
                self._error(label, "stands below a key that has a value", "write one of the two")
                return
            node = below
        last = path[-1]
        if last not in node:
            node[last] = value
        elif not (isinstance(node[last], dict) and value == {}):
            self._error(label, "has a value, and keys stand below it", "write one of the two")


@frozen
class _EndpointPart:
    name: str


def _steps(label: str) -> Iterator[str | int]:
    for part in label.split("."):
        found = _STEP.fullmatch(part)
        if found is None:
            yield part
            continue
        yield found[1]
        yield from (int(index) for index in re.findall(r"[0-9]+", found[2]))


def _canonical(steps: list[str | int]) -> tuple[KeyPath, Any]:
    """Return the path that `steps` mean, in the words of the model, and the type of what stands there (None: nobody knows)."""
    wanted: Any = HTTP
    path: list[str | int] = []
    for step in steps:
        wanted = _bare(wanted)
        section = _section(wanted)
        if section is Server and str(step).lower() in {"port", "scheme"}:
            name = str(step).lower()
            return (*path, name), _EndpointPart(name)
        if section is LoadBalancer and str(step).lower() == "server":
            path += ["servers", 0]
            wanted = Server
        elif section is not None:
            key, wanted = _key(section, str(step))
            path.append(key)
        elif get_origin(wanted) is tuple and isinstance(step, int):
            path.append(step)
            wanted = get_args(wanted)[0]
        elif get_origin(wanted) is Mapping:
            path.append(str(step))
            wanted = get_args(wanted)[1]
        else:
            path.append(step)
            wanted = None
    return tuple(path), _bare(wanted)


def _key(section: Any, step: str) -> tuple[str, Any]:
    folded = step.lower()
    for attribute in attrs.fields(attrs.resolve_types(section)):
        if key_of(attribute).lower() == folded:
            return key_of(attribute), attribute.type
    for cls in section.__mro__:
        for key in FOREIGN.get(cls, {}):
            if key.lower() == folded:
                return key, None
    return step, None


def _bare(wanted: Any) -> Any:
    """Return a type without its ``| None``."""
    arguments = get_args(wanted)
    if NoneType in arguments and get_origin(wanted) is not tuple:
        return next(each for each in arguments if each is not NoneType)
    return wanted


def _section(wanted: Any) -> Any:
    return wanted if isinstance(wanted, type) and attrs.has(wanted) and wanted not in KINDS else None


def _converted(text: str, wanted: Any) -> object:
    if get_origin(wanted) is tuple:
        inner = _bare(get_args(wanted)[0])
        if _section(inner) is not None:
            return text
        items = ListNode()
        items += [_converted(part.strip(), inner) for part in text.split(",")] if text.strip() else []
        return items
    takes = KINDS[wanted].takes if wanted in KINDS else ()
    plain = text.strip()
    if bool in takes and plain in _TRUE | _FALSE:
        return plain in _TRUE
    if int in takes and _INTEGER.fullmatch(plain):
        return int(plain)
    if float in takes and _NUMBER.fullmatch(plain):
        return float(plain)
    return text


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535


def _remove(node: Any, path: KeyPath) -> None:
    for step in path[:-1]:
        node = node.get(step) if isinstance(node, dict) else None
        if node is None:
            return
    if isinstance(node, dict):
        node.pop(path[-1], None)


def _finished(node: Any) -> object:
    """Return `node` with its items by index as lists."""
    if not isinstance(node, dict) or isinstance(node, MapNode):
        return node
    if node and all(isinstance(key, int) for key in node):
        items = ListNode()
        items += [_finished(node[index]) for index in sorted(node)]
        return items
    made = MapNode()
    for key, value in node.items():
        made[str(key)] = _finished(value)
    return made
