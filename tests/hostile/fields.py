"""The table of what must not reach a backend, or not as it was sent. See `tests.hostile.case` for the sources."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from tests.hostile.case import head, upgrade

LIE = "203.0.113.66"
"""What a stranger says of itself; in the end no backend may have seen it."""


@frozen
class FieldCase:
    """A request that is good, and must reach its backend without what is false in it.

    `values` are those of fields at the backend; `gone` must be nowhere in the bytes that it got.
    """

    name: str
    sent: bytes
    source: str
    values: Mapping[str, list[str]] = field(factory=dict)
    gone: bytes = LIE.encode()
    body: bytes = b""

    def __str__(self) -> str:
        return self.name


US = {
    "X-Forwarded-For": ["127.0.0.1"],
    "X-Real-Ip": ["127.0.0.1"],
    "X-Forwarded-Proto": ["http"],
    "Host": ["a.example"],
}


def get(*lines: str | bytes) -> bytes:
    return head(*lines, start="GET / HTTP/1.1")


def _spoofed() -> list[FieldCase]:
    names = [
        "X-Forwarded-For", "x-forwarded-for", "X_Forwarded_For", "X-Forwarded_For", "X.Forwarded.For", "X-Real-Ip", "X_Real_Ip", "X-Forwarded-By",
        "X-Forwarded", "X-Forwarded-Client-Cert", "X-Forwarded-Server", "X-Forwarded-Host", "X_Forwarded_Host", "X-Forwarded-Port", "X-Forwarded-Prefix",
        "X-Forwarded-Proto", "X-Forwarded-User", "Proxy", "PROXY",
    ]  # fmt: skip
    source = "RFC 7239 8.1; hop-by-hop, httpoxy"
    cases = [FieldCase(f"spoofed: {name}", get(f"{name}: {LIE}"), source, US) for name in names]
    cases += [
        FieldCase("spoofed: Forwarded", get(f"Forwarded: for={LIE};host=evil"), source, US),
        FieldCase("spoofed: twice", get(f"X-Forwarded-For: {LIE}", f"X-Forwarded-For: {LIE}"), source, US),
        FieldCase("spoofed: ws", get("X-Forwarded-Proto: wss"), source, US, gone=b"wss"),
        FieldCase("spoofed: in an upgrade", upgrade(f"X-Forwarded-For: {LIE}"), source, {"X-Forwarded-For": ["127.0.0.1"], "X-Forwarded-Proto": ["ws"]}),
    ]  # fmt: skip
    return cases


def _nominated() -> list[FieldCase]:
    source = "RFC 9110 7.6.1; hop-by-hop"
    cases = [
        FieldCase(f"nominated: {name}", get(f"Connection: close, {name}", *(f"{each}: {LIE}" for each in name.split(", "))), source, US)
        for name in ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Forwarded", "X-Custom", "Cookie", "Keep-Alive", "X-Forwarded-For, X-Real-Ip")
    ]  # fmt: skip
    gone = b"Connection: close, "
    cases += [
        FieldCase("nominated: Host", get("Connection: close, Host"), source, US, gone),
        FieldCase("nominated: Content-Length", head("Connection: close, Content-Length", "Content-Length: 5") + b"hello", source, {**US, "Content-Length": ["5"]}, gone, b"hello"),
        FieldCase("nominated: Transfer-Encoding", head("Connection: close, Transfer-Encoding", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", source,
                  {**US, "Transfer-Encoding": ["chunked"]}, gone, b"hello"),
        FieldCase("nominated: Sec-WebSocket-Key", upgrade("Connection: Sec-WebSocket-Key"), source, {"Sec-WebSocket-Key": ["dGhlIHNhbXBsZSBub25jZQ=="]}, b"Connection: Sec"),
        FieldCase("nominated: Sec-WebSocket-Version", upgrade("Connection: Sec-WebSocket-Version"), source, {"Sec-WebSocket-Version": ["13"]}, b"Connection: Sec"),
        FieldCase("nominated: Origin stays gone rather than wrong", upgrade("Connection: Origin", f"Origin: http://{LIE}"), source, {"Origin": []}),
        FieldCase("hop by hop: h2c", get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), "RFC 9113 3.1; desync",
                  {"Upgrade": [], "HTTP2-Settings": [], "Connection": ["close"]}, b"h2c"),
        FieldCase("hop by hop: Upgrade without Connection", get("Upgrade: websocket"), "RFC 9110 7.8", {"Upgrade": [], "Connection": ["close"]}, b"websocket"),
        FieldCase("hop by hop: two protocols", upgrade("Upgrade: h2c"), "RFC 9110 7.8", {"Upgrade": ["websocket"]}, b"h2c"),
        FieldCase("hop by hop: TE", get("Connection: TE", f"TE: trailers, {LIE}"), "RFC 9110 10.1.4", {"TE": []}),
        FieldCase("hop by hop: Proxy-Authorization", get(f"Proxy-Authorization: Basic {LIE}"), "RFC 9110 11.7.2", {}),
        FieldCase("hop by hop: Proxy-Connection", get(f"Proxy-Connection: {LIE}"), "RFC 9112 C.2.2", {}),
    ]  # fmt: skip
    return cases


def _disguised() -> list[FieldCase]:
    source = "RFC 9110 17.10; desync"
    names = {
        "Content_Length": "99", "Content.Length": "99", "Transfer_Encoding": "chunked", "Transfer.Encoding": "chunked", "Sec_WebSocket_Key": "99", "Content_Type": "99",
    }  # fmt: skip
    return [
        FieldCase(f"disguised: {name}", get(f"{name}: {value}"), source, US, gone=name.encode())
        for name, value in names.items()
    ]


def _injected() -> list[FieldCase]:
    source = "RFC 9110 5.5; CWE-93"
    return [
        FieldCase("injected: in the path", head(start="GET /%0d%0aX-Injected:%20yes HTTP/1.1"), source, {"X-Injected": []}, b"\r\nX-Injected"),
        FieldCase("injected: in the query", head(start="GET /?a=%0d%0aX-Injected:%20yes HTTP/1.1"), source, {"X-Injected": []}, b"\r\nX-Injected"),
        FieldCase("injected: in a value", get("X-A: b%0d%0aX-Injected: yes"), source, {"X-A": ["b%0d%0aX-Injected: yes"], "X-Injected": []}, b"\r\nX-Injected"),
    ]  # fmt: skip


FIELDS: list[FieldCase] = [*_spoofed(), *_nominated(), *_disguised(), *_injected()]

ORIGINS: list[tuple[str, int]] = [
    ("https://app.example", 101),
    ("https://APP.example", 101),
    ("https://app.example:443", 101),
    ("https://a.good.example", 101),
    ("null", 403),
    ("http://app.example", 403),
    ("https://app.example:8443", 403),
    ("https://app.example.evil.test", 403),
    ("https://evilapp.example", 403),
    ("https://good.example", 403),
    ("https://evilgood.example", 403),
    ("https://app.example@evil.test", 403),
    ("https://evil.test#https://app.example", 403),
    ("https://evil.test/https://app.example", 403),
    ("https://evil.test?.good.example", 403),
    ("https://evil.test\\.good.example", 403),
    ("https://evil.test%2f.good.example", 403),
    ("https://xn--pp-7lb.example", 403),
    ("https://аpp.example", 403),  # a Cyrillic letter
    ("https://app.example https://evil.test", 403),
    ("https://app.example,https://evil.test", 403),
    ("https://evil.test,https://app.example", 403),
    ("javascript://app.example", 403),
    ("file://", 403),
    ("*", 403),
    ("https://*.good.example", 403),
    ("", 403),
    ("https://", 403),
    ("https://[::1]", 403),
]
"""Origin of a handshake, where `https://app.example` and `https://*.good.example` are allowed (RFC 6454, RFC 6455 10.2)."""

COOKIES: list[str] = [
    "", "x", "0" * 16, "f" * 16, "../../etc/passwd", '"', '""', "a" * 4000, "%00", "1;lb=2", "b1", "http://127.0.0.1:1", "-1", "{{7*7}}", "é", "=", "lb",
]  # fmt: skip
"""Values of the sticky cookie that nobody has been given (RFC 6265 8.3)."""
