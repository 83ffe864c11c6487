"""What a file may hold beside the model: the short form, and how it becomes the long one.

    wsbalancer:                                       entryPoints.web           listen, readTimeout
      pods: ["http://backend1:8080", ...]     means   http.routers.wsbalancer   PathPrefix(`/`)
      cacheTTL: "30s"                                 http.services.wsbalancer  pods, metricPath, cacheTTL, writeTimeout
      ...                                             http.serversTransports.wsbalancer  tlsVerify, dialTimeout, readTimeout

It is checked in its own words, and `Expansion.origins` leads from the long form back to them, so that every problem
points at what the user wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from attrs import Factory, evolve, fields, frozen

from trio_wsb.addresses import BackendURL, ListenAddress
from trio_wsb.config.checks import DEADLINE, PAGE_PATH, PERIOD, URL_PATH
from trio_wsb.config.model import (
    DEFAULT_METRIC_PATH,
    HTTP,
    Config,
    Duration,
    EntryPoint,
    ForwardingTimeouts,
    RespondingTimeouts,
    Router,
    ServersTransport,
    Transport,
    default_entry_points,
    option,
)
from trio_wsb.config.problems import Finding, KeyPath
from trio_wsb.config.services import ConnectionCount, LoadBalancer, Server, Service
from trio_wsb.config.session import Session
from trio_wsb.routing.rules import parse_rule

NAME = "wsbalancer"
"""The router, the service and the transport that the short form makes."""

ENTRY_POINT = "web"
"""The entry point that the short form and `listen` are about."""

_Named = TypeVar("_Named")


@frozen
class WSBalancer:
    """One entry point, one router for everything and one service, in ten lines."""

    pods: tuple[BackendURL, ...] | None = option("URLs of the backends; at least one, each once.", None)
    services: tuple[BackendURL, ...] | None = option("The same as `pods`; write one of the two.", None)
    metric_path: str = option(
        "Path at which each backend reports its connection count.", "/metric", check=URL_PATH
    )
    balancer_metric_path: str | None = option(
        "The same as `balancerMetricPath` at the top; write one of the two.", None, check=PAGE_PATH
    )
    tls_verify: bool = option(
        "Verify the certificates of https and wss backends, for sessions and for reports alike.", default=True
    )
    cache_ttl: Duration = option(
        "How often each backend is asked for its connection count.",
        Duration(30.0),
        key="cacheTTL",
        check=PERIOD,
    )
    dial_timeout: Duration = option("Time for TCP connect plus TLS.", Duration(10.0), check=DEADLINE)
    write_timeout: Duration = option(
        "How long a peer may accept nothing while bytes wait for it; the session ends after it. 0 is no limit.",
        Duration(10.0),
        reload="new sessions",
    )
    read_timeout: Duration = option(
        "Time for a client's whole request head, and for the backend's handshake answer. Never ends a session. 0 is no limit.",
        Duration(30.0),
    )
    listen: ListenAddress | None = option("The same as `listen` at the top; write one of the two.", None)


@frozen
class File(Config):
    """A whole file: the model and the short form side by side."""

    entry_points: Mapping[str, EntryPoint] = option(
        "Listeners by name. `admin` is never a router's entry point unless the router names it. "
        "Without any: `web` at 127.0.0.1:9000 and `admin` at 127.0.0.1:9001.",
        Factory(dict),
    )
    balancer_metric_path: str = option("As in `Config`; empty when it is not given.", "", check=PAGE_PATH)
    wsbalancer: WSBalancer | None = option("The short form, see below.", None)
    listen: ListenAddress | None = option(
        "Address of the entry point `web`, instead of `entryPoints.web.address`.", None
    )


@frozen
class Expansion:
    """The long form of a file.

    `origins` maps key paths of what was made to the key paths that it was made from; whatever lies below a made path
    lies below its origin.
    """

    config: Config
    origins: Mapping[KeyPath, KeyPath]
    findings: tuple[Finding, ...]


def expand(file: File, *, web_lost: bool = False) -> Expansion:
    """Return `file` with its short form written out.

    Args:
      file: the file.
      web_lost: the address that the file gives the entry point `web` could not be used, so that nothing is known
        of it, and it is left out rather than given the default.

    """
    findings: list[Finding] = []
    origins: dict[KeyPath, KeyPath] = {}
    short = file.wsbalancer
    listen = file.listen
    listen_path: KeyPath = ("listen",)
    metric_path = file.balancer_metric_path or DEFAULT_METRIC_PATH
    if short is not None:
        if short.listen is not None:
            if listen is not None:
                findings.append(_twice((NAME, "listen"), ("listen",)))
            listen, listen_path = short.listen, (NAME, "listen")
        if short.balancer_metric_path is not None:
            if file.balancer_metric_path:
                findings.append(_twice((NAME, "balancerMetricPath"), ("balancerMetricPath",)))
            metric_path = short.balancer_metric_path
    http = file.http if short is None else _http(file.http, short, origins, findings)
    entry_points = _entry_points(file, short, listen)
    if web_lost:
        entry_points.pop(ENTRY_POINT, None)
    if ENTRY_POINT not in file.entry_points:
        origins[("entryPoints", ENTRY_POINT)] = listen_path
    elif listen is not None:
        message = "is given together with"
        findings.append(
            Finding(
                listen_path, message, "write one of the two", other=("entryPoints", ENTRY_POINT, "address")
            )
        )
    made = {"entry_points": entry_points, "http": http, "balancer_metric_path": metric_path}
    as_written = {each.name: getattr(file, each.name) for each in fields(Config)}
    return Expansion(Config(**(as_written | made)), origins, tuple(findings))


def _twice(path: KeyPath, other: KeyPath) -> Finding:
    return Finding(path, "is given together with", "they are the same: write one of the two", other=other)


def _entry_points(
    file: File, short: WSBalancer | None, listen: ListenAddress | None
) -> dict[str, EntryPoint]:
    made = default_entry_points()
    web = made[ENTRY_POINT]
    if listen is not None:
        web = evolve(web, address=listen)
    if short is not None:
        timeouts = RespondingTimeouts(read_timeout=short.read_timeout)
        web = evolve(web, transport=Transport(responding_timeouts=timeouts))
    if not file.entry_points:
        # Ours come first, so that a clash shows where the user wrote the address.
        del made[ENTRY_POINT]
        return {**made, ENTRY_POINT: web}
    if short is None and listen is None:
        return dict(file.entry_points)
    return {ENTRY_POINT: web, **file.entry_points}


def _http(http: HTTP, short: WSBalancer, origins: dict[KeyPath, KeyPath], findings: list[Finding]) -> HTTP:
    key = "pods" if short.services is None else "services"
    urls = short.pods if short.services is None else short.services
    if short.pods is not None and short.services is not None:
        findings.append(_twice((NAME, "services"), (NAME, "pods")))
    if urls is None:
        hint = f'write pods: ["http://backend1:8080", ...] below {NAME}'
        findings.append(Finding((NAME,), "has no pods", hint, code="empty", at="key"))
        return http
    service = Service(
        LoadBalancer(
            servers=tuple(Server(url) for url in urls),
            servers_transport=NAME,
            connection_count=ConnectionCount(short.metric_path, interval=short.cache_ttl),
            session=Session(write_timeout=short.write_timeout),
        )
    )
    transport = ServersTransport(
        insecure_skip_verify=not short.tls_verify,
        forwarding_timeouts=ForwardingTimeouts(short.dial_timeout, short.read_timeout),
    )
    router = Router(parse_rule("PathPrefix(`/`)"), NAME, entry_points=())
    if NAME not in http.services:
        origins[("http", "services", NAME, "loadBalancer", "servers")] = (NAME, key)

    def join(kind: str, given: Mapping[str, _Named], made: _Named) -> dict[str, _Named]:
        if NAME in given:
            message = f"has the name that the short form uses for its own, beside {NAME}"
            findings.append(Finding(("http", kind, NAME), message, "choose another name", at="key"))
        else:
            origins[("http", kind, NAME)] = (NAME,)
        return {NAME: made, **given}

    return HTTP(
        routers=join("routers", http.routers, router),
        services=join("services", http.services, service),
        servers_transports=join("serversTransports", http.servers_transports, transport),
    )
