"""A client's opening handshake (RFC 6455 section 4.1), for tests whose client is no WebSocket library."""

from __future__ import annotations

from typing import Final

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
"""The sample of RFC 6455 section 1.3."""

UPGRADE: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
"""The fields that make a GET request one."""

UPGRADE_LINES: Final = tuple(f"{name}: {value}" for name, value in UPGRADE.items())


def opening(path: str = "/", *, host: str = "chat.example") -> bytes:
    """Return an opening handshake as it is sent."""
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *UPGRADE_LINES, "", ""]).encode()
