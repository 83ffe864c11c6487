"""By which names the API may be asked for: the guard against DNS rebinding.

The page of a stranger that a browser here shows may ask for anything at the stranger's own name, and the stranger may point
that name at this host: to the browser they are one origin, and the page reads our answer. What gives it away is the Host
field, which still has the stranger's name.
"""

from __future__ import annotations

from collections.abc import Collection

from trio_wsb.addresses import parse_ip


def is_own_host(host: str, own: Collection[str], allowed: Collection[str]) -> bool:
    """Whether a request for `host` means this daemon.

    Args:
      host: as in `RequestHead.host`: lower-case, without port and trailing dot; "" when HTTP/1.0 named none.
      own: hosts of the addresses that the configuration listens on.
      allowed: `api.allowedHosts`; a name that begins with ``*.`` is every name below it.

    An address cannot be rebound: a browser takes it for what it is. Nor can ``localhost`` and what is below it
    (RFC 6761 section 6.3).
    """
    if host in {"", "localhost"} or host.endswith(".localhost") or host in own:
        return True
    for pattern in allowed:
        name = pattern.lower().removesuffix(".")
        if host == name or (name.startswith("*.") and host.endswith(name[1:]) and len(host) > len(name) - 1):
            return True
    try:
        parse_ip(host)
    except ValueError:
        return False
    return True


def is_same_origin(origin: str | None, authority: str) -> bool:
    """Whether a WebSocket handshake comes from a page of ours, or from no page at all (RFC 6455 section 10.2).

    Args:
      origin: the Origin field; None for a client that is no browser.
      authority: the Host field.

    The scheme is not compared: a proxy in front of us may have ended TLS.
    """
    if origin is None:
        return True
    scheme, separator, host = origin.lower().partition("://")
    if not separator or scheme not in {"http", "https"}:
        return False
    ports = (":80", ":443")
    bare = host.removesuffix(ports[scheme == "https"])
    asked = authority.lower()
    return asked in {host, bare} or asked.removesuffix(ports[scheme == "https"]) == bare
