"""The part of the configuration that says what answers requests: services, their servers and their health."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, frozen

from trio_wsb.addresses import BackendURL
from trio_wsb.config.checks import (
    AT_LEAST_0,
    COOKIE_PATH,
    DEADLINE,
    FIELDS,
    HOST,
    METHOD,
    NOT_EMPTY,
    PERIOD,
    STATUS_OR_0,
    TOKEN,
    URL_PATH,
)
from trio_wsb.config.moving import Drain, OnRemove, Rebalance
from trio_wsb.config.options import option
from trio_wsb.config.session import Session
from trio_wsb.middleware.options import between
from trio_wsb.units import Duration

Strategy = Literal["leastconn", "wrr", "p2c", "hrw", "iphash"]


@frozen
class Server:
    """One backend of a service."""

    url: BackendURL = option("`http://HOST:PORT` or `https://HOST:PORT`; ws and wss are understood too.")
    weight: int = option(
        "Its share relative to its peers; 0 takes it out of the choice.", 1, check=between(0, 1_000_000)
    )
    max_connections: int = option(
        "No new sessions at this load and above; 0 is no limit.", 0, check=AT_LEAST_0
    )
    max_pending: int = option(
        "Handshakes under way at once; more go to its peers, or wait. 0 is no limit.", 256, check=AT_LEAST_0
    )
    resolve: Literal["all", "srv"] | None = option(
        "Look its host up in DNS again and again, and let everything that it stands for be a backend: `all` for each address "
        "one, at the port of `url`; `srv` for each SRV record, with its port, weight and priority. Without it the host is "
        "looked up in the background, and connections take what is known.",
        None,
    )


@frozen
class ConnectionCount:
    """How backends are asked for their connection counts."""

    path: str = option("Path of the backend's report, such as `/metric`.", check=URL_PATH)
    field_name: str = option(
        "Name of the number in the report.", "agentsConnections", key="field", check=NOT_EMPTY
    )
    interval: Duration = option("How often each backend is asked.", Duration(30.0), check=PERIOD)
    timeout: Duration = option("Time for one answer.", Duration(5.0), check=DEADLINE)
    stale_after: Duration | None = option(
        "Age from which a report counts as stale; 3 x interval unless given, and never below interval.", None
    )


@frozen
class HealthCheck:
    """Active checks: each server is asked in turn, and one that fails gets no new sessions."""

    path: str = option("What to ask for, such as `/api/health`.", check=URL_PATH)
    mode: Literal["http", "websocket"] = option(
        "`http` asks for `path` and looks at the status; `websocket` opens a session there and waits for the answer "
        "to a ping.",
        "http",
    )
    scheme: Literal["http", "https"] | None = option("Scheme of the check; the server's unless given.", None)
    hostname: str | None = option("Host to send; the server's own unless given.", None, check=HOST)
    port: int = option("Port to ask; 0 is the server's.", 0, check=between(0, 65535))
    method: str = option("Method of the request.", "GET", check=METHOD)
    status: int = option("The one good status; 0 is any from 200 to 399.", 0, check=STATUS_OR_0)
    interval: Duration = option("How often each server is asked.", Duration(30.0), check=PERIOD)
    unhealthy_interval: Duration | None = option(
        "How often one that is down is asked; as `interval` unless given.", None, check=PERIOD
    )
    timeout: Duration = option("Time for one answer.", Duration(5.0), check=DEADLINE)
    follow_redirects: bool = option("Judge what a redirect leads to, else the redirect.", default=True)
    headers: Mapping[str, str] = option(
        "Header fields to send, by name.", Factory(dict), check=FIELDS, secret=True
    )
    rise: int = option("Good checks in a row that bring a server up.", 1, check=between(1, 1000))
    fall: int = option("Failed checks in a row that take a server down.", 2, check=between(1, 1000))


@frozen
class PassiveHealthCheck:
    """What our own attempts say: failed dials and handshakes, and sessions that are dropped as soon as they are open."""

    failure_window: Duration = option(
        "Time within which failures are counted, and the longest for which a server is passed over: the first time it "
        "is for 1s, then twice as long each time that it fails again.",
        Duration(10.0),
        check=DEADLINE,
    )
    max_failed_attempts: int = option(
        "Failures within the window after which a server is passed over; 0 is never.",
        1,
        check=between(0, 1000),
    )


@frozen
class Cookie:
    """The cookie that keeps a client where it is, with Traefik's values."""

    name: str | None = option(
        "Its name; unless given, the one that Traefik makes of the service's name.", None, check=TOKEN
    )
    secure: bool = option("Browsers send it over TLS alone.", default=False)
    http_only: bool = option("Scripts do not see it.", default=False)
    same_site: Literal["none", "lax", "strict"] | None = option(
        "Whether browsers send it with requests from other sites; unless given, they decide.", None
    )
    max_age: int = option(
        "Seconds that browsers keep it; 0 is until they close, -1 not at all.", 0, check=between(-1, 10**9)
    )
    path: str = option("Path from which on browsers send it.", "/", check=COOKIE_PATH)
    domain: str | None = option(
        "Domain to whose hosts browsers send it; else only to ours.", None, check=HOST
    )


@frozen
class Sticky:
    """Clients stay where their first request went."""

    cookie: Cookie = option("The cookie that says where.")


@frozen
class LoadBalancer:
    """A set of servers and how to choose among them."""

    servers: tuple[Server, ...] = option("The backends; at least one, each URL once.")
    strategy: Strategy = option(
        "`leastconn` (fewest connections for its weight), `wrr` (weighted round robin), `p2c` (the better of two "
        "at random), `hrw` (rendezvous hash of the client address), `iphash` (hash of the client network).",
        "leastconn",
    )
    pass_host_header: bool = option(
        "Send the client's Host to the backend, else the server's own.", default=True
    )
    servers_transport: str | None = option(
        "Name of the serversTransport to use.", None, check=NOT_EMPTY, refers="http.serversTransports"
    )
    connection_count: ConnectionCount | None = option(
        "Ask the backends how many connections they have. Without it only our own sessions count.", None
    )
    sticky: Sticky | None = option(
        "Keep a client at its server by a cookie, set on the 101 too. A server that is down, passed over or of weight 0 loses "
        "its clients to others for good, one that is full only while it is.",
        None,
    )
    health_check: HealthCheck | None = option(
        "Ask the servers whether they are well. Without it only failed dials and handshakes tell.", None
    )
    passive_health_check: PassiveHealthCheck = option(
        "What our own attempts say of a server. Where two services name one server, the stricter counts.",
        PassiveHealthCheck(),
    )
    pending_timeout: Duration = option(
        "How long a handshake waits while every server has `maxPending` under way; 503 after it. 0 is not at all.",
        Duration(1.0),
    )
    slow_start: Duration = option(
        "Time over which a server that came up, or that a reload has added beside busy ones, gets its whole weight. "
        "Not with `iphash`. 0 is at once.",
        Duration(0.0),
    )
    session: Session = option("Limits of its sessions.", Session())
    drain: Drain = option("How the sessions of a server that is drained are ended.", Drain())
    on_remove: OnRemove = option(
        "What becomes of a server's sessions when it leaves the configuration: `keep` lets them live on, `drain` ends them as "
        "`drain` says.",
        "keep",
    )
    relay: Literal["auto", "kernel", "stream"] = option(
        "Who moves the bytes of its sessions: `auto` a program in the Linux kernel where the host lets us load it and the session is "
        "plain TCP and not mirrored, else the daemon; `kernel` the same, with a warning at the start where the host does not; "
        "`stream` always the daemon.",
        "auto",
        reload="new sessions",
    )
    rebalance: Rebalance = option("How servers with too many sessions shed some.", Rebalance())


@frozen
class WeightedService:
    """One service of a weighted one."""

    name: str = option("Name of the service.", check=NOT_EMPTY, refers="http.services")
    weight: int = option("Its share relative to the others; 0 is none.", 1, check=between(0, 1_000_000))


@frozen
class Weighted:
    """Several services in turn, such as a canary beside the stable one. Those that are not well are passed over."""

    services: tuple[WeightedService, ...] = option("The services; at least one, each once.")
    sticky: Sticky | None = option("Keep a client at its service by a cookie.", None)


@frozen
class Failover:
    """A service, and another one for when no server of the first is well."""

    service: str = option(
        "Name of the service that answers as long as one of its servers is well.",
        check=NOT_EMPTY,
        refers="http.services",
    )
    fallback: str = option("Name of the one that answers else.", check=NOT_EMPTY, refers="http.services")


@frozen
class Mirror:
    """A service that gets copies."""

    name: str = option("Name of the service.", check=NOT_EMPTY, refers="http.services")
    percent: int = option("Of a hundred requests, how many are copied.", 0, check=between(0, 100))


@frozen
class Mirroring:
    """A service, and others that get copies of some of its requests. What they answer is thrown away.

    A session's copy is a session: it gets what the client sends while it sends it.
    """

    service: str = option("Name of the service that answers.", check=NOT_EMPTY, refers="http.services")
    mirrors: tuple[Mirror, ...] = option("The services that get copies.", ())
    mirror_body: bool = option("Copy bodies of requests too.", default=True)
    max_body_size: int = option(
        "Bytes of a body that is copied; a request with more is not. -1 is the most that is held: 1 MiB.",
        -1,
        check=between(-1, 2**40),
    )


@frozen
class Service:
    """What answers requests; of one kind."""

    load_balancer: LoadBalancer | None = option("Balance over servers.", None)
    weighted: Weighted | None = option("Choose among services by weight.", None)
    failover: Failover | None = option("Replace a service by another one when it is down.", None)
    mirroring: Mirroring | None = option("Send copies of requests to other services.", None)
