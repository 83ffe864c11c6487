"""The opening handshake (RFC 6455 section 4), judged on both legs; pure functions.

A balancer that lets a questionable handshake pass opens a tunnel that somebody else has to trust: requests are
checked before a backend sees them, and an answer before the first byte is tunnelled. What the two endpoints
negotiate between themselves, extensions and the choice of a subprotocol, passes unchanged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final, Protocol

from trio_wsb.errors import BadRequest, BadResponse

VERSION: Final = "13"
"""The one version of the protocol (section 4.1, item 9)."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16
# The last digit stands for the last two bits, and an encoder leaves the other four at zero.
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Headers(Protocol):
    """Header fields; names are asked for in lower case."""

    def get(self, name: str, /) -> str | None:
        """Return the value of the first field called `name`."""
        ...

    def get_all(self, name: str, /) -> list[str]:
        """Return the values of all fields called `name`, in order."""
        ...

    def tokens(self, name: str, /) -> list[str]:
        """Return the comma-separated members of all fields called `name`, in lower case."""
        ...


class Request(Protocol):
    """The head of a request, as far as the handshake asks."""

    @property
    def method(self) -> str:
        """Method, case-sensitive."""
        ...

    @property
    def version(self) -> tuple[int, int]:
        """HTTP version, such as (1, 1)."""
        ...

    @property
    def headers(self) -> Headers:
        """Header fields."""
        ...


class Response(Protocol):
    """The head of a response, as far as the handshake asks."""

    @property
    def status(self) -> int:
        """Status code."""
        ...

    @property
    def headers(self) -> Headers:
        """Header fields."""
        ...


def accept_value(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers `key` (section 4.2.2, item 5.4)."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode("ascii")


def new_key(random_bytes: bytes) -> str:
    """Return a Sec-WebSocket-Key made of 16 random bytes (section 4.1, item 7).

    Raises:
      ValueError: `random_bytes` are not 16.

    """
    if len(random_bytes) != _KEY_BYTES:
        raise ValueError(f"a key is made of {_KEY_BYTES} bytes")
    return base64.b64encode(random_bytes).decode("ascii")


def is_upgrade(request: Request) -> bool:
    """Whether `request` asks for a WebSocket: Upgrade names websocket and Connection names upgrade (section 4.2.1).

    Without the Connection option the Upgrade field says nothing about this connection (RFC 9110 section 7.8).
    """
    return "websocket" in request.headers.tokens("upgrade") and "upgrade" in request.headers.tokens(
        "connection"
    )


def offered_protocols(request: Request) -> list[str]:
    """Return the subprotocols that the client offers, in its order and spelling (section 4.2.1, item 8)."""
    if request.headers.get("sec-websocket-protocol") is None:
        return []
    members = ",".join(request.headers.get_all("sec-websocket-protocol")).split(",")
    return [member.strip(" \t") for member in members if member.strip(" \t")]


def check_request(request: Request) -> None:
    """Check the opening handshake of a client, a request for which `is_upgrade` is true (section 4.2.1).

    Raises:
      BadRequest: 426 for another version of the protocol, 400 for anything else that is wrong.

    """
    headers = request.headers
    if request.method != "GET":
        raise BadRequest(400, "a WebSocket handshake is a GET request")
    if request.version < (1, 1):
        raise BadRequest(400, "a WebSocket handshake needs HTTP/1.1")
    # Two parsers that disagree on where this request ends are a smuggling vector, so it may not have a body at all.
    if headers.get_all("transfer-encoding") or any(
        value != "0" for value in headers.get_all("content-length")
    ):
        raise BadRequest(400, "a WebSocket handshake has no body")
    # Section 4.4: a version that is not understood is answered with the one that is. A request without any
    # comes from a draft before versions, or from a client that can only learn from the same answer.
    versions = headers.get_all("sec-websocket-version")
    if len(versions) > 1:
        raise BadRequest(400, "more than one Sec-WebSocket-Version")
    if versions != [VERSION]:
        raise BadRequest(426, "WebSocket version 13 is required", (("Sec-WebSocket-Version", VERSION),))
    keys = headers.get_all("sec-websocket-key")
    if len(keys) != 1:
        raise BadRequest(400, "more than one Sec-WebSocket-Key" if keys else "no Sec-WebSocket-Key")
    if not _is_key(keys[0]):
        raise BadRequest(400, "bad Sec-WebSocket-Key")
    if not all(_TOKEN.fullmatch(protocol) for protocol in offered_protocols(request)):
        raise BadRequest(400, "bad Sec-WebSocket-Protocol")


def check_answer(response: Response, key: str, offered_protocols: list[str]) -> None:
    """Check a backend's answer to a handshake with `key`, in the order of section 4.1, items 1 to 6.

    Args:
      response: an answer that claims to switch protocols.
      key: the Sec-WebSocket-Key that the backend was sent.
      offered_protocols: the subprotocols that the backend was offered.

    Raises:
      BadResponse: there may be no tunnel: the answer does not prove that a WebSocket server gave it, or it
        has settled on something that was not asked for.

    """
    headers = response.headers
    if response.status != 101:
        raise BadResponse("the backend did not switch protocols")
    if headers.tokens("upgrade") != ["websocket"]:
        raise BadResponse("the backend did not upgrade to websocket")
    if "upgrade" not in headers.tokens("connection"):
        raise BadResponse("the backend's Connection does not name upgrade")
    accepts = headers.get_all("sec-websocket-accept")
    if len(accepts) != 1:
        raise BadResponse(
            "more than one Sec-WebSocket-Accept from the backend"
            if accepts
            else "no Sec-WebSocket-Accept from the backend"
        )
    if accepts[0] != accept_value(key):
        raise BadResponse("wrong Sec-WebSocket-Accept from the backend")
    protocols = headers.get_all("sec-websocket-protocol")
    if len(protocols) > 1:
        raise BadResponse("more than one Sec-WebSocket-Protocol from the backend")
    if protocols and protocols[0] not in offered_protocols:
        raise BadResponse("the backend chose a subprotocol that was not offered")


def _is_key(text: str) -> bool:
    """Whether `text` is the base64 form of 16 bytes, the one that an encoder gives (RFC 4648 section 3.5)."""
    return _KEY.fullmatch(text) is not None
