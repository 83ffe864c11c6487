"""Requests and handshakes without middlewares: what is passed on, what is added, what ends at the proxy."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.record import Ask, Difference, case, get, other, post, ws
from tests.differential.world import TRUSTED

MIDDLEWARES: Final[dict[str, Any]] = {}

SERVICES: Final[dict[str, Any]] = {
    "app": {"loadBalancer": {"servers": [{"url": "{app1}"}]}},
    "own-host": {"loadBalancer": {"servers": [{"url": "{app1}"}], "passHostHeader": False}},
    # A server of their own for answers that make us pass a server over for a while.
    "flaky": {"loadBalancer": {"servers": [{"url": "{flaky}"}]}},
    "dead": {"loadBalancer": {"servers": [{"url": "{dead}"}]}},
    "impatient": {"loadBalancer": {"servers": [{"url": "{flaky}"}], "serversTransport": "impatient"}},
}

CASES: Final = [
    # Plain requests
    case("plain get", get("/a/b?x=1&y=2")),
    case("plain get with a query alone", get("/?")),
    case("plain get with an escaped path", get("/a%20b/%2F/c")),
    case("plain get with slashes and dots", get("/a//b/./c/../d"), differs=[Difference("path-as-sent", "app target", "/a/b/d", "/a//b/./c/../d")]),
    case("plain get with fields", get("/", "User-Agent: test/1", "Accept: */*", "Accept-Encoding: gzip, br", "Cookie: a=1; b=2")),
    case("plain get with one field twice", get("/", "X-Twice: 1", "X-Twice: 2")),
    case("plain get with an empty field", get("/", "X-Empty:")),
    case("plain get with credentials", get("/", "Authorization: Bearer abc", "Referer: http://x/", "Origin: http://page")),
    case("plain get with a condition", get("/", 'If-None-Match: "1"', answer="not-modified")),
    case("plain head", other("HEAD", "/a")),
    case("plain head of a page", other("HEAD", "/a", answer="page")),
    case("plain options", other("OPTIONS", "/a")),
    case("plain delete", other("DELETE", "/a")),
    case("plain method of an extension", other("PROPFIND", "/a", "Depth: 1")),
    case("plain post", post(b"a=1&b=2", "Content-Type: application/x-www-form-urlencoded")),
    case("plain post without a body", other("POST", "/a", "Content-Length: 0")),
    case("plain put", Ask("PUT", "/file", ("Content-Type: text/plain",), b"the new words")),
    case("plain post in chunks", Ask("POST", "/", ("Transfer-Encoding: chunked",), b"5\r\nhello\r\n0\r\n\r\n")),
    case("plain post of a large body", post(b"x" * 300_000)),
    case("plain get of HTTP/1.0", Ask("GET", "/", version="1.0")),
    # Fields that end at a hop
    case("hop fields of the client", get("/", "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive")),
    case("hop fields of the backend", get(answer="hops")),
    case("te of the client", get("/", "TE: gzip", "Connection: TE")),
    case("te trailers", get("/", "TE: trailers", "Connection: TE")),
    case("proxy authorization", get("/", "Proxy-Authorization: Basic YTpi")),
    case("upgrade to something else", get("/", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")),
    # Who the client is
    case("forwarded fields of a stranger", get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Forwarded-Port: 1", "X-Real-Ip: 1.2.3.4")),
    case("forwarded fields of a trusted peer", get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: front", "X-Forwarded-Port: 444", "X-Real-Ip: 1.2.3.4", source=TRUSTED)),
    case("forwarded for alone of a trusted peer", get("/", "X-Forwarded-For: 1.2.3.4, 5.6.7.8", source=TRUSTED)),
    case("forwarded proto alone of a trusted peer", get("/", "X-Forwarded-Proto: https", source=TRUSTED)),
    case("nothing forwarded by a trusted peer", get("/", source=TRUSTED)),
    case("forwarded prefix of a stranger", get("/", "X-Forwarded-Prefix: /evil")),
    case("forwarded prefix of a trusted peer", get("/", "X-Forwarded-Prefix: /app", source=TRUSTED)),
    case("forwarded uri and method of a stranger", get("/", "X-Forwarded-Uri: /evil", "X-Forwarded-Method: PUT")),
    case("forwarded client certificate of a stranger", get("/", "X-Forwarded-Tls-Client-Cert: abc")),
    case("forwarded of RFC 7239 by a stranger", get("/", "Forwarded: for=1.2.3.4"), differs=[Difference("forwarded", "app field forwarded", ("for=1.2.3.4",), None)]),
    case("forwarded for with an underscore", get("/", "X_Forwarded_For: 1.2.3.4")),
    case("forwarded for nominated away", get("/", "Connection: X-Forwarded-For", "X-Forwarded-For: 1.2.3.4", source=TRUSTED)),
    # Answers
    case("answer without content", get(answer="no-content")),
    case("answer not modified", get(answer="not-modified")),
    case("answer moved", get(answer="moved")),
    case("answer with cookies", get(answer="cookies")),
    case("answer 401", get(answer="unauthorized")),
    case("answer 404", get(answer="missing")),
    case("answer 418", get(answer="teapot")),
    case("answer 500", get(answer="broken")),
    case("answer 503 with Retry-After", get(answer="unavailable")),
    case("answer in chunks", get(answer="chunked")),
    case("answer in chunks to HTTP/1.0", Ask("GET", "/", version="1.0", answer="chunked")),
    case("answer until the connection ends", get(answer="until-close"), differs=[Difference("until-close", "field transfer-encoding", ("chunked",), None)]),
    case("answer with Server", get(answer="server")),
    case("answer after early hints", get(answer="early")),
    case("answer of garbage", get(answer="garbage"), service="flaky", differs=[Difference("bad-answer", "status", 500, 502)]),
    case("answer in time of an impatient service", get(), service="impatient"),
    case("answer of nothing to a get", get(answer="die"), service="flaky"),
    case("answer of nothing to a handshake", ws(answer="die"), service="flaky"),
    case("answer too late", get(answer="late"), service="impatient"),
    case("answer too late to a handshake", ws(answer="late"), service="impatient"),
    case("answer of nothing to a post", post(b"x", answer="die"), service="flaky"),
    # Services
    case("host of the server", get("/"), service="own-host"),
    case("host of the server in a handshake", ws("/"), service="own-host"),
    case("dead server", get("/"), service="dead"),
    case("dead server and a handshake", ws("/"), service="dead"),
    # Handshakes
    case("handshake", ws("/chat?room=1")),
    case("handshake with an origin and cookies", ws("/", "Origin: http://page", "Cookie: a=1")),
    case("handshake with protocols", ws("/", "Sec-WebSocket-Protocol: chat.v1, chat.v2", answer="switch-protocol")),
    case("handshake with extensions", ws("/", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", answer="switch-deflate")),
    case("handshake with fields of ours in the answer", ws(answer="switch")),
    case("handshake with cookies in the answer", ws(answer="switch-cookie")),
    case("handshake refused with 401", ws(answer="unauthorized")),
    case("handshake refused with 403", ws(answer="forbidden")),
    case("handshake refused with 404", ws(answer="missing")),
    case("handshake refused with 503", ws(answer="unavailable")),
    case("handshake answered with 200", ws(answer="cookies")),
    case("handshake redirected", ws(answer="moved")),
    case("handshake answered with garbage", ws(answer="garbage"), service="flaky", differs=[Difference("bad-answer", "status", 500, 502)]),
    case("handshake with a wrong accept in the answer", ws(answer="switch-wrong"), service="flaky", differs=[Difference("checked-101", "status", 101, 502), Difference("checked-101", "*")]),
    case("handshake of a trusted peer", ws("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: wss", "X-Forwarded-Host: front", source=TRUSTED)),
    case("handshake with forwarded fields of a stranger", ws("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: wss")),
    case("handshake with several options in Connection", Ask("GET", "/", ("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))),
    case("handshake with other case", Ask("GET", "/", ("connection: upgrade", "upgrade: WebSocket", "sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==")), differs=[Difference("upgrade-token", "app field upgrade", ("WebSocket",), ("websocket",))]),
    case("handshake of version 8", Ask("GET", "/", ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), answer="missing"), differs=[Difference("checked-handshake", "status", 404, 426), Difference("checked-handshake", "app*", ..., None), Difference("checked-handshake", "field sec-websocket-version", None, ("13",)), Difference("checked-handshake", "*")]),
    case("handshake without a key", Ask("GET", "/", ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"), answer="missing"), differs=[Difference("checked-handshake", "status", 404, 400), Difference("checked-handshake", "app*", ..., None), Difference("checked-handshake", "*")]),
    # No router
    case("no router", Ask("GET", "/", host="nobody.test")),
    case("no router for a handshake", Ask("GET", "/", host="nobody.test", upgrade=True)),
    case("router with a middleware that is not there", get(), through="not-there"),
    case("router with a service that is not there", get(), service="not-there"),
    case("router with a bad rule", get(), rule="Nonsense(`x`)"),
    case("no router for another method", get("/"), rule="Method(`POST`)"),
    case("rule with a path", get("/ws-foo"), rule="PathPrefix(`/ws`)"),
    case("rule with a header", get("/", "X-Want: yes"), rule="Header(`X-Want`, `yes`)"),
    case("rule with a query", get("/?a=b"), rule="Query(`a`, `b`)"),
    case("rule with the client's address", get("/", source=TRUSTED), rule="ClientIP(`127.0.0.2`)"),
    case("rule without the client's address", get("/", source=TRUSTED), rule="!ClientIP(`127.0.0.2`)"),
    case("host with a port", Ask("GET", "/", host="nobody.test:8080")),
]  # fmt: skip
