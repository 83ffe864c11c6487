"""What stands before the first request: the PROXY header and the ClientHello.

The promises: no error but the one that is meant; waiting for more bytes always asks for more than there are and never for
more than the limit; more bytes behind change nothing; and OpenSSL sees the same server name as we do.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from trio_wsb.net.clienthello import (
    MAX_HELLO,
    ClientHello,
    ClientHelloError,
    Incomplete,
    parse_client_hello,
)
from trio_wsb.net.proxyheader import MAX_V2, ProxyHeader, ProxyHeaderError, parse_header
from trio_wsb.net.proxyheader import Incomplete as IncompleteHeader

MOST_LOOKS = 2048
"""How often a client can make us look at its first bytes again."""


def proxy_header(data: bytes) -> None:
    """A PROXY header of either version."""
    try:
        found = parse_header(data[:MAX_V2])
    except ProxyHeaderError:
        found = None
    size, looks = 0, 0
    try:
        while isinstance(stepwise := parse_header(data[:size]), IncompleteHeader):
            assert size < stepwise.needed <= MAX_V2
            size, looks = stepwise.needed, looks + 1
            if size > len(data):
                break
    except ProxyHeaderError:
        stepwise = None
    assert looks <= MOST_LOOKS
    if isinstance(found, ProxyHeader):
        assert stepwise == found
        assert found.size <= size <= len(data)
        assert parse_header(data[: found.size]) == found
    elif size <= len(data):
        assert stepwise is None


def client_hello(data: bytes) -> None:
    """The records of a ClientHello."""
    try:
        found = parse_client_hello(data)
    except ClientHelloError as error:
        assert 0 < error.alert < 256
        return
    if isinstance(found, Incomplete):
        assert len(data) < found.needed <= MAX_HELLO
    size, looks = 0, 0
    while isinstance(stepwise := parse_client_hello(data[:size]), Incomplete):
        size, looks = stepwise.needed, looks + 1
        if size > len(data):
            break
    assert looks <= MOST_LOOKS, "a client can make us look too often"
    if isinstance(found, ClientHello):
        # The message may be complete before the record that it is in.
        assert stepwise == found or size > len(data)
        _compare(data, found)


_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def _compare(data: bytes, found: ClientHello) -> None:
    names: list[str] = []

    def seen(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> int:
        names.append(name or "")
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    _CONTEXT.sni_callback = seen
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(data)
    try:
        _CONTEXT.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
    except (ssl.SSLError, ValueError):
        pass  # it may refuse what we do not look at; it must not see another name in it
    if names:
        assert names[0].rstrip(".").lower() == found.server_name.rstrip("."), "OpenSSL sees another name"


TARGETS: dict[str, Callable[[bytes], None]] = {"proxy_header": proxy_header, "client_hello": client_hello}
