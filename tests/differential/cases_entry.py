"""Entry points: redirections, middlewares before those of routers, PROXY headers; and mirrors of plain requests."""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

from attrs import evolve

from tests.differential.record import Ask, Difference, case, get, other, post, ws
from tests.differential.world import TRUSTED

LISTED: Final = "9.9.9.9"
"""An address that a PROXY header may give."""


def _redirection(**options: Any) -> dict[str, Any]:
    return {"redirections": {"entryPoint": options}}


ENTRY_POINTS: Final[dict[str, Any]] = {
    "elsewhere": {"http": _redirection(to=":8443")},
    "secure": {
        "http": _redirection(to=":443", scheme="https", permanent=False),
        "forwardedHeaders": {"trustedIPs": [f"{TRUSTED}/32"]},
    },
    "low": {"http": _redirection(to=":8443", priority=1)},
    "marked": {"http": {"middlewares": ["entry-mark@file", "entry-order@file"]}},
    "marked-elsewhere": {"http": {"middlewares": ["entry-mark@file"], **_redirection(to=":8443")}},
    "closed": {"http": {"middlewares": ["not-there@file"]}},
    "guarded": {"http": {"middlewares": ["entry-deny@file"]}},
    "proxied": {
        "proxyProtocol": {"trustedIPs": [f"{TRUSTED}/32"]},
        "forwardedHeaders": {"trustedIPs": ["7.7.7.7/32"]},
    },
    "believing": {"proxyProtocol": {"insecure": True}},
}
"""Beside the usual one, by their names."""

MIDDLEWARES: Final[dict[str, Any]] = {
    "entry-mark": {"headers": {"customRequestHeaders": {"X-Entry": "1"}, "customResponseHeaders": {"X-Entry": "1"}}},
    "entry-order": {"headers": {"customRequestHeaders": {"X-Order": "entry"}, "customResponseHeaders": {"X-Order": "entry"}}},
    "router-order": {"headers": {"customRequestHeaders": {"X-Order": "router"}, "customResponseHeaders": {"X-Order": "router"}}},
    "entry-deny": {"ipAllowList": {"sourceRange": [TRUSTED]}},
    "allow-listed": {"ipAllowList": {"sourceRange": [LISTED]}},
}  # fmt: skip

SERVICES: Final[dict[str, Any]] = {
    "mirrored-app2": {"loadBalancer": {"servers": [{"url": "{app2}"}]}},
    "mirrored": {"mirroring": {"service": "app", "mirrors": [{"name": "mirrored-app2", "percent": 100}]}},
    "mirrored-bodiless": {"mirroring": {"service": "app", "mirrorBody": False, "mirrors": [{"name": "mirrored-app2", "percent": 100}]}},
    "mirrored-never": {"mirroring": {"service": "app", "mirrors": [{"name": "mirrored-app2", "percent": 0}]}},
}  # fmt: skip

V1: Final = b"PROXY TCP4 9.9.9.9 8.8.8.8 1000 80\r\n"
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_ADDRESSES: Final = socket.inet_aton("9.9.9.9") + socket.inet_aton("8.8.8.8") + struct.pack(">HH", 1000, 80)


def v2(body: bytes = _ADDRESSES, *, command: int = 1, family: int = 0x11) -> bytes:
    """Return a PROXY header of version 2."""
    return _SIGNATURE + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body


def behind(before: bytes, ask: Ask | None = None, source: str = TRUSTED) -> Ask:
    """Return the request with `before` in front of it."""
    return evolve(ask or get(), before=before, source=source)


SENT: Final = "X-Forwarded-For: 1.1.1.1"

CASES: Final = [
    case("entry redirect", get("/a?b=c"), entry="elsewhere"),
    case("entry redirect a post", post(b"x"), entry="elsewhere"),
    case("entry redirect a head", other("HEAD", "/a"), entry="elsewhere"),
    case("entry redirect options", other("OPTIONS", "/a"), entry="elsewhere"),
    case("entry redirect a handshake", ws("/chat?x=1"), entry="elsewhere"),
    case("entry redirect a Host with a port", Ask("GET", "/a", host="h.test:8080"), entry="elsewhere"),
    case("entry redirect an IPv6 Host", Ask("GET", "/a", host="[::1]"), entry="elsewhere"),
    case("entry redirect a host that no router has", Ask("GET", "/a", host="nobody.test"), entry="elsewhere"),
    case("entry redirect an escaped path", get("/a%20b/%2F?q=%20"), entry="elsewhere"),
    case("entry redirect a path with dots", get("/a//b/../c"), entry="elsewhere", differs=[Difference("path-as-sent", "field location")]),
    case("entry redirect without a Host", Ask("GET", "/a", host=""), entry="elsewhere", differs=[Difference("redirect-without-host", "status", 404, 400), Difference("redirect-without-host", "*")]),
    case("entry redirect for now", get("/a"), entry="secure"),
    case("entry redirect a post for now", post(b"x"), entry="secure"),
    case("entry redirect of a stranger that says https", get("/a", "X-Forwarded-Proto: https"), entry="secure"),
    case("entry redirect of a trusted peer that says https", get("/a", "X-Forwarded-Proto: https", source=TRUSTED), entry="secure", differs=[Difference("redirect-done", "status", 418, 200), Difference("redirect-done", "*")]),
    case("entry redirect of a low priority", get("/a"), entry="low"),
    case("entry redirect of a low priority and no router", Ask("GET", "/a", host="nobody.test"), entry="low"),
    case("entry redirect behind middlewares", get("/a"), entry="marked-elsewhere"),
    case("entry middlewares", get("/a"), entry="marked"),
    case("entry middlewares before those of the router", get("/a"), through="router-order", entry="marked"),
    case("entry middlewares and a handshake", ws("/a"), entry="marked", differs=[Difference("fields-on-101", "field *", None)]),
    case("entry middlewares and no router", Ask("GET", "/a", host="nobody.test"), entry="marked"),
    case("entry middlewares that refuse", get("/a"), through="router-order", entry="guarded"),
    case("entry middlewares that let pass", get("/a", source=TRUSTED), through="router-order", entry="guarded"),
    case("entry middlewares that are not there", get("/a"), entry="closed"),
    case("entry middlewares that are not there and a handshake", ws("/a"), entry="closed"),
    case("proxy header of version 1", behind(V1), entry="proxied"),
    case("proxy header of version 2", behind(v2()), entry="proxied"),
    case("proxy header of version 2 and a handshake", behind(v2(), ws("/")), entry="proxied"),
    case("proxy header for IPv6", behind(b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n"), entry="proxied"),
    case("proxy header with a mapped address", behind(b"PROXY TCP6 ::ffff:9.9.9.9 2001:db8::2 1000 80\r\n"), entry="proxied"),
    case("proxy header missing", get("/", source=TRUSTED), entry="proxied"),
    case("proxy header unknown", behind(b"PROXY UNKNOWN\r\n"), entry="proxied"),
    case("proxy header unknown with words", behind(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), entry="proxied"),
    case("proxy header local", behind(v2(b"", command=0, family=0)), entry="proxied"),
    case("proxy header local with an address", behind(v2(command=0)), entry="proxied"),
    case("proxy header of a stranger", behind(V1, source="127.0.0.1"), entry="proxied"),
    case("proxy header of a stranger in version 2", behind(v2(), source="127.0.0.1"), entry="proxied"),
    case("proxy header missing of a stranger", get(), entry="proxied"),
    case("proxy header of anybody", behind(V1, source="127.0.0.1"), entry="believing"),
    case("proxy header with more to say", behind(v2(_ADDRESSES + b"\x04\x00\x03abc")), entry="proxied"),
    case("proxy header of a datagram", behind(v2(family=0x12)), entry="proxied"),
    case("proxy header and what forwards", behind(V1, get("/", SENT)), entry="proxied"),
    case("proxy header with an address that is trusted to forward", behind(V1.replace(b"9.9.9.9", b"7.7.7.7"), get("/", SENT)), entry="proxied", differs=[Difference("real-ip", "app field x-real-ip", ("7.7.7.7",), ("1.1.1.1",))]),
    case("proxy header and a list of addresses", behind(V1), through="allow-listed", entry="proxied"),
    case("proxy header of a stranger and a list of addresses", behind(V1, source="127.0.0.1"), through="allow-listed", entry="proxied"),
    case("proxy header and a rule", behind(V1), rule=f"ClientIP(`{LISTED}`)", entry="proxied"),
    case("proxy header that is malformed", behind(b"PROXY TCP4 9.9.9 8.8.8.8 1000 80\r\n"), entry="proxied"),
    case("proxy header with a bare LF", behind(V1.replace(b"\r\n", b"\n")), entry="proxied"),
    case("proxy header that is too long", behind(b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n"), entry="proxied"),
    case("proxy header twice", behind(V1 + V1), entry="proxied", differs=[Difference("own-words", "*")]),
    case("proxy header with a zero before a port", behind(V1.replace(b"1000", b"01000")), entry="proxied", differs=[Difference("proxy-header-strict", "status", 200, None), Difference("proxy-header-strict", "*")]),
    case("proxy header with a wrong checksum", behind(v2(_ADDRESSES + b"\x03\x00\x04abcd")), entry="proxied", differs=[Difference("proxy-header-strict", "status", 200, None), Difference("proxy-header-strict", "*")]),
    case("proxy header that ends within a TLV", behind(v2(_ADDRESSES + b"\x04\x00\x09abc")), entry="proxied", differs=[Difference("proxy-header-strict", "status", 200, None), Difference("proxy-header-strict", "*")]),
    case("proxy header of no family", behind(v2(b"", family=0)), entry="proxied", differs=[Difference("proxy-header-unknown", "status", None, 200), Difference("proxy-header-unknown", "*")]),
    case("proxy header of a unix socket", behind(v2(b"/a".ljust(216, b"\0"), family=0x31)), entry="proxied", differs=[Difference("proxy-header-unknown", "status", None, 200), Difference("proxy-header-unknown", "*")]),
    case("mirror a get", get("/a?b=c"), service="mirrored", arrivals=2),
    case("mirror a post", post(b"a=1"), service="mirrored", arrivals=2),
    case("mirror a post without its body", post(b"a=1"), service="mirrored-bodiless", arrivals=2, differs=[Difference("mirror-length", "app.1 field content-length", ("3",), None)]),
    case("mirror an answer that is an error", get(answer="broken"), service="mirrored", arrivals=2),
    case("mirror nothing", get("/a"), service="mirrored-never"),
]  # fmt: skip
