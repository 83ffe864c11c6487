"""Views of sessions: which of them somebody wants to see, and each as plain values, ready for JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from attrs import frozen

from trio_wsb.addresses import IPNetwork, format_host, parse_backend_url, parse_ip, parse_network
from trio_wsb.balancing.backend import Backend, BackendTable
from trio_wsb.daemon.views import View
from trio_wsb.proxy.session import Session


@frozen
class SessionFilter:
    """Which sessions to list; each criterion that is None fits all.

    `backends` are those meant by what the user wrote, `client` an address or a network, or a text that is compared as
    it is.
    """

    backends: Collection[Backend] | None = None
    service: str | None = None
    client: IPNetwork | str | None = None

    def __call__(self, session: Session) -> bool:
        """Whether `session` fits."""
        if self.backends is not None and session.backend not in self.backends:
            return False
        if self.service is not None and session.service != self.service:
            return False
        return self.client is None or _is_client(session.client, self.client)


def session_filter(
    table: BackendTable, *, backend: str | None, service: str | None, client: str | None
) -> SessionFilter:
    """Return the filter for what a user wrote.

    A backend is meant as `backends_meant` says; a client by its address, its address and port, or a network.
    """
    network: IPNetwork | str | None = client
    if client is not None:
        try:
            network = parse_network(client)
        except ValueError:
            pass
    return SessionFilter(None if backend is None else backends_meant(table, backend), service, network)


def backends_meant(table: BackendTable, text: str) -> set[Backend]:
    """Return the backends that a user means: by URL, host and port, host, or the pod name that they reported."""
    return named(table, text)


def named(backends: Iterable[Backend], text: str) -> set[Backend]:
    """Return those of `backends` that a user means, as `backends_meant` has it."""
    try:
        url = parse_backend_url(text)
    except ValueError:
        return {each for each in backends if text in names_of(each)}
    return {each for each in backends if each.url == url}


def names_of(backend: Backend) -> list[str]:
    """Return what a backend may be called, but for its URL."""
    url = backend.url
    names = [url.authority, f"{format_host(url.host)}:{url.port}", url.host]
    return names if backend.pod_name is None else [*names, backend.pod_name]


def _is_client(text: str, wanted: IPNetwork | str) -> bool:
    if isinstance(wanted, str):
        return text == wanted
    host = text.rpartition(":")[0] if text.count(":") == 1 or "]" in text else text
    try:
        address = parse_ip(host.strip("[]"))
    except ValueError:
        return False
    return address.version == wanted.version and address in wanted


def session_view(each: Session, now: float, *, draining: bool = False) -> View:
    """Return one session, under the names that its log lines use; `draining` says that its backend is taken away."""
    each.relay.merge()
    up, down = each.relay.up.scanner, each.relay.down.scanner
    return {
        "session": each.id,
        "client": each.client,
        "entryPoint": each.entry_point,
        "router": each.router,
        "service": each.service,
        "backend": str(each.backend.url),
        "podName": each.backend.pod_name,
        "nodeName": each.backend.node_name,
        "host": each.host,
        "path": each.path,
        "tries": each.tries,
        "relay": each.relay_kind,
        "relayReason": each.relay_reason,
        "duration": round(now - each.opened_at, 3),
        "messagesIn": up.messages,
        "messagesOut": down.messages,
        "bytesIn": up.bytes,
        "bytesOut": down.bytes,
        "draining": draining,
        # Known as soon as the session begins to end, which takes a moment.
        "cause": each.relay.cause and each.relay.cause.value,
    }
