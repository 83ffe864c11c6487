"""The ClientHello: what a TLS client says before anything is decided (RFC 8446 section 4.1.2).

It is read without being taken from the socket, so that the context for the handshake, with its versions, its
certificate and whether it asks for the client's, can be chosen by the name that the client asks for. What of it is not
needed for that is skipped here and judged by OpenSSL, which reads it again.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

MAX_HELLO: Final = 16 * 1024
"""Bytes of a ClientHello with the records that carry it. Browsers send 500 to 2,000."""

MAX_RECORDS: Final = 128
"""Records that may carry it. Clients send one; those that hide its name from a censor a few. Each byte that drips in may
make us look again at all that are there, which with records of one byte each would cost seconds of processor time."""

HANDSHAKE: Final = 0x16
"""The first byte of a record that carries a handshake message (RFC 8446 section 5.1)."""

DECODE_ERROR: Final = 50
ILLEGAL_PARAMETER: Final = 47
NO_APPLICATION_PROTOCOL: Final = 120
UNRECOGNIZED_NAME: Final = 112
"""Alerts (RFC 8446 section 6)."""

_CLIENT_HELLO: Final = 1
_RECORD_HEADER: Final = 5
_MESSAGE_HEADER: Final = 4
_MAX_RECORD: Final = 1 << 14
_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS = 0, 16, 43
_NAME: Final = re.compile(rb"[A-Za-z0-9_.-]{1,253}")


class ClientHelloError(Exception):
    """What begins like TLS is no ClientHello that we take; `reason` is for the log, `alert` the number to answer with."""

    def __init__(self, reason: str, alert: int = DECODE_ERROR) -> None:
        super().__init__(reason)
        self.reason = reason
        self.alert = alert


@frozen
class ClientHello:
    """What a client offers.

    `server_name` is in lower case without a final dot, "" when the client names none; `protocols` are None when it offers
    none by ALPN; `versions` are TLS versions as on the wire (0x0304 is TLS 1.3).
    """

    server_name: str = ""
    protocols: tuple[bytes, ...] | None = None
    versions: tuple[int, ...] = ()


@frozen
class Incomplete:
    """The ClientHello goes on; it cannot be complete before there are `needed` bytes."""

    needed: int


def parse_client_hello(data: bytes | memoryview) -> ClientHello | Incomplete | None:
    """Return what the first bytes of a connection offer, None if they are no TLS.

    Args:
      data: all that has come so far.

    Raises:
      ClientHelloError: it is TLS, but nothing that we can answer.

    """
    if not len(data):
        return Incomplete(1)
    if data[0] != HANDSHAKE:
        return None
    message = bytearray()
    at = count = 0
    while True:
        count += 1
        if count > MAX_RECORDS:
            raise ClientHelloError("a ClientHello in too many records")
        if len(data) < at + _RECORD_HEADER:
            return _more(at + _RECORD_HEADER)
        # The major version is 3 in every version there is; a record of another type cannot stand in between.
        length = data[at + 3] << 8 | data[at + 4]
        if data[at] != HANDSHAKE or data[at + 1] != 3 or not 0 < length <= _MAX_RECORD:
            raise ClientHelloError("a malformed TLS record")
        end = at + _RECORD_HEADER + length
        message += data[at + _RECORD_HEADER : end]
        if message and message[0] != _CLIENT_HELLO:
            raise ClientHelloError("not a ClientHello", 10)  # unexpected_message
        if len(message) >= _MESSAGE_HEADER:
            wanted = _MESSAGE_HEADER + int.from_bytes(message[1:4], "big")
            if wanted > MAX_HELLO:
                raise ClientHelloError("the ClientHello is too large")
            if len(message) >= wanted:
                return _parse_body(_Reader(bytes(message[_MESSAGE_HEADER:wanted])))
        if len(data) < end:
            return _more(end)
        at = end


def alert_record(alert: int) -> bytes:
    """Return the record that ends a handshake which has not begun with a fatal alert (RFC 8446 section 6)."""
    return bytes((21, 3, 1, 0, 2, 2, alert))


def _more(needed: int) -> Incomplete:
    if needed > MAX_HELLO:
        raise ClientHelloError("the ClientHello is too large")
    return Incomplete(needed)


class _Reader:
    """Takes vectors off the front of some bytes (RFC 8446 section 3.4)."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise ClientHelloError("a ClientHello that is cut short")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Take a vector whose length is written in `size` bytes."""
        return self.take(self.number(size))


def _parse_body(reader: _Reader) -> ClientHello:
    version = reader.number(2)
    reader.take(32)  # random
    reader.vector(1)  # legacy session id
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression methods
    if not reader.left():  # extensions came with TLS 1.2
        return ClientHello(versions=(version,))
    extensions = _Reader(reader.vector(2))
    if reader.left():
        raise ClientHelloError("bytes behind the extensions")
    name, protocols, seen = "", None, set[int]()
    versions: tuple[int, ...] = (version,)
    while extensions.left():
        kind, body = extensions.number(2), _Reader(extensions.vector(2))
        if kind in seen:  # RFC 8446 section 4.2
            raise ClientHelloError("an extension that comes twice", ILLEGAL_PARAMETER)
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _server_name(body)
        elif kind == _ALPN:
            protocols = _protocols(body)
        elif kind == _SUPPORTED_VERSIONS:
            listed = body.vector(1)
            versions = tuple(int.from_bytes(listed[at : at + 2], "big") for at in range(0, len(listed), 2))
    return ClientHello(name, protocols, versions)


def _server_name(body: _Reader) -> str:
    """Return the host name of a server_name extension (RFC 6066 section 3)."""
    names, name = _Reader(body.vector(2)), ""
    while names.left():
        kind, value = names.number(1), names.vector(2)
        if kind:
            continue  # there is no other kind yet
        if name or not _NAME.fullmatch(value):
            raise ClientHelloError("a server name that is none", ILLEGAL_PARAMETER)
        name = value.decode("ascii")
    return name.removesuffix(".").lower()


def _protocols(body: _Reader) -> tuple[bytes, ...]:
    """Return the names in an ALPN extension (RFC 7301 section 3.1)."""
    names, protocols = _Reader(body.vector(2)), list[bytes]()
    while names.left():
        protocols.append(names.vector(1))
    if not protocols or not all(protocols):
        raise ClientHelloError("an empty protocol name")
    return tuple(protocols)
