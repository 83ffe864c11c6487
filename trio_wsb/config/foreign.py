"""Keys that Traefik or a later version knows and this one does not.

Three verdicts. IGNORED: the key has no meaning here, and leaving it out changes nothing that a user of this program
relies on; it is accepted with a warning, so that a Traefik file need not be edited. INEFFECTIVE: it asks for something
that is not there yet and whose absence harms nobody; accepted with a warning too. UNSUPPORTED: the key asks for
something that this version does not do; passing over it in silence could open a service to strangers (`basicAuth`)
or send clients elsewhere, so it is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import frozen

from trio_wsb.config import (
    accesslog,
    api,
    docker,
    entrypoints,
    metrics,
    middlewares,
    model,
    providers,
    services,
    tls,
)


@frozen
class Foreign:
    """A verdict on a key; `reason` completes "because ..." or says what to write instead."""

    verdict: Literal["ignored", "ineffective", "unsupported"]
    reason: str
    replaces: str = ""
    """The required key that it stands in for, whose absence is then no second problem."""


def _ignored(reason: str) -> Foreign:
    return Foreign("ignored", reason)


def _ineffective(reason: str) -> Foreign:
    return Foreign("ineffective", reason)


def _unsupported(reason: str, replaces: str = "") -> Foreign:
    return Foreign("unsupported", reason, replaces)


_HTTP_1 = _ignored("clients and backends are spoken to in HTTP/1.1")
_NO_LAYER_4 = _ignored("this is a balancer for HTTP and WebSocket")
_NO_TRACES = _ignored("there are no traces")
_ROTATION = _ignored("rotate the file with logrotate, or log to the journal")
_ONLY_PROMETHEUS = _ineffective("Prometheus fetches metrics at /metrics, and nothing sends them elsewhere")

_NO_ACME = _ineffective(
    "no certificates are obtained; those of tls.certificates and the default one are shown"
)

_FILE = {
    "global": _ignored("nothing is reported or updated"),
    "core": _ignored("rules are always read in the syntax of Traefik v3"),
    "experimental": _ignored("there are no plugins"),
    "tracing": _NO_TRACES,
    "spiffe": _ignored("there is no workload API"),
    "hostResolver": _ignored("there is no CNAME flattening"),
    "ocsp": _ignored("there is no stapling"),
    "tcp": _NO_LAYER_4,
    "udp": _NO_LAYER_4,
    "certificatesResolvers": _ineffective("no certificates are obtained"),
}

_ENTRY_POINT = {
    "asDefault": _unsupported("name entry points in the router's entryPoints"),
    "allowACMEByPass": _ignored("there is no ACME"),
    "http2": _HTTP_1,
    "http3": _HTTP_1,
    "udp": _NO_LAYER_4,
    "observability": _NO_TRACES,
}

_ROUTER = {
    "ruleSyntax": _unsupported("rules are always read in the syntax of Traefik v3"),
    "parentRefs": _unsupported("routers have no parents"),
    "observability": _NO_TRACES,
}

_SERVICE = {
    "highestRandomWeight": _unsupported("use loadBalancer with strategy hrw", "loadBalancer"),
    "middlewares": _unsupported("requests that they would refuse would pass"),
}

_PASSIVE = {
    "max_fails": _unsupported("it is maxFailedAttempts here"),
    "fail_timeout": _unsupported("it is failureWindow here"),
}

_PARTS_HEALTH = {"healthCheck": _ignored("the health of the services below always counts")}

_LOAD_BALANCER = {
    "responseForwarding": _ignored("what a backend sends is passed on at once"),
}

_SERVERS_TRANSPORT = {
    "cipherSuites": _unsupported("the system's choice is used"),
    "peerCertURI": _unsupported("use serverName"),
    "spiffe": _unsupported("there is no workload API"),
    "disableHTTP2": _HTTP_1,
    "maxIdleConnsPerHost": _ignored("a session has its own connection"),
}

_MIDDLEWARE = {
    "ipWhiteList": _unsupported("it is ipAllowList since Traefik v3", "ipAllowList"),
    "buffering": _unsupported("bodies are streamed, never held"),
    "errors": _unsupported("answers go to the client as the backend gives them"),
    "digestAuth": _unsupported("use basicAuth over TLS, or forwardAuth"),
    "passTLSClientCert": _unsupported("no client certificate is passed on"),
    "contentType": _ignored("the backend's Content-Type is never changed"),
    "grpcWeb": _unsupported("there is no gRPC without HTTP/2"),
    "encodedCharacters": _unsupported("paths are passed on as they were sent"),
    "plugin": _unsupported("there are no plugins"),
}

FOREIGN: Mapping[type, Mapping[str, Foreign]] = {
    entrypoints.EntryPointHTTP: {
        "encodeQuerySemicolons": _ignored("a query is passed on as it came"),
    },
    model.Config: _FILE,
    model.EntryPoint: _ENTRY_POINT,
    model.Transport: {
        "keepAliveMaxRequests": _ignored("a keep-alive connection may carry any number of requests"),
        "keepAliveMaxTime": _ignored(
            "transport.respondingTimeouts.idleTimeout ends a connection that is not used"
        ),
    },
    model.RespondingTimeouts: {
        "writeTimeout": _ignored(
            "loadBalancer.session.writeTimeout bounds how long a peer may accept nothing"
        ),
    },
    model.ForwardedHeaders: {
        "connection": _unsupported("fields that Connection names are never passed on"),
        "notAppendXForwardedFor": _unsupported("the client's address is always added"),
    },
    model.Router: _ROUTER,
    tls.RouterTLS: {
        "certResolver": _NO_ACME,
        "domains": _NO_ACME,
    },
    tls.Store: {"defaultGeneratedCert": _NO_ACME},
    tls.TLSOptions: {
        "preferServerCipherSuites": _ignored("the order of cipherSuites always counts"),
    },
    tls.ClientAuth: {"secretNames": _unsupported("name PEM files in caFiles")},
    metrics.Metrics: dict.fromkeys(("datadog", "influxDB2", "statsD", "otlp"), _ONLY_PROMETHEUS),
    metrics.Prometheus: {"headerLabels": _ignored("what clients send never becomes a label")},
    middlewares.Middleware: _MIDDLEWARE,
    providers.Providers: dict.fromkeys(
        (
            "swarm",
            "kubernetesIngress",
            "kubernetesIngressNGINX",
            "kubernetesCRD",
            "kubernetesGateway",
            "knative",
            "consulCatalog",
            "nomad",
            "ecs",
            "consul",
            "etcd",
            "zooKeeper",
            "redis",
            "http",
            "rest",
            "plugin",
        ),
        _ineffective(
            "backends are discovered by providers.docker and in DNS; dynamic files are read by providers.file"
        ),
    )
    | {"precedence": _ignored("names of different providers never meet")},
    docker.DockerProvider: {
        "allowNonRunning": _ignored("a container that does not run has no address"),
    },
    providers.FileProvider: {
        "debugLogGeneratedTemplate": _ignored("dynamic files are plain YAML, no templates"),
    },
    services.Service: _SERVICE,
    services.PassiveHealthCheck: _PASSIVE,
    services.Weighted: _PARTS_HEALTH,
    services.Failover: _PARTS_HEALTH,
    services.Mirroring: _PARTS_HEALTH,
    services.LoadBalancer: _LOAD_BALANCER,
    services.Server: {
        "preservePath": _ignored("the client's path is always kept"),
        "fenced": _unsupported("use weight: 0 to take a server out of the choice"),
    },
    model.ServersTransport: _SERVERS_TRANSPORT,
    model.ForwardingTimeouts: {
        "idleConnTimeout": _ignored("a session has its own connection"),
        "readIdleTimeout": _HTTP_1,
        "pingTimeout": _HTTP_1,
    },
    accesslog.AccessLog: {
        "otlp": _unsupported("the access log goes to standard output or to a file"),
        "dualOutput": _ignored("there is one output"),
    },
    api.API: {
        "debug": _ignored("there are no debugging pages"),
        "disableDashboardAd": _ignored("the dashboard advertises nothing"),
        "dashboardName": _ignored("the dashboard shows the name of the host"),
    },
    model.Log: {
        "noColor": _ignored("colours are used on a terminal alone"),
        "maxSize": _ROTATION,
        "maxAge": _ROTATION,
        "maxBackups": _ROTATION,
        "compress": _ROTATION,
        "otlp": _unsupported("the log goes to standard error or to a file"),
    },
}
"""The verdicts by the class of the model in whose place the key stands; `File` has those of `Config`."""


def foreign(cls: type, key: str) -> Foreign | None:
    """Return the verdict on `key` where the model has `cls`, or None when nobody knows it."""
    for each in cls.__mro__:
        if verdict := FOREIGN.get(each, {}).get(key):
            return verdict
    return None
