"""The table of requests. See `tests.hostile.case` for the sources."""

from __future__ import annotations

from tests.hostile.case import SMUGGLED, Case, head, upgrade

CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def _of(kind: str, status: int, source: str, table: dict[str, bytes], *, reaches: bool = False) -> list[Case]:
    return [Case(f"{kind}: {name}", sent, status, source, reaches) for name, sent in table.items()]


def _lengths() -> list[Case]:
    wrong = {
        "plus": "+5", "negative": "-5", "hexadecimal": "0x5", "two numbers": "5 5", "the same twice": "5, 5", "two in a list": "5, 6",
        "nothing": "", "a parameter": "5;a=b", "exponent": "1e1", "a fraction": "5.0", "underscore": "1_0", "beyond 64 bits": "18446744073709551621",
        "beyond 63 bits": "9223372036854775813", "many digits": "9" * 400, "quoted": '"5"', "a comma before": ",5", "a comma behind": "5,", "letters": "five",
    }  # fmt: skip
    cases = {name: head(f"Content-Length: {value}") + b"hello" for name, value in wrong.items()}
    cases |= {
        "fields that agree": head("Content-Length: 5", "Content-Length: 5") + b"hello",
        "fields that differ": head("Content-Length: 5", "Content-Length: 0") + b"hello",
        "fields in another case": head("Content-Length: 0", "content-length: 5") + b"hello",
        "Arabic digits": head("Content-Length: ٥".encode()) + b"hello",
        "fullwidth digits": head("Content-Length: ５".encode()) + b"hello",
        "a vertical tab": head(b"Content-Length: 5\x0b") + b"hello",
        "a form feed before": head(b"Content-Length: \x0c5") + b"hello",
        "NUL": head(b"Content-Length: 5\x00") + b"hello",
        "folded": head("Content-Length:\r\n 5") + b"hello",
        "folded number": head("Content-Length: 1\r\n 5") + b"hello",
    }
    return _of("length", 400, "RFC 9112 6.3, RFC 9110 8.6; desync", cases)


def _names() -> list[Case]:
    cases: dict[str, bytes] = {}
    for name, value, body in (
        ("Content-Length", "5", b"hello"),
        ("Transfer-Encoding", "chunked", CHUNKS),
    ):
        cases |= {
            f"{name} and a space": head(f"{name} : {value}") + body,
            f"{name} and a tab": head(f"{name}\t: {value}") + body,
            f"{name} after a space": head(f" {name}: {value}") + body,
            f"{name} after a tab": head("A: b", f"\t{name}: {value}") + body,
            f"{name} before Host after a space": head(
                f"POST / HTTP/1.1\r\n {name}: {value}", start="POST / HTTP/1.1"
            )
            + body,
            f"{name} and NUL": head(f"{name}\0: {value}") + body,
            f"{name} and a no-break space": head(f"{name}\xa0: {value}") + body,
            f"{name} and CR": head(f"{name}\r: {value}") + body,
            f"{name} in quotes": head(f'"{name}": {value}') + body,
            f"{name} without a colon": head(name) + body,
            f"{name} after a bare CR": head(f"A: b\r{name}: {value}") + body,
            f"{name} after a bare LF": head(f"A: b\n{name}: {value}") + body,
            f"{name} after LF CR": head(f"A: b\n\r{name}: {value}") + body,
            f"{name} after NUL": head(f"A: b\0{name}: {value}") + body,
            f"{name} after a vertical tab": head(f"A: b\x0b{name}: {value}") + body,
            f"{name} with a Greek letter": head(f"{name[:-1]}ο: {value}".encode()) + body,
            f"{name} in parentheses": head(f"({name}): {value}") + body,
        }
    cases["an empty name"] = head(": chunked") + CHUNKS
    return _of("name", 400, "RFC 9112 5.1, 5.2, 2.2; desync", cases)


def _codings() -> list[Case]:
    wrong = {
        "x before": "xchunked", "x behind": "chunkedx", "a parameter": "chunked;q=1", "quoted": '"chunked"', "in ticks": "'chunked'",
        "cut short": "chunk", "twice": "chunked, chunked", "identity last": "chunked, identity", "gzip last": "chunked, gzip", "nothing": "",
        "a comma before": ", chunked", "a comma behind": "chunked,", "a space in it": "chun ked", "true": "true", "identity": "identity", "brackets": "[chunked]",
        "a colon": ": chunked", "an equals sign": "=chunked", "a name in it": "Transfer-Encoding: chunked",
    }  # fmt: skip
    cases = {name: head(f"Transfer-Encoding: {value}") + CHUNKS for name, value in wrong.items()}
    cases |= {
        "a vertical tab": head(b"Transfer-Encoding: \x0bchunked") + CHUNKS,
        "a form feed": head(b"Transfer-Encoding: chunked\x0c") + CHUNKS,
        "NUL": head(b"Transfer-Encoding: chunked\x00") + CHUNKS,
        "a no-break space": head(b"Transfer-Encoding:\xa0chunked") + CHUNKS,
        "an accent": head("Transfer-Encoding: chunkéd".encode()) + CHUNKS,
        "the Kelvin sign": head("Transfer-Encoding: chun\u212aed".encode()) + CHUNKS,
        "folded": head("Transfer-Encoding:\r\n chunked") + CHUNKS,
        "folded on": head("Transfer-Encoding: chunked\r\n , identity") + CHUNKS,
        "two fields": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + CHUNKS,
        "identity, then chunked": head("Transfer-Encoding: identity", "Transfer-Encoding: chunked\x20x")
        + CHUNKS,
        "chunked, then identity": head("Transfer-Encoding: chunked", "Transfer-Encoding: identity") + CHUNKS,
        "with a length": head("Content-Length: 5", "Transfer-Encoding: chunked") + CHUNKS,
        "before a length": head("Transfer-Encoding: chunked", "Content-Length: 4") + CHUNKS,
        "with a length of 0": head("Content-Length: 0", "Transfer-Encoding: chunked") + CHUNKS,
        "unknown, with a length": head("Transfer-Encoding: cow", "Content-Length: 5") + b"hello",
        "HTTP/1.0": head("Transfer-Encoding: chunked", start="POST / HTTP/1.0") + CHUNKS,
        "HTTP/1.0, with a length": head(
            "Transfer-Encoding: chunked", "Content-Length: 5", start="POST / HTTP/1.0"
        )
        + b"hello",
    }
    unknown = {
        "gzip": head("Transfer-Encoding: gzip, chunked") + CHUNKS,
        "two fields with gzip": head("Transfer-Encoding: gzip", "Transfer-Encoding: chunked") + CHUNKS,
    }
    good = {
        "in capitals": head("Transfer-Encoding: CHUNKED") + CHUNKS,
        "in white space": head("Transfer-Encoding: \t chunked \t") + CHUNKS,
    }
    source = "RFC 9112 6.1, 6.3; desync"
    return [
        *_of("coding", 400, source, cases),
        *_of("coding", 501, "RFC 9112 6.1", unknown),
        *[Case(f"coding: {name}", sent, 200, source, reaches=True) for name, sent in good.items()],
    ]


def _chunked() -> list[Case]:
    start = head("Transfer-Encoding: chunked")
    end = b"\r\nhello\r\n0\r\n\r\n"
    bodies = {
        "0x": b"0x5" + end, "plus": b"+5" + end, "minus": b"-5" + end, "a space before": b" 5" + end, "underscore": b"0_5" + end, "no digits": b";a" + end,
        "nothing": end, "17 digits": b"00000000000000005" + end, "2^64 + 5": b"10000000000000005" + end, "2^63": b"8000000000000000" + end,
        "a bare LF": b"5\nhello\r\n0\r\n\r\n", "a bare CR": b"5\rX\nhello\r\n0\r\n\r\n", "CR CR LF": b"5\r\r\nhello\r\n0\r\n\r\n", "NUL": b"5\0" + end,
        "a letter": b"5g" + end, "Arabic digits": "٥".encode() + end, "a bare LF in an extension": b"5;a\nb" + end, "LF in a quoted extension": b'5;a="\n"' + end,
        "a CR in an extension": b"5;a\rb" + end, "an unfinished quote": b'5;a="b' + end, "an extension without a name": b"5;=b" + end,
        "a space for an extension": b"5 a" + end, "a long extension": b"5;a=" + b"b" * 300 + end, "many extensions": b"1;" + b"a" * 250 + b"\r\nx\r\n" + (b"1;" + b"a" * 250 + b"\r\nx\r\n") * 70,
        "data longer than its size": b"4" + end, "a bare LF behind the data": b"5\r\nhello\n0\r\n\r\n", "two bytes behind the data": b"5\r\nhelloXX0\r\n\r\n",
        "LF for the end": b"5\r\nhello\r\n0\n\n", "a bare LF at the end": b"5\r\nhello\r\n0\r\n\n", "Content-Length as a trailer": b"0\r\nContent-Length: 5\r\n\r\n",
        "Transfer-Encoding as a trailer": b"0\r\nTransfer-Encoding: chunked\r\n\r\n", "Host as a trailer": b"0\r\nHost: b\r\n\r\n",
        "X-Forwarded-For as a trailer": b"0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", "a folded trailer": b"0\r\nA: b\r\n c\r\n\r\n", "a trailer without a colon": b"0\r\nGET / HTTP/1.1\r\n\r\n",
        "a space before a trailer's colon": b"0\r\nA : b\r\n\r\n", "a bare LF in trailers": b"0\r\nA: b\nC: d\r\n\r\n", "long trailers": b"0\r\n" + b"A: " + b"b" * 9000 + b"\r\n\r\n",
    }  # fmt: skip
    source = "RFC 9112 7.1, 7.1.1, 7.1.2, 2.2; chunks"
    # A fault that is in the first bytes is found before anything goes to a backend, or after the head has: both are right.
    return [Case(f"chunks: {name}", start + body, 400, source, reaches=True) for name, body in bodies.items()]


def _lines() -> list[Case]:
    bad = {
        "two spaces": "GET  / HTTP/1.1", "a space behind": "GET / HTTP/1.1 ", "tabs": "GET\t/\tHTTP/1.1", "a space before": " GET / HTTP/1.1", "NUL": "GET /\0 HTTP/1.1",
        "lower case": "GET / http/1.1", "two digits": "GET / HTTP/1.10", "no minor": "GET / HTTP/1", "HTTP/0.9": "GET /", "a fragment": "GET /#a HTTP/1.1",
        "a space in the target": "GET /a b HTTP/1.1", "a method with a colon": "GE:T / HTTP/1.1", "a control": "GET /\x7f HTTP/1.1", "Latin-1": "GET /\xff HTTP/1.1",
        "a relative target": "GET a HTTP/1.1", "a star": "GET * HTTP/1.1", "user information": "GET http://a.example@b.example/ HTTP/1.1", "no host": "GET http:/// HTTP/1.1",
        "another host": "GET http://b.example/ HTTP/1.1", "another port": "GET http://a.example:81/ HTTP/1.1", "another scheme": "GET ftp://a.example/ HTTP/1.1",
        "a backslash for a slash": "GET \\ HTTP/1.1", "a CR in it": "GET /\r HTTP/1.1", "a CR at its end": "GET / HTTP/1.1\r", "a vertical tab": "GET\x0b/ HTTP/1.1",
        "a plus in the version": "GET / HTTP/+1.1", "a space in the version": "GET / HTTP/ 1.1", "nothing": "",
    }  # fmt: skip
    cases = {name: head(start=line.encode("latin-1")) for name, line in bad.items() if line}
    cases |= {
        "bare LF throughout": head(start="GET / HTTP/1.1").replace(b"\r\n", b"\n"),
        "a CR before": b"\r" + head(start="GET / HTTP/1.1"),
        "a bare LF before": b"\n" + head(start="GET / HTTP/1.1"),
        "empty lines": b"\r\n" * 5 + head(start="GET / HTTP/1.1"),
        "a TLS record": b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n",
        "a PROXY line where none is read": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"
        + head(start="GET / HTTP/1.1"),
    }
    versions = {
        "HTTP/2 in clear": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/1.2": head(start="GET / HTTP/1.2"),
        "HTTP/9.9": head(start="GET / HTTP/9.9"),
    }
    source = "RFC 9112 2.2, 2.3, 3, 3.2; desync"
    return [
        *_of("line", 400, source, cases),
        *_of("line", 505, "RFC 9110 15.6.6", versions),
        *_of("line", 501, "RFC 9110 9.1", {"CONNECT": head(start="CONNECT a.example:80 HTTP/1.1")}),
        *_of("line", 414, "RFC 9110 15.5.15", {"long": head(start=f"GET /{'a' * 9000} HTTP/1.1")}),
    ]


def _hosts() -> list[Case]:
    wrong = [
        "a.example, b.example", "a.example/b", "a.example@b.example", "a b", "a.example:99999", "a.example:80:80", "[::1", "::1", "a\\b", "a?b", "a#b", "",
        "a.example:", "a.example:+80", "a.example:0x50", "[::1]x", "[a.example]", "a%00b", "<a>", "a'b", 'a"b', "a;b", "a\tb", "[::1%25eth0]", "a..b",
    ]  # fmt: skip
    cases = {
        repr(host): head(start="GET / HTTP/1.1", host=host)
        for host in wrong
        if host not in {"a.example:", "a..b"}
    }
    cases |= {
        "none": head(start="GET / HTTP/1.1", host=None),
        "two": head("Host: b.example", start="GET / HTTP/1.1"),
        "two that agree": head("Host: a.example", start="GET / HTTP/1.1"),
        "one and one with a space": head("Host : b.example", start="GET / HTTP/1.1"),
        "folded": head("Host:\r\n b.example", start="GET / HTTP/1.1", host=None),
        "Latin-1": head(b"Host: a\xe9.example", start="GET / HTTP/1.1", host=None),
    }
    return _of("host", 400, "RFC 9112 3.2, RFC 9110 7.2", cases)


def _sizes() -> list[Case]:
    large = {
        "one large field": head("A: " + "b" * 70_000, start="GET / HTTP/1.1"),
        "many fields": head(*(f"A{n}: b" for n in range(150)), start="GET / HTTP/1.1"),
        "a long name": head("A" * 70_000 + ": b", start="GET / HTTP/1.1"),
        "no end of fields": b"GET / HTTP/1.1\r\nHost: a.example\r\n" + b"A: b\r\n" * 20_000,
        "large cookies": head(*("Cookie: " + "c" * 8000 for _ in range(10)), start="GET / HTTP/1.1"),
    }
    endless = {"no end of a line": b"GET /" + b"a" * 100_000}
    return [
        *_of("size", 431, "RFC 6585 5", large),
        *_of("size", 414, "RFC 9110 15.5.15", endless),
    ]


def _upgrades() -> list[Case]:
    bad = {
        "a body": upgrade("Content-Length: 5") + b"hello",
        "a chunked body": upgrade("Transfer-Encoding: chunked") + CHUNKS,
        "two keys": upgrade("Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA=="),
        "a short key": upgrade(key="c2hvcnQ="),
        "a long key": upgrade(key="QUJDREVGR0hJSktMTU5PUFFSU1Q="),
        "a key that is no base64": upgrade(key="!" * 24),
        "an empty key": upgrade(key=""),
        "a key with padding inside": upgrade(key="AAAA=AAAAAAAAAAAAAAAAAA="),
        "two versions": upgrade("Sec-WebSocket-Version: 13"),
        "POST": upgrade(start="POST /ws HTTP/1.1"),
        "HTTP/1.0": upgrade(start="GET /ws HTTP/1.0"),
        "a header in a subprotocol": upgrade("Sec-WebSocket-Protocol: a\r\n b"),
        "a subprotocol that is no token": upgrade("Sec-WebSocket-Protocol: a b"),
        "a folded key": upgrade(key="\r\n dGhlIHNhbXBsZSBub25jZQ=="),
    }
    old = {
        "version 8": upgrade(version="8"),
        "version 12": upgrade(version="12"),
        "version 14": upgrade(version="14"),
        "version 013": upgrade(version="013"),
        "version +13": upgrade(version="+13"),
        "no version": upgrade().replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    }
    return [
        *_of("upgrade", 400, "RFC 6455 4.1, 4.2.1; ws-smuggling", bad),
        *_of("upgrade", 426, "RFC 6455 4.2.2, 4.4", old),
    ]


REQUESTS: list[Case] = [
    *_lengths(),
    *_names(),
    *_codings(),
    *_chunked(),
    *_lines(),
    *_hosts(),
    *_sizes(),
    *_upgrades(),
]

PIPELINED: list[Case] = [
    Case("pipelined: after a 400", head("Content-Length: x") + SMUGGLED * 3, 400, "RFC 9112 9.3.2"),
    Case(
        "pipelined: after a refused upgrade",
        upgrade(version="8") + SMUGGLED,
        426,
        "RFC 6455 4.1; ws-smuggling",
    ),
    Case(
        "pipelined: a body that is a request",
        head(f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
        200,
        "RFC 9112 6.3",
        reaches=True,
    ),
]
