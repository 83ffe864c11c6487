"""What must hold for servers whose names are looked up in DNS. Nothing here looks one up."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from trio_wsb.addresses import BackendURL
from trio_wsb.config.problems import Finding, KeyPath
from trio_wsb.config.services import Server


def resolve_findings(servers: Sequence[Server], path: KeyPath) -> Iterator[Finding]:
    """Yield what is wrong with the servers at `path` that have `resolve`."""
    named: dict[tuple[str, str, str], int] = {}
    for index, server in enumerate(servers):
        if server.resolve is None:
            continue
        here, url = (*path, index, "resolve"), server.url
        if _is_address(url.host):
            message = f"{url.host} is an address, and nothing is left to resolve"
            yield Finding(here, message, "leave out resolve, or write a name into url")
            continue
        if server.resolve == "srv" and _has_port(url):
            message = "takes the ports from SRV records, and that in url has no effect"
            hint = f'write url: "{url.scheme}://{url.host}"'
            yield Finding(here, message, hint, "warning")
        # Ports of SRV records are their own, so two URLs that differ in the port would be the same servers.
        key = (url.scheme, url.host.lower().rstrip("."), "srv" if server.resolve == "srv" else str(url.port))
        if named.setdefault(key, index) != index and servers[named[key]].url != url:
            message = f"{url.host} is the same name as"
            other = (*path, named[key], "url")
            yield Finding((*path, index, "url"), message, "list each name once", other=other)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _has_port(url: BackendURL) -> bool:
    authority = url.written.partition("://")[2].rstrip("/")
    return authority.rpartition(":")[2].isdigit() and ":" in authority
