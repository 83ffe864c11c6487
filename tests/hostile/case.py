"""What a stranger sends, and what is right to answer.

Sources, named by their short words in the tables; the cases are described anew in words and bytes of ours:

- RFC 9110, 9112, 6455, 7239, 6265, 6454, 8446, 6066, 7301: the sections stand beside the cases.
- desync: J. Kettle, "HTTP Desync Attacks" (2019), "HTTP/1.1 must die" (2025), and the header permutations of the tool
  that goes with them; A. Klein, "HTTP Request Smuggling in 2020"; the HTTP Garden's differential findings (2024).
- chunks: J. Fuchs and others on chunk extensions and line ends (2025); CVE-2025-43859 (h11), CVE-2023-40225 (HAProxy).
- ws-smuggling: M. Egorov (0ang3el), "What's wrong with WebSocket APIs" (2019).
- hop-by-hop: N. Davison, "Abusing HTTP hop-by-hop request headers" (2019); CVE-2022-31813, CVE-2024-45410, CVE-2021-32813.
- httpoxy: CVE-2016-5385. slowloris: R. Hansen (2009). rebinding: CVE-2018-7160 and its kin.
- proxy: "The PROXY protocol", versions 1 and 2.
"""

from __future__ import annotations

from attrs import frozen

KEY = "dGhlIHNhbXBsZSBub25jZQ=="

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: victim.example\r\n\r\n"
"""What follows an attack, in the hope that somebody takes it for a request of somebody else's."""


@frozen
class Case:
    """Bytes that a client sends on a new connection.

    `status` is that of the first answer. `reaches` says whether a backend sees a request at all. Nothing that follows a
    refused case may be answered or reach a backend.
    """

    name: str
    sent: bytes
    status: int
    source: str
    reaches: bool = False

    def __str__(self) -> str:
        return self.name


def head(
    *lines: str | bytes, start: str | bytes = "POST / HTTP/1.1", host: str | None = "a.example"
) -> bytes:
    """Return a request head with these field lines, whatever is in them."""
    every = [start, *([] if host is None else [f"Host: {host}"]), *lines]
    raw = [line if isinstance(line, bytes) else line.encode("latin-1") for line in every]
    return b"\r\n".join(raw) + b"\r\n\r\n"


def upgrade(
    *lines: str | bytes, start: str = "GET /ws HTTP/1.1", version: str = "13", key: str = KEY
) -> bytes:
    """Return an opening handshake with more field lines."""
    return head(
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Version: {version}",
        f"Sec-WebSocket-Key: {key}",
        *lines,
        start=start,
    )
