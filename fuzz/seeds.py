"""What fuzzing begins with where there is no corpus yet: one good input of each kind, and some that are nearly good."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

_ETC = Path(__file__).parent.parent / "etc"
_PLAIN = b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: lb=0123456789abcdef\r\n\r\n"
_UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"
)
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)
_CHUNKS = b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n"
_POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def _hello(name: str, protocols: list[str]) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def _frame(first: int, payload: bytes, *, masked: bool) -> bytes:
    size = len(payload)
    bit = 0x80 if masked else 0
    length = bytes((bit | size,)) if size < 126 else bytes((bit | 126,)) + size.to_bytes(2, "big")
    return bytes((first,)) + length + bytes(4 * masked) + payload


def _frames() -> list[bytes]:
    found = []
    for masked in (False, True):
        stream = b"".join(
            _frame(first, payload, masked=masked)
            for first, payload in [
                (0x81, b"hello"), (0x01, b"a"), (0x89, b"ping"), (0x80, b"b" * 300), (0xC2, b""),
                (0x8A, b"\x01" * 8 + bytes((0, 0, 0, 1))), (0x88, b"\x03\xe8bye"),
            ]
        )  # fmt: skip
        found += [bytes((0, masked)) + stream, bytes((5, masked)) + stream]
    return found


def _block(command: int, family: int, rest: bytes) -> bytes:
    return b"\r\n\r\n\x00\r\nQUIT\n" + bytes((command, family)) + len(rest).to_bytes(2, "big") + rest


SEEDS: Final[dict[str, list[bytes]]] = {
    "request_head": [
        b"\x00" + _PLAIN + _UPGRADE,
        b"\x03" + _UPGRADE,
        b"\x09\r\n" + _POST,
        b"\x05OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        b"\x05GET http://a/ HTTP/1.0\r\n\r\n",
    ],
    "response_head": [
        b"\x00" + _SWITCH,
        b"\x03HTTP/1.0 200\r\nContent-Length: 2\r\n\r\n" + _SWITCH,
        b"\x07HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    "chunked_body": [b"\x00" + _CHUNKS + b"rest", b"\x04" + _CHUNKS, b"\x040\r\n\r\n"],
    "request": [_PLAIN, _POST + _CHUNKS, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"],
    "frames": _frames(),
    "gate": [seed[:2] + limit + seed[2:] for seed in _frames() for limit in (b"\x00", b"\x02", b"\xff")],
    "proxy_header": [
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /",
        b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
        b"PROXY UNKNOWN whatever\r\n",
        _block(0x21, 0x11, bytes(12)) + b"GET",
        _block(0x20, 0x00, b""),
        _block(0x21, 0x21, bytes(36) + b"\x04\x00\x02ab"),
        _block(0x21, 0x11, bytes(12) + b"\x03\x00\x04\x00\x00\x00\x00"),
        _block(0x21, 0x31, bytes(216)),
    ],
    "client_hello": [
        _hello("a.example", ["http/1.1"]),
        _hello("b.example", ["h2", "http/1.1"]) + b"rest",
        _hello("127.0.0.1", []),
    ],
    "rule": [
        b"Host(`a.example`) && (PathPrefix(`/ws`) || !Method(`PUT`))",
        b"HostRegexp(`^[a-z]+\\.example$`) && Query(`c`, `d`)",
        b'Header("X-A", "b") || HeaderRegexp(`a`, `.*`) || ClientIP(`192.0.2.0/24`)',
    ],
    "expression": [
        b"NetworkErrorRatio() > 0.30 && !(LatencyAtQuantileMS(50.0) > 100)",
        b"ResponseCodeRatio(500, 600, 0, 600) > 0.25 || 0.5 <= NetworkErrorRatio()",
    ],
    "configuration": [path.read_bytes()[:4096] for path in sorted(_ETC.glob("*.yaml"))]
    + [
        b'wsbalancer: {pods: ["http://a:1", "http://b:2"], cacheTTL: 30s, metricPath: /metric}',
        (b"entryPoints: {web: {address: ':80'}}\nhttp:\n  routers: {r: {rule: 'Path(`/`)', service: s}}\n"
        b"  services: {s: {loadBalancer: {servers: [{url: 'http://a:1'}]}}}\n"),
    ],
    "labels": [
        b"traefik.enable=true\ntraefik.http.routers.chat.rule=Host(`a`)\ntraefik.http.routers.chat.entrypoints=web,websecure",
        b"traefik.http.services.chat.loadbalancer.server.port=80\ntraefik.http.services.chat.loadBalancer.sticky.cookie=true",
        b"traefik.http.middlewares.m.headers.customrequestheaders.X-A=b\ntraefik.http.middlewares.m.ipallowlist.sourcerange[0]=::1\ntraefik.docker.network=n",
    ],
    "values": [
        bytes((number,)) + text
        for number, text in enumerate(
            [
                b"1h30m5s", b"64KiB", b"10/s", b"12.5%", b"127.0.0.1:80", b"unix:/a/b.sock", b"http://[::1]:80", b"10.0.0.0/8",
                b"::ffff:192.0.2.1", b"https://*.example.com:8443", b"a:$apr1$xyz$0123456789abcdefghijk.", b"a=b&c=%20",
                b"a.example.:80", b"A.Example.", b"/a/../%41//b/",
            ]
        )
    ],
    "report": [
        b'{"n": 3, "podName": "a", "podIP": "10.0.0.1", "nodeName": "b"}',
        b'\xef\xbb\xbf{"n": 1e3}',
        b"<html>",
    ],
}  # fmt: skip
