from __future__ import annotations

import re
from typing import Literal

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http import strategies
from trio_wsb.addresses import Networks, parse_ip, parse_network
from trio_wsb.http.forward import (
    MAX_HOPS,
    ForwardPolicy,
    believed_values,
    client_address,
    downstream_framing,
    downstream_head,
    upstream_head,
)
from trio_wsb.http.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, FramingKind
from trio_wsb.http.head import ResponseHead, parse_request_head, parse_response_head
from trio_wsb.http.headers import Field, Headers

STRANGER = "203.0.113.9"
PROXY = "10.0.0.1"
TRUSTING = ForwardPolicy(Networks((parse_network("10.0.0.0/8"), parse_network("fd00::/8"))))
INSECURE = ForwardPolicy(insecure=True)


def forward(
    fields: str = "",
    *,
    line: str = "GET /chat?x=1 HTTP/1.1",
    host: str | None = "Host: example.com",
    peer: str | None = STRANGER,
    policy: ForwardPolicy = TRUSTING,
    upgrade: bool = False,
    scheme: Literal["http", "https"] = "http",
    server_name: str = "balancer",
    new_host: str | None = None,
) -> list[str]:
    """Return the lines of what goes upstream for a request with these fields."""
    lines = [line, *([host] if host else []), *fields.splitlines(), "", ""]
    data = upstream_head(
        parse_request_head("\r\n".join(lines).encode("latin-1")),
        upgrade=upgrade,
        policy=policy,
        peer=None if peer is None else parse_ip(peer),
        entry_scheme=scheme,
        entry_port=9000,
        server_name=server_name,
        host=new_host,
    )
    assert data.endswith(b"\r\n\r\n")
    return data.decode("latin-1").split("\r\n")[:-2]


def values(lines: list[str], name: str) -> list[str]:
    """Return the values of the fields of that name, in any case."""
    return [line.partition(": ")[2] for line in lines[1:] if line.partition(":")[0].lower() == name.lower()]


# What goes upstream.


def test_an_upgrade() -> None:
    assert forward(
        "connection: keep-alive, Upgrade\n"
        "UPGRADE: WebSocket\n"
        "sec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==\n"
        "Sec-WebSocket-Version: 13\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n"
        "Sec-WebSocket-Protocol: chat, superchat\n"
        "Origin: https://example.com\n"
        "X-Custom: a\n"
        "x-custom: b",
        upgrade=True,
    ) == [
        "GET /chat?x=1 HTTP/1.1",
        "Host: example.com",
        "sec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol: chat, superchat",
        "Origin: https://example.com",
        "X-Custom: a",
        "x-custom: b",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: ws",
        "X-Forwarded-Host: example.com",
        "X-Forwarded-Port: 80",
        "X-Real-Ip: 203.0.113.9",
        "X-Forwarded-Server: balancer",
    ]


def test_a_plain_request() -> None:
    lines = forward(
        "Connection: keep-alive\nKeep-Alive: timeout=5\nTE: trailers\nTrailer: X\nProxy-Authorization: Basic x\n"
        "Proxy-Connection: keep-alive\nAuthorization: Basic y\nContent-Length: 0010\nExpect: 100-continue",
        line="POST / HTTP/1.1",
        scheme="https",
    )
    assert lines[:6] == [
        "POST / HTTP/1.1",
        "Host: example.com",
        "Authorization: Basic y",
        "Content-Length: 10",
        "Expect: 100-continue",
        "Connection: close",
    ]
    assert values(lines, "x-forwarded-proto") == ["https"]
    assert values(lines, "x-forwarded-port") == ["443"]


def test_a_chunked_request() -> None:
    lines = forward("tRANSFER-eNCODING: Chunked", line="POST / HTTP/1.1")
    assert values(lines, "transfer-encoding") == ["chunked"]
    assert values(lines, "content-length") == []


def test_a_foreign_upgrade_is_proxied_plainly() -> None:
    lines = forward(
        "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"
    )
    assert values(lines, "upgrade") == values(lines, "http2-settings") == []
    assert values(lines, "connection") == ["close"]


def test_an_upgrade_has_no_content_length() -> None:
    lines = forward("Connection: upgrade\nUpgrade: websocket\nContent-Length: 0", upgrade=True)
    assert values(lines, "content-length") == []


@pytest.mark.parametrize("upgrade", [False, True])
def test_nominated_fields_go_but_never_what_we_add(upgrade: bool) -> None:
    """CVE-2022-31813, CVE-2024-45410."""
    lines = forward(
        "Connection: Upgrade, X-Secret, Host, Content-Length, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto,\n"
        "Connection: X-Real-Ip, X-Forwarded-Port, X-Forwarded-Server, Connection, Upgrade, Sec-WebSocket-Key, close\n"
        "X-Secret: 1\n"
        "Sec-WebSocket-Key: k\n"
        "X-Kept: 1",
        upgrade=upgrade,
    )
    assert values(lines, "x-secret") == []
    assert values(lines, "x-kept") == ["1"]
    assert values(lines, "host") == ["example.com"]
    assert values(lines, "sec-websocket-key") == ["k"]
    assert values(lines, "connection") == ["Upgrade" if upgrade else "close"]
    for name in ("For", "Host", "Proto", "Port", "Server"):
        assert len(values(lines, f"X-Forwarded-{name}")) == 1
    assert values(lines, "x-real-ip") == [STRANGER]


def test_nomination_does_not_remove_what_a_trusted_peer_says() -> None:
    lines = forward(
        f"Connection: X-Forwarded-For, X-Real-Ip\nX-Forwarded-For: {STRANGER}\nX-Real-Ip: {STRANGER}",
        peer=PROXY,
    )
    assert values(lines, "x-forwarded-for") == [f"{STRANGER}, {PROXY}"]
    assert values(lines, "x-real-ip") == [STRANGER]


def test_nominated_content_length_stays() -> None:
    lines = forward("Connection: content-length\nContent-Length: 5", line="POST / HTTP/1.1")
    assert values(lines, "content-length") == ["5"]


FORGED = (
    "X-Forwarded-For: 1.1.1.1\nx-forwarded-for: 2.2.2.2\nX-Forwarded-Proto: https\nX-Forwarded-Host: evil\n"
    "X-Forwarded-Port: 1\nX-Forwarded-Server: evil\nX-Forwarded-Prefix: /evil\nX-Forwarded-User: root\n"
    "X-Real-IP: 1.1.1.1\nForwarded: for=1.1.1.1\nX-Forwarded: 1"
)
ALIASES = (
    "X_Forwarded_For: 1.1.1.1\nx-forwarded_for: 1.1.1.1\nX.Forwarded.For: 1.1.1.1\nX_REAL_IP: 1.1.1.1\n"
    "Content_Length: 5\nTransfer_Encoding: chunked\nProxy: http://evil\nHost_: fine\nMy_Header: fine"
)


def test_a_stranger_is_not_believed() -> None:
    lines = forward(FORGED)
    assert values(lines, "x-forwarded-for") == [STRANGER]
    assert values(lines, "x-forwarded-proto") == ["http"]
    assert values(lines, "x-forwarded-host") == ["example.com"]
    assert values(lines, "x-forwarded-port") == ["80"]
    assert values(lines, "x-forwarded-server") == ["balancer"]
    assert values(lines, "x-real-ip") == [STRANGER]
    for name in ("x-forwarded-prefix", "x-forwarded-user", "forwarded", "x-forwarded"):
        assert values(lines, name) == []
    assert not re.search(r"evil|1\.1\.1\.1|2\.2\.2\.2|root", "\n".join(lines))


@pytest.mark.parametrize("policy", [TRUSTING, INSECURE])
@pytest.mark.parametrize("peer", [STRANGER, PROXY])
def test_aliases_are_dropped_whoever_sends_them(peer: str, policy: ForwardPolicy) -> None:
    lines = forward(ALIASES, peer=peer, policy=policy)
    assert not re.search(r"evil|1\.1\.1\.1|chunked", "\n".join(lines))
    assert values(lines, "my_header") == ["fine"]
    assert values(lines, "host_") == ["fine"]


@pytest.mark.parametrize(("peer", "policy"), [(PROXY, TRUSTING), (STRANGER, INSECURE)])
def test_a_trusted_peer_is_believed(peer: str, policy: ForwardPolicy) -> None:
    lines = forward(
        "X-Forwarded-For: 1.1.1.1\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\nX-Forwarded-Proto: wss\n"
        "x-forwarded-host: public.example\nX-Forwarded-Port: 8443\nX-Forwarded-Server: edge\n"
        "X-Forwarded-Prefix: /app\nX-Real-Ip: 1.1.1.1\nForwarded: for=1.1.1.1",
        peer=peer,
        policy=policy,
    )
    assert values(lines, "x-forwarded-for") == [f"1.1.1.1, 2.2.2.2, 3.3.3.3, {peer}"]
    assert values(lines, "x-forwarded-proto") == ["wss"]
    assert values(lines, "x-forwarded-host") == ["public.example"]
    assert values(lines, "x-forwarded-port") == ["8443"]
    assert values(lines, "x-forwarded-server") == ["balancer"]
    assert values(lines, "x-forwarded-prefix") == ["/app"]
    assert values(lines, "x-real-ip") == ["1.1.1.1"]
    assert values(lines, "forwarded") == ["for=1.1.1.1"]


def test_what_a_trusted_peer_leaves_out_is_filled_in() -> None:
    lines = forward(f"X-Forwarded-For: 9.9.9.9, {STRANGER}, 10.2.3.4\nX-Forwarded-Proto: https", peer=PROXY)
    assert values(lines, "x-real-ip") == [STRANGER]
    assert values(lines, "x-forwarded-port") == ["443"]
    assert values(lines, "x-forwarded-host") == ["example.com"]
    assert values(lines, "x-forwarded-proto") == ["https"]


def test_without_a_name_of_ours_x_forwarded_server_is_the_trusted_peers() -> None:
    assert values(forward("X-Forwarded-Server: edge", peer=PROXY, server_name=""), "x-forwarded-server") == [
        "edge"
    ]
    assert values(forward("X-Forwarded-Server: edge", server_name=""), "x-forwarded-server") == []


@pytest.mark.parametrize(
    ("host", "scheme", "upgrade", "port"),
    [
        ("Host: h", "http", False, "80"),
        ("Host: h", "https", True, "443"),
        ("Host: h:8080", "https", False, "8080"),
        ("Host: [::1]:81", "http", True, "81"),
        (None, "http", False, "9000"),
    ],
)
def test_forwarded_port(host: str | None, scheme: Literal["http", "https"], upgrade: bool, port: str) -> None:
    line = "GET / HTTP/1.1" if host else "GET / HTTP/1.0"
    assert values(forward(line=line, host=host, scheme=scheme, upgrade=upgrade), "x-forwarded-port") == [port]


def test_the_backends_host_instead_of_the_clients() -> None:
    lines = forward(new_host="backend:8080")
    assert values(lines, "host") == ["backend:8080"]
    assert values(lines, "x-forwarded-host") == ["example.com"]


def test_http_1_0_without_host() -> None:
    lines = forward(line="GET / HTTP/1.0", host=None)
    assert lines[:2] == ["GET / HTTP/1.1", "Host: "]
    assert values(lines, "x-forwarded-host") == []
    assert forward(line="GET / HTTP/1.0", host=None, new_host="b")[1] == "Host: b"
    assert forward(line="GET http://h/ HTTP/1.0", host=None)[:2] == ["GET / HTTP/1.1", "Host: h"]


def test_a_peer_without_an_address() -> None:
    lines = forward("X-Forwarded-For: 1.1.1.1", peer=None)
    assert values(lines, "x-forwarded-for") == values(lines, "x-real-ip") == []
    lines = forward("X-Forwarded-For: 1.1.1.1", peer=None, policy=INSECURE)
    assert values(lines, "x-forwarded-for") == values(lines, "x-real-ip") == ["1.1.1.1"]


def test_ipv6_peer() -> None:
    assert values(forward(peer="2001:db8::1"), "x-forwarded-for") == ["2001:db8::1"]
    assert values(forward(peer="::ffff:203.0.113.9"), "x-forwarded-for") == [STRANGER]


@given(strategies.request_heads(), st.booleans(), st.sampled_from([TRUSTING, INSECURE]))
def test_whatever_goes_upstream_is_one_valid_request(
    data: bytes, upgrade: bool, policy: ForwardPolicy
) -> None:
    head = parse_request_head(data)
    sent = upstream_head(
        head,
        upgrade=upgrade,
        policy=policy,
        peer=parse_ip(STRANGER),
        entry_scheme="http",
        entry_port=80,
        server_name="balancer",
    )
    again = parse_request_head(sent)
    assert (again.method, again.target, again.host, again.framing) == (
        head.method,
        head.target,
        head.host,
        head.framing,
    )
    assert again.headers.tokens("connection") == ["upgrade" if upgrade else "close"]
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(sent)
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    assert event.target.decode() == head.target
    assert [(name.decode(), value.decode("latin-1")) for name, value in event.headers.raw_items()] == list(
        again.headers
    )


# Who the client is.


@pytest.mark.parametrize(
    ("peer", "listed", "expected"),
    [
        (STRANGER, "1.1.1.1", STRANGER),
        (PROXY, "", PROXY),
        (PROXY, "1.1.1.1", "1.1.1.1"),
        (PROXY, "9.9.9.9, 1.1.1.1", "1.1.1.1"),
        (PROXY, "9.9.9.9, 1.1.1.1, 10.5.5.5", "1.1.1.1"),
        (PROXY, "10.7.7.7, 10.5.5.5", "10.7.7.7"),
        (PROXY, "1.1.1.1,10.5.5.5\t, fd00::1 ", "1.1.1.1"),
        (PROXY, "::ffff:1.1.1.1", "1.1.1.1"),
        (PROXY, "2001:db8::1", "2001:db8::1"),
        (PROXY, "[2001:db8::1]:443", "2001:db8::1"),
        (PROXY, "1.1.1.1:5000", "1.1.1.1"),
        # What is no address ends the walk at the last one that was.
        (PROXY, "1.1.1.1, unknown", PROXY),
        (PROXY, "1.1.1.1, unknown, 10.5.5.5", "10.5.5.5"),
        (PROXY, "1.1.1.1, ", PROXY),
        (PROXY, "1.1.1.1, 999.1.1.1", PROXY),
        (PROXY, "1.1.1.1, fe80::1%eth0", PROXY),
        (PROXY, "1.1.1.1, '10.5.5.5", PROXY),
        (PROXY, "1.1.1.1, " + ":" * 40, PROXY),
        (PROXY, "1.1.1.1, " + "1" * 1000, PROXY),
    ],
)
def test_client_address(peer: str, listed: str, expected: str) -> None:
    headers = Headers([("X-Forwarded-For", listed)])
    assert client_address(parse_ip(peer), headers, TRUSTING) == parse_ip(expected)


def test_client_address_over_several_fields() -> None:
    headers = Headers(
        [("X-Forwarded-For", "9.9.9.9"), ("x-forwarded-for", "1.1.1.1"), ("X-FORWARDED-FOR", PROXY)]
    )
    assert client_address(parse_ip(PROXY), headers, TRUSTING) == parse_ip("1.1.1.1")


def test_client_address_without_list_or_peer() -> None:
    assert client_address(parse_ip(PROXY), Headers(), TRUSTING) == parse_ip(PROXY)
    assert client_address(None, Headers([("X-Forwarded-For", "1.1.1.1")]), TRUSTING) is None
    assert client_address(None, Headers([("X-Forwarded-For", "1.1.1.1")]), INSECURE) == parse_ip("1.1.1.1")


def test_insecure_believes_the_leftmost() -> None:
    headers = Headers([("X-Forwarded-For", "1.1.1.1, 2.2.2.2, 3.3.3.3")])
    assert client_address(parse_ip(STRANGER), headers, INSECURE) == parse_ip("1.1.1.1")


def test_the_walk_is_bounded() -> None:
    headers = Headers([("X-Forwarded-For", "1.1.1.1" + ", 10.0.0.2" * (MAX_HOPS + 5))])
    assert client_address(parse_ip(PROXY), headers, TRUSTING) == parse_ip("10.0.0.2")


# What goes downstream.


def back(
    fields: list[Field],
    framing: Framing = NO_BODY,
    *,
    status: int = 200,
    upgrade: bool = False,
    keep_alive: bool = True,
    extra: list[Field] | None = None,
) -> list[str]:
    data = downstream_head(
        ResponseHead(status, "Reason", (1, 0), Headers(fields)),
        upgrade=upgrade,
        framing=framing,
        keep_alive=keep_alive,
        extra=extra or [],
    )
    assert data.endswith(b"\r\n\r\n")
    return data.decode("latin-1").split("\r\n")[:-2]


def test_a_101() -> None:
    fields = [
        ("UPGRADE", "WebSocket"),
        ("connection", "upgrade, X-Hop"),
        ("X-Hop", "1"),
        ("sec-websocket-ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("Sec-WebSocket-Protocol", "chat"),
        ("Server", "backend"),
        ("Content-Length", "0"),
    ]
    assert back(fields, status=101, upgrade=True, extra=[("Set-Cookie", "a=b")]) == [
        "HTTP/1.1 101 Reason",
        "sec-websocket-ACCEPT: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: chat",
        "Server: backend",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Set-Cookie: a=b",
    ]


@pytest.mark.parametrize(
    ("fields", "framing", "keep_alive", "expected"),
    [
        ([("Content-Length", "005")], Framing(FramingKind.LENGTH, 5), True, ["Content-Length: 5"]),
        (
            [("Content-Length", "5")],
            Framing(FramingKind.LENGTH, 5),
            False,
            ["Content-Length: 5", "Connection: close"],
        ),
        ([("Transfer-Encoding", "Chunked")], CHUNKED, True, ["Transfer-Encoding: chunked"]),
        ([("Transfer-Encoding", "chunked")], UNTIL_CLOSE, True, ["Connection: close"]),
        (
            [("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")],
            UNTIL_CLOSE,
            True,
            ["Connection: close"],
        ),
        # The answer to HEAD may say how long the body would have been.
        ([("Content-Length", "5")], NO_BODY, True, ["Content-Length: 5"]),
        ([("Trailer", "A"), ("Proxy-Authenticate", "Basic"), ("Upgrade", "h2c")], NO_BODY, True, []),
        ([("Date", "now"), ("Server", "x")], NO_BODY, True, ["Date: now", "Server: x"]),
    ],
)
def test_final_responses(
    fields: list[Field], framing: Framing, keep_alive: bool, expected: list[str]
) -> None:
    assert back(fields, framing, keep_alive=keep_alive) == ["HTTP/1.1 200 Reason", *expected]


@pytest.mark.parametrize("status", [100, 103, 204])
def test_no_content_length_where_none_may_be(status: int) -> None:
    # RFC 9110 section 8.6.
    assert back([("Content-Length", "5"), ("Link", "x")], status=status) == [
        f"HTTP/1.1 {status} Reason",
        "Link: x",
    ]


def test_interim_responses_say_nothing_about_the_connection() -> None:
    assert back([("Link", "x")], status=103, keep_alive=False) == ["HTTP/1.1 103 Reason", "Link: x"]


def test_a_304_keeps_its_length() -> None:
    assert back([("Content-Length", "5")], status=304) == ["HTTP/1.1 304 Reason", "Content-Length: 5"]


def test_downstream_framing() -> None:
    assert downstream_framing(CHUNKED, (1, 1)) is CHUNKED
    assert downstream_framing(CHUNKED, (1, 0)) is UNTIL_CLOSE
    assert downstream_framing(UNTIL_CLOSE, (1, 1)) is UNTIL_CLOSE
    assert downstream_framing(NO_BODY, (1, 0)) is NO_BODY


@given(strategies.response_heads(), st.booleans())
def test_whatever_goes_downstream_is_one_valid_response(data: bytes, keep_alive: bool) -> None:
    head = parse_response_head(data)
    sent = downstream_head(head, upgrade=False, framing=UNTIL_CLOSE, keep_alive=keep_alive)
    again = parse_response_head(sent)
    assert (again.status, again.reason) == (head.status, head.reason)
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(sent)
    event = peer.next_event()
    assert isinstance(event, h11.Response)
    assert event.status_code == head.status
    assert [(name.decode(), value.decode("latin-1")) for name, value in event.headers.raw_items()] == list(
        again.headers
    )


# What decisions may rest on.


SAID = """X-Forwarded-For: 1.1.1.1
X-Forwarded-Proto: https
X-Real-Ip: 1.1.1.1
Forwarded: for=1.1.1.1
X_Forwarded_Proto: wss
Origin: https://a.example
origin: https://b.example"""


@pytest.mark.parametrize(
    ("name", "trusted", "stranger"),
    [
        ("x-forwarded-for", ["1.1.1.1"], []),
        ("x-forwarded-proto", ["https"], ["http"]),
        ("x-forwarded-host", ["example.com"], ["example.com"]),
        ("x-forwarded-port", ["443"], ["80"]),
        ("x-real-ip", ["1.1.1.1"], [STRANGER]),
        ("x-forwarded-prefix", [], []),
        ("forwarded", ["for=1.1.1.1"], []),
        ("x_forwarded_proto", [], []),
        ("origin", ["https://a.example", "https://b.example"], ["https://a.example", "https://b.example"]),
        ("x-none", [], []),
    ],
)
def test_values_are_believed_as_they_are_sent_on(name: str, trusted: list[str], stranger: list[str]) -> None:
    fields = SAID.replace("\n", "\r\n")
    head = parse_request_head(f"GET / HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n\r\n".encode())
    for peer, expected in ((PROXY, trusted), (STRANGER, stranger)):
        assert (
            believed_values(
                head,
                name,
                upgrade=False,
                policy=TRUSTING,
                peer=parse_ip(peer),
                entry_scheme="http",
                entry_port=9000,
            )
            == expected
        )
        # The backend is told the same, but for the hop that we add.
        if name != "x-forwarded-for":
            assert values(forward(SAID, peer=peer), name) == expected
