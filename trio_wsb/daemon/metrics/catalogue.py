"""The catalogue: every metric by its name, with what it means and which labels it has.

The reference in docs/reference/metrics.md is made from it: ``python -m trio_wsb.daemon.metrics.reference``. What is not
in here is not exported, and a test sees to it that all of it is.
"""

from __future__ import annotations

from typing import Final

from trio_wsb.daemon.metrics.definition import Definition, Group, counter, gauge, histogram

# The instance.
BUILD: Final = Definition(
    "trio_wsb_build_info", "info", "Which program this is.", ("version", "python", "trio")
)
STOPPING: Final = gauge("trio_wsb_stopping", "Whether the daemon is stopping.")
TASKS: Final = gauge("trio_wsb_tasks", "Tasks on the event loop.")
LOOP_LAG: Final = histogram(
    "trio_wsb_event_loop_lag_seconds", "How much later than it could a task ran, sampled twice a second."
)
LOOP_LAG_WORST: Final = gauge(
    "trio_wsb_event_loop_lag_worst_seconds", "The worst lag that was sampled in the last minute."
)
SCRAPE_DURATION: Final = gauge(
    "trio_wsb_scrape_duration_seconds", "How long the last scrape took to make; 0 in the first one."
)
SCRAPE_TURN: Final = gauge(
    "trio_wsb_scrape_longest_turn_seconds",
    "Processor time for which the last scrape kept the event loop at most; 0 in the first one.",
)

# Sessions.
SESSIONS_OPEN: Final = gauge("trio_wsb_sessions_open", "Sessions open now.")
SESSIONS_IN_KERNEL: Final = gauge(
    "trio_wsb_sessions_in_kernel", "Of the sessions that are open those whose bytes the kernel moves."
)
RELAYS: Final = counter(
    "trio_wsb_relays_total",
    "Sessions that were opened, by who moves their bytes, the kernel or the daemon (stream), and why it is not the kernel.",
    "relay",
    "reason",
)
KERNEL_RELAY_STALLS: Final = counter(
    "trio_wsb_kernel_relay_stalls_total",
    "Directions of sessions that were taken back from the kernel, because bytes came and went nowhere.",
)
SESSIONS_OPENED: Final = counter("trio_wsb_sessions_opened_total", "Sessions that were opened.")
SESSIONS_ENDED: Final = counter(
    "trio_wsb_sessions_ended_total",
    "Sessions that ended, by cause and by the code of the first Close frame.",
    "cause",
    "code",
)
SESSION_DURATION: Final = histogram(
    "trio_wsb_session_duration_seconds", "How long the sessions that ended had been open."
)
MESSAGES: Final = counter(
    "trio_wsb_messages_total",
    "Messages relayed, those of open sessions included, from clients (in) and to them (out).",
    "direction",
)
BYTES: Final = counter(
    "trio_wsb_bytes_total",
    "Bytes relayed by sessions, as on the wire with frame headers, from clients (in) and to them (out).",
    "direction",
)
HANDSHAKE_DURATION: Final = histogram(
    "trio_wsb_handshake_duration_seconds", "From a client's whole request head to its session."
)
HANDSHAKE_FAILURES: Final = counter(
    "trio_wsb_handshake_failures_total",
    "Opening handshakes that became no session, by how far they came and why.",
    "stage",
    "reason",
)
REQUEST_FAILURES: Final = counter(
    "trio_wsb_request_failures_total",
    "Other requests that were refused or given up, by how far they came and why.",
    "stage",
    "reason",
)
RETRIES: Final = counter("trio_wsb_retries_total", "Further backends that requests and handshakes tried.")

# Configuration.
RELOADS: Final = counter("trio_wsb_config_reloads_total", "Reloads, by what came of them.", "result")
RELOAD_SUCCESS: Final = gauge(
    "trio_wsb_config_last_reload_success", "Whether the last reload succeeded; 1 before the first one."
)
RELOAD_TIME: Final = gauge(
    "trio_wsb_config_loaded_timestamp_seconds", "When the configuration in force was loaded."
)
RELOAD_DURATION: Final = gauge(
    "trio_wsb_config_last_reload_duration_seconds", "How long the last reload took; 0 before the first one."
)
CONFIG_WARNINGS: Final = gauge(
    "trio_wsb_config_warnings", "Warnings about the configuration that is in force."
)
CONFIG_FILES: Final = gauge(
    "trio_wsb_config_files",
    "Dynamic files: `ok`, or `bad` when their last good version, or nothing of them, is in force.",
    "state",
)
ENGINE_AWAY: Final = gauge(
    "trio_wsb_docker_engine_away",
    "Whether the Docker Engine of `providers.docker` does not answer; what is known of its containers stays.",
)
CONTAINERS: Final = gauge(
    "trio_wsb_docker_containers",
    "Running containers: `used`, `ignored`, or `bad` when they give nothing since their labels have errors.",
    "state",
)
NAME_LOOKUPS: Final = counter(
    "trio_wsb_name_lookups_total",
    "Questions about names of backends, by who asked (`discovery` for those with `resolve`, `system` for the others) and what came of them.",
    "source",
    "result",
)
NAME_FAILING: Final = gauge(
    "trio_wsb_name_failing",
    "Whether a backend's name does not resolve, or not wholly, by the last answers; what was known of it stays in use.",
    "name",
)
NAME_ENDPOINTS: Final = gauge(
    "trio_wsb_name_endpoints", "Backends that a name with `resolve` stands for.", "name", "resolve"
)
ROUTERS_DISABLED: Final = gauge(
    "trio_wsb_config_routers_disabled", "Routers of the configuration that do not run since they have errors."
)
CERTIFICATE: Final = gauge(
    "trio_wsb_tls_certificate_not_after_timestamp_seconds",
    "Until when a certificate that clients are shown is valid, by its place in the configuration.",
    "certificate",
    "common_name",
)

# Middlewares and mirrors.
MIDDLEWARE_ANSWERS: Final = counter(
    "trio_wsb_middleware_answers_total",
    "Requests that a middleware answered itself: refusals such as 429, redirects, 401.",
    "middleware",
    "kind",
    "code",
)
BREAKER_STATE: Final = gauge(
    "trio_wsb_circuit_breaker_state",
    "Whether a circuit breaker, at one router, is in this state: closed, open or recovering.",
    "middleware",
    "router",
    "state",
)
BREAKER_PASSING: Final = gauge(
    "trio_wsb_circuit_breaker_passing_ratio",
    "Which part of the requests a circuit breaker lets pass.",
    "middleware",
    "router",
)
BREAKER_OPENED: Final = counter(
    "trio_wsb_circuit_breaker_opened_total", "How often a circuit breaker opened.", "middleware", "router"
)
BREAKER_ATTEMPTS: Final = gauge(
    "trio_wsb_circuit_breaker_attempts",
    "Attempts of the last ten seconds that a circuit breaker judges by.",
    "middleware",
    "router",
)
BREAKER_ERRORS: Final = gauge(
    "trio_wsb_circuit_breaker_network_error_ratio",
    "Which part of those attempts got no answer from a backend.",
    "middleware",
    "router",
)
RATE_LIMIT_SOURCES: Final = gauge(
    "trio_wsb_rate_limit_sources", "Sources that a rateLimit remembers.", "middleware"
)
IN_FLIGHT: Final = gauge(
    "trio_wsb_in_flight_requests", "Requests and sessions that an inFlightReq counts.", "middleware"
)
MIRROR_OPEN: Final = gauge("trio_wsb_mirror_copies_open", "Copies of sessions and requests under way.")
MIRROR_BEGUN: Final = counter("trio_wsb_mirror_copies_total", "Copies that were begun.")
MIRROR_DROPPED: Final = counter(
    "trio_wsb_mirror_copies_dropped_total", "Copies that were given up, or not begun, by reason.", "reason"
)

# Entry points.
ENTRYPOINT_CONNECTIONS: Final = gauge(
    "trio_wsb_entrypoint_connections_open", "Client connections open now.", "entrypoint"
)
ENTRYPOINT_LIMIT: Final = gauge(
    "trio_wsb_entrypoint_connections_limit", "maxConnections; 0 is no limit.", "entrypoint"
)
ENTRYPOINT_OVER_LIMIT: Final = counter(
    "trio_wsb_entrypoint_connections_refused_total",
    "Connections refused because the entry point had as many as maxConnections.",
    "entrypoint",
)
ENTRYPOINT_REFUSED: Final = counter(
    "trio_wsb_entrypoint_address_refusals_total",
    "Connections refused since their client's address had its share: maxPendingPerAddress, maxConnectionsPerAddress.",
    "entrypoint",
)
ENTRYPOINT_SESSIONS: Final = gauge("trio_wsb_entrypoint_sessions_open", "Sessions open now.", "entrypoint")
ENTRYPOINT_REQUESTS: Final = counter(
    "trio_wsb_entrypoint_requests_total",
    "Requests and handshakes, by what was answered: 101 is a session, 499 a client that left.",
    "entrypoint",
    "code",
    "method",
    "protocol",
)
ENTRYPOINT_DURATION: Final = histogram(
    "trio_wsb_entrypoint_request_duration_seconds",
    "From a whole request head to the end of the answer, or of the handshake.",
    "entrypoint",
    "protocol",
)
ENTRYPOINT_BYTES: Final = counter(
    "trio_wsb_entrypoint_bytes_total",
    "Bytes of request and response bodies and of sessions, from clients (in) and to them (out).",
    "entrypoint",
    "protocol",
    "direction",
)
ENTRYPOINT_TLS: Final = counter(
    "trio_wsb_entrypoint_tls_handshakes_total",
    "TLS handshakes by what came of them: completed, failed, or refused over maxTLSHandshakes.",
    "entrypoint",
    "result",
)

# Routers.
ROUTER_SESSIONS: Final = gauge("trio_wsb_router_sessions_open", "Sessions open now.", "router", "service")
ROUTER_REQUESTS: Final = counter(
    "trio_wsb_router_requests_total",
    "Requests and handshakes, by what was answered.",
    "router",
    "service",
    "code",
    "method",
    "protocol",
)
ROUTER_DURATION: Final = histogram(
    "trio_wsb_router_request_duration_seconds",
    "From a whole request head to the end of the answer, or of the handshake.",
    "router",
    "service",
    "protocol",
)

# Services.
SERVICE_SESSIONS: Final = gauge("trio_wsb_service_sessions_open", "Sessions open now.", "service")
SERVICE_OPENED: Final = counter(
    "trio_wsb_service_sessions_opened_total", "Sessions that were opened.", "service"
)
SERVICE_ENDED: Final = counter(
    "trio_wsb_service_sessions_ended_total",
    "Sessions that ended, by cause and by the code of the first Close frame.",
    "service",
    "cause",
    "code",
)
SERVICE_DURATION: Final = histogram(
    "trio_wsb_service_session_duration_seconds", "How long the sessions that ended had been open.", "service"
)
SERVICE_HANDSHAKES: Final = histogram(
    "trio_wsb_service_handshake_duration_seconds",
    "From a client's whole request head to its session.",
    "service",
)
SERVICE_FAILURES: Final = counter(
    "trio_wsb_service_handshake_failures_total",
    "Opening handshakes that became no session, by how far they came.",
    "service",
    "stage",
)
SERVICE_REQUESTS: Final = counter(
    "trio_wsb_service_requests_total",
    "Requests and handshakes, by what was answered.",
    "service",
    "code",
    "method",
    "protocol",
)
SERVICE_RETRIES: Final = counter(
    "trio_wsb_service_retries_total", "Further backends that requests and handshakes tried.", "service"
)
SERVICE_WAITING: Final = gauge(
    "trio_wsb_service_handshakes_waiting", "Handshakes that wait for a place at a backend.", "service"
)
SERVICE_MESSAGES: Final = counter(
    "trio_wsb_service_messages_total", "Messages relayed.", "service", "direction"
)
SERVICE_BYTES: Final = counter(
    "trio_wsb_service_bytes_total", "Bytes relayed by sessions.", "service", "direction"
)
SERVICE_BACKENDS: Final = gauge(
    "trio_wsb_service_backends",
    "Backends of the service by what they are now, in the words of `trio-wsb status`.",
    "service",
    "state",
)
SERVICE_REBALANCING: Final = gauge(
    "trio_wsb_service_rebalancing", "Whether sessions are being moved to even out its backends.", "service"
)

# Backends.
_BACKEND: Final = ("service", "backend")
BACKEND_SESSIONS: Final = gauge("trio_wsb_backend_sessions_open", "Sessions open now.", *_BACKEND)
BACKEND_HANDSHAKES: Final = gauge(
    "trio_wsb_backend_handshakes", "Handshakes and requests under way, those of all services.", *_BACKEND
)
BACKEND_OPENED: Final = counter(
    "trio_wsb_backend_sessions_opened_total", "Sessions that were opened.", *_BACKEND
)
BACKEND_ENDED: Final = counter(
    "trio_wsb_backend_sessions_ended_total", "Sessions that ended, by cause.", *_BACKEND, "cause"
)
BACKEND_MESSAGES: Final = counter(
    "trio_wsb_backend_messages_total", "Messages relayed.", *_BACKEND, "direction"
)
BACKEND_BYTES: Final = counter(
    "trio_wsb_backend_bytes_total", "Bytes relayed by sessions.", *_BACKEND, "direction"
)
BACKEND_FAILURES: Final = counter(
    "trio_wsb_backend_failures_total", "Dials and handshakes that failed, those of all services.", *_BACKEND
)
BACKEND_DROPS: Final = counter(
    "trio_wsb_backend_drops_total", "Sessions that the backend ended right after they opened.", *_BACKEND
)
BACKEND_UP: Final = gauge(
    "trio_wsb_backend_up", "0 when a health check says that it is down, else 1.", *_BACKEND
)
BACKEND_READY: Final = gauge(
    "trio_wsb_backend_ready", "Whether it gets new sessions at this moment.", *_BACKEND
)
BACKEND_DRAINING: Final = gauge("trio_wsb_backend_draining", "Whether it is being drained.", *_BACKEND)
BACKEND_COOLING: Final = gauge(
    "trio_wsb_backend_cooling_down", "Whether it is passed over after failures.", *_BACKEND
)
BACKEND_WEIGHT: Final = gauge("trio_wsb_backend_weight", "Its weight in the configuration.", *_BACKEND)
BACKEND_LIMIT: Final = gauge(
    "trio_wsb_backend_connections_limit", "maxConnections; 0 is no limit.", *_BACKEND
)
BACKEND_LOAD: Final = gauge(
    "trio_wsb_backend_load",
    "What it is chosen by: own sessions, handshakes and foreign connections.",
    *_BACKEND,
)
BACKEND_REPORTED: Final = gauge(
    "trio_wsb_backend_connections_reported", "Connections that its last report says it has.", *_BACKEND
)
BACKEND_FOREIGN: Final = gauge(
    "trio_wsb_backend_connections_foreign", "Connections that it is taken to have from others.", *_BACKEND
)
BACKEND_REPORT_AGE: Final = gauge(
    "trio_wsb_backend_report_age_seconds", "Seconds since its last report; absent without one.", *_BACKEND
)
BACKEND_REPORT_STALE: Final = gauge(
    "trio_wsb_backend_report_stale", "Whether its report is older than staleAfter, or missing.", *_BACKEND
)
BACKEND_REPORTS: Final = counter("trio_wsb_backend_reports_total", "Reports that it gave.", *_BACKEND)
BACKEND_INFO: Final = Definition(
    "trio_wsb_backend_info",
    "info",
    "The names that its report gives; joins them to the other metrics.",
    (*_BACKEND, "pod_name", "pod_ip", "node_name"),
)
DRAIN_LEFT: Final = gauge(
    "trio_wsb_drain_sessions_left",
    "Of a backend that is drained what is there still; the service is empty for a drain in all of them.",
    *_BACKEND,
)

# Traefik's names.
_CELL: Final = ("code", "method", "protocol")
T_RELOADS: Final = counter("traefik_config_reloads_total", "Config reloads")
T_LAST_SUCCESS: Final = gauge("traefik_config_last_reload_success", "Last config reload success")
T_OPEN: Final = gauge(
    "traefik_open_connections",
    "How many open connections exist, by entryPoint and protocol",
    "entrypoint",
    "protocol",
)
T_SERVICE_OPEN: Final = gauge(
    "traefik_service_open_connections",
    "How many open connections exist on a service, partitioned by method and protocol. Traefik v3 no longer has it.",
    "method",
    "protocol",
    "service",
)
T_SERVER_UP: Final = gauge(
    "traefik_service_server_up",
    "service server is up, described by gauge value of 0 or 1.",
    "service",
    "url",
)
T_RETRIES: Final = counter(
    "traefik_service_retries_total", "How many request retries happened on a service.", "service"
)
T_REQUESTS: Final = {
    level: counter(
        f"traefik_{level}_requests_total", f"How many HTTP requests processed on {words}.", *_CELL, *labels
    )
    for level, words, labels in (
        ("entrypoint", "an entrypoint", ("entrypoint",)),
        ("router", "a router", ("router", "service")),
        ("service", "a service", ("service",)),
    )
}
T_DURATION: Final = {
    level: histogram(
        definition.name.replace("requests_total", "request_duration_seconds"),
        "How long it took to process the request; of a WebSocket the handshake.",
        *definition.labels,
    )
    for level, definition in T_REQUESTS.items()
}
T_BYTES_IN: Final = {
    level: counter(
        definition.name.replace("requests_total", "requests_bytes_total"),
        "The total size of requests in bytes; of WebSockets what clients sent.",
        *definition.labels,
    )
    for level, definition in T_REQUESTS.items()
}
T_BYTES_OUT: Final = {
    level: counter(
        definition.name.replace("requests_total", "responses_bytes_total"),
        "The total size of responses in bytes; of WebSockets what clients were sent.",
        *definition.labels,
    )
    for level, definition in T_REQUESTS.items()
}


def _traefik() -> tuple[Definition, ...]:
    tables = (T_REQUESTS, T_DURATION, T_BYTES_IN, T_BYTES_OUT)
    single = (T_RELOADS, T_LAST_SUCCESS, T_OPEN, T_SERVICE_OPEN, T_SERVER_UP, T_RETRIES)
    return (*single, *(table[level] for level in T_REQUESTS for table in tables))


def _between(first: Definition, last: Definition) -> tuple[Definition, ...]:
    """Return the definitions of this module from `first` to `last`, in their order."""
    found = [each for each in globals().values() if isinstance(each, Definition)]
    return tuple(found[found.index(first) : found.index(last) + 1])


GROUPS: Final[tuple[Group, ...]] = (
    Group("The daemon", "", _between(BUILD, SCRAPE_TURN)),
    Group("Sessions", "", _between(SESSIONS_OPEN, RETRIES)),
    Group("Configuration", "", _between(RELOADS, CERTIFICATE)),
    Group("Middlewares and mirrors", "", _between(MIDDLEWARE_ANSWERS, MIRROR_DROPPED)),
    Group("Entry points", "addEntryPointsLabels", _between(ENTRYPOINT_CONNECTIONS, ENTRYPOINT_TLS)),
    Group("Routers", "addRoutersLabels", _between(ROUTER_SESSIONS, ROUTER_DURATION)),
    Group("Services", "addServicesLabels", _between(SERVICE_SESSIONS, SERVICE_REBALANCING)),
    Group("Backends", "addServicesLabels", _between(BACKEND_SESSIONS, DRAIN_LEFT)),
    Group("Traefik's names", "traefikNames", _traefik()),
)
"""Everything that is exported, but for what the client library says of the process (`process_*`)."""
