"""The configuration as the daemon uses it: frozen values, every default filled in, every unit converted.

One class for each mapping of the YAML file. The YAML name of a field is its name in camelCase unless `key`
in its metadata says otherwise; `doc` explains it in the generated reference. Times are seconds, sizes bytes,
rates events per second, percentages fractions. Nothing here reads a file: `trio_wsb.config.load` does. Services
are in `trio_wsb.config.services`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, frozen

from trio_wsb.addresses import DEFAULT_CONTROL_SOCKET, IPNetwork, ListenAddress
from trio_wsb.config.accesslog import AccessLog
from trio_wsb.config.api import API
from trio_wsb.config.checks import (
    AT_LEAST_0,
    DEADLINE,
    FILE_PATH,
    NOT_EMPTY,
    PAGE_PATH,
    SOCKET_PATH,
    STATUS,
)
from trio_wsb.config.dns import DNS
from trio_wsb.config.entrypoints import EntryPointHTTP, ProxyProtocol, UnixSocket
from trio_wsb.config.kernelrelay import KernelRelay
from trio_wsb.config.metrics import Metrics
from trio_wsb.config.middlewares import Middleware
from trio_wsb.config.options import key_of as key_of  # noqa: PLC0414 - part of this module's interface
from trio_wsb.config.options import option as option  # noqa: PLC0414
from trio_wsb.config.providers import Providers
from trio_wsb.config.services import Service
from trio_wsb.config.tls import TLS, Certificate, RouterTLS, Version
from trio_wsb.routing.rules import Rule
from trio_wsb.units import Duration as Duration  # noqa: PLC0414
from trio_wsb.units import Size as Size  # noqa: PLC0414

DEFAULT_METRIC_PATH = "/balancer-metrics"


@frozen
class RespondingTimeouts:
    """How long a client may take before its request is complete."""

    read_timeout: Duration = option(
        "Time for a whole request head, counted from its first byte (from the connection for the first one); 408 after it. 0 is no limit.",
        Duration(30.0),
    )
    idle_timeout: Duration = option(
        "How long a keep-alive connection may wait for its next request. Never applies to a session. 0 is no limit.",
        Duration(180.0),
    )


@frozen
class LifeCycle:
    """What happens when the daemon stops."""

    request_accept_grace_timeout: Duration = option(
        "How long new connections are still accepted after the stop began, with /ping already answering 503.",
        Duration(0.0),
    )
    grace_time_out: Duration = option(
        "Time over which sessions get their Close frame (1001), jittered, and requests may finish; then what is left is cut.",
        Duration(10.0),
    )


@frozen
class Transport:
    """Timeouts and life cycle of an entry point."""

    responding_timeouts: RespondingTimeouts = option("Timeouts towards clients.", RespondingTimeouts())
    life_cycle: LifeCycle = option("Behaviour while stopping.", LifeCycle())


@frozen
class ForwardedHeaders:
    """Whose X-Forwarded-* fields are believed."""

    trusted_ips: tuple[IPNetwork, ...] = option(
        "Addresses and networks whose X-Forwarded-* and X-Real-Ip are believed; anybody else's are replaced.",
        (),
        key="trustedIPs",
    )
    insecure: bool = option("Believe everybody's; only where no stranger can connect.", default=False)


@frozen
class EntryPoint:
    """A listener."""

    address: ListenAddress = option(
        "Where to listen: `HOST:PORT`, `:PORT`, or `unix:/PATH` for a Unix socket."
    )
    unix_socket: UnixSocket = option("Who may connect to a Unix socket.", UnixSocket())
    max_connections: int = option(
        "Client connections accepted at once; one more is answered 503. 0 is no limit.",
        20000,
        check=AT_LEAST_0,
    )
    max_pending_per_address: int = option(
        "Connections of one client address (IPv6: of one /64) that wait for a request, TLS included; one more is answered 429, "
        "or closed where TLS is spoken. Trusted proxies, this host and Unix sockets are exempt. 0 is no limit.",
        1000,
        check=AT_LEAST_0,
    )
    max_connections_per_address: int = option(
        "The same for all connections of one address, its sessions included. Many people may share one.",
        0,
        check=AT_LEAST_0,
    )
    max_tls_handshakes: int = option(
        "TLS handshakes under way at once; a client that finds no place in time is refused. 0 is no limit.",
        256,
        key="maxTLSHandshakes",
        check=AT_LEAST_0,
    )
    reuse_port: bool = option(
        "Listen with SO_REUSEPORT, so that several instances share the address; each of them needs it. "
        "A socket that is open already stays as it is.",
        default=False,
        reload="restart",
    )
    transport: Transport = option("Timeouts and life cycle.", Transport())
    forwarded_headers: ForwardedHeaders = option(
        "Whose X-Forwarded-* fields are believed.", ForwardedHeaders()
    )
    proxy_protocol: ProxyProtocol | None = option("Whose PROXY headers are believed.", None)
    http: EntryPointHTTP = option("What holds for every request.", EntryPointHTTP())


@frozen
class Router:
    """A rule that decides which service answers a request."""

    rule: Rule = option(
        "Which requests, in the language of Traefik v3: matchers with `&&`, `||`, `!` and parentheses."
    )
    service: str = option("Name of the service that answers.", check=NOT_EMPTY, refers="http.services")
    entry_points: tuple[str, ...] = option(
        "Names of the entry points it listens to; without it every one but `admin`.", ()
    )
    priority: int = option("The higher is asked first; 0 means the length of the rule.", 0)
    middlewares: tuple[str, ...] = option(
        "Names of the middlewares that a request passes on its way to the service, in this order.",
        (),
        refers="http.middlewares",
    )
    tls: RouterTLS | None = option(
        "With it the router answers requests over TLS alone, without it plain ones alone; `true` is all of its defaults.",
        None,
        switch=True,
    )


@frozen
class ForwardingTimeouts:
    """Timeouts towards backends."""

    dial_timeout: Duration = option("Time for TCP connect plus TLS.", Duration(10.0), check=DEADLINE)
    response_header_timeout: Duration = option(
        "Time for the backend's handshake answer or response head; 504 after it. 0 is no limit.",
        Duration(30.0),
    )


@frozen
class ServersTransport:
    """How connections to backends are made."""

    insecure_skip_verify: bool = option("Do not verify the backend's certificate.", default=False)
    root_cas: tuple[str, ...] = option(
        "PEM files with the authorities to trust instead of the system's.", (), key="rootCAs"
    )
    server_name: str | None = option(
        "Name to expect in the certificate and to send as SNI.", None, check=NOT_EMPTY
    )
    certificates: tuple[Certificate, ...] = option(
        "Our own certificate, for backends that ask for one; the first is shown.", ()
    )
    min_version: Version = option("The lowest version of TLS.", "VersionTLS12")
    max_version: Version | None = option("The highest version of TLS; without it there is no bound.", None)
    forwarding_timeouts: ForwardingTimeouts = option("Timeouts towards backends.", ForwardingTimeouts())


@frozen
class HTTP:
    """Routers, services, middlewares and transports by name."""

    routers: Mapping[str, Router] = option("Routers by name.", Factory(dict))
    services: Mapping[str, Service] = option("Services by name.", Factory(dict))
    middlewares: Mapping[str, Middleware] = option("Middlewares by name, each of one kind.", Factory(dict))
    servers_transports: Mapping[str, ServersTransport] = option("Transports by name.", Factory(dict))


@frozen
class Log:
    """The daemon's log, on standard error unless a file is named."""

    level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = option("Least level written.", "INFO")
    format: Literal["console", "json"] = option("`console` for people, `json` for machines.", "console")
    file_path: str | None = option(
        "File to append to instead of standard error; its directory is created when there is none.",
        None,
        check=FILE_PATH,
    )


@frozen
class Ping:
    """The health answer at /ping for whoever balances us."""

    entry_point: str | None = option("The one entry point that answers /ping; without it every one.", None)
    manual_routing: bool = option("Do not answer /ping by ourselves.", default=False)
    terminating_status_code: int = option("Status while the daemon stops.", 503, check=STATUS)


@frozen
class Control:
    """The control socket, at which a running daemon is asked and told: `trio-wsb status`, `drain`, `reload` and so on."""

    socket: str | None = option(
        f"Path of the Unix socket. Without it `{DEFAULT_CONTROL_SOCKET}`, if its directory is there and the daemon may "
        "write to it; a path that is given must be usable.",
        None,
        reload="restart",
        check=SOCKET_PATH,
    )
    group: str | None = option(
        "Name or number of a group whose members may use the socket too (mode 0660). Without it the daemon's own "
        "user and root alone may (0600).",
        None,
        reload="restart",
        check=NOT_EMPTY,
    )


def default_entry_points() -> dict[str, EntryPoint]:
    """Return the entry points of a file that names none."""
    return {
        "web": EntryPoint(ListenAddress("127.0.0.1", 9000)),
        "admin": EntryPoint(ListenAddress("127.0.0.1", 9001)),
    }


@frozen
class Config:
    """A whole configuration. When it runs every reference resolves."""

    entry_points: Mapping[str, EntryPoint] = option(
        "Listeners by name. `admin` is never a router's entry point unless the router names it.",
        Factory(default_entry_points),
    )
    http: HTTP = option("Routers, services and transports.", HTTP())
    servers_transport: ServersTransport = option(
        "How connections are made for load balancers that name no transport.", ServersTransport()
    )
    log: Log = option("The daemon's log.", Log())
    access_log: AccessLog | None = option(
        "The access log; without this key there is none, and `{}` is all of its defaults.", None
    )
    metrics: Metrics = option("Figures for monitoring.", Metrics())
    ping: Ping = option("The health answer.", Ping())
    balancer_metric_path: str = option(
        "Path at which the balancer shows its count table: on the entry point `admin` to everybody, on any other to "
        "loopback peers alone, since it names servers.",
        DEFAULT_METRIC_PATH,
        check=PAGE_PATH,
    )
    control: Control = option("The control socket.", Control())
    dns: DNS = option("How names of servers with `resolve` are looked up.", DNS())
    kernel_relay: KernelRelay = option("The relay in the kernel.", KernelRelay())
    api: API | None = option(
        "The API and the dashboard, on the entry point `admin` and behind routers that lead to `api@internal`; "
        "`false` for neither.",
        API(),
        switch=True,
    )
    tls: TLS = option("Certificates and options for clients that connect by TLS.", TLS())
    providers: Providers = option("Further sources of routers, services and middlewares.", Providers())
