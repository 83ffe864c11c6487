"""The PROXY header against HAProxy's specification, and against a second reading of it that goes by the byte."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import parse_ip
from trio_wsb.net.proxyheader import (
    MAX_V1,
    MAX_V2,
    Incomplete,
    ProxyHeader,
    ProxyHeaderError,
    crc32c,
    parse_header,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FOUR = socket.inet_aton("203.0.113.7") + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 5678, 443)
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack(">HH", 5678, 443)


def block(body: bytes, *, command: int = 1, family: int = 0x11, version: int = 2) -> bytes:
    return SIGNATURE + bytes([version << 4 | command, family]) + struct.pack(">H", len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def summed(body: bytes, family: int = 0x11) -> bytes:
    """Return a block with a right checksum."""
    whole = block(body + tlv(3, bytes(4)), family=family)
    return whole[:-4] + struct.pack(">I", crc32c(whole))


def test_the_checksum_is_that_of_the_rfc() -> None:
    # RFC 3720 appendix B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes([0xFF] * 32)) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize(
    ("header", "source", "port"),
    [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 5678 443\r\n", "203.0.113.7", 5678),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 0 443\r\n", "2001:db8::7", 0),
        (
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            65535,
        ),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", "203.0.113.7", 1),
        (b"PROXY UNKNOWN\r\n", None, 0),
        (
            b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            None,
            0,
        ),
        (block(FOUR), "203.0.113.7", 5678),
        (block(FOUR, family=0x12), "203.0.113.7", 5678),
        (block(SIX, family=0x21), "2001:db8::7", 5678),
        (block(bytes(10) + b"\xff\xff" + FOUR[:4] + bytes(16) + bytes(4), family=0x21), "203.0.113.7", 0),
        (block(FOUR + tlv(4, b"anything") + tlv(0xEE, b"")), "203.0.113.7", 5678),
        (block(FOUR + tlv(2, b"chat.example") + tlv(0x20, bytes(1000))), "203.0.113.7", 5678),
        (summed(FOUR), "203.0.113.7", 5678),
        (summed(FOUR + tlv(1, b"h2")), "203.0.113.7", 5678),
        (summed(SIX, family=0x21), "2001:db8::7", 5678),
        (block(bytes(216), family=0x31), None, 0),
        (block(b"", family=0), None, 0),
        (block(b"whatever", family=0), None, 0),
        (block(b"", command=0, family=0), None, 0),
        (block(FOUR, command=0), None, 0),
        (block(b"odd", command=0, family=0x77), None, 0),
        (block(FOUR + tlv(4, bytes(MAX_V2 - 16 - 12 - 3))), "203.0.113.7", 5678),
    ],
)
def test_a_good_header(header: bytes, source: str | None, port: int) -> None:
    wanted = ProxyHeader(len(header), None if source is None else ip_address(source), port)
    for behind in (b"", b"GET / HTTP/1.1\r\n", header, bytes(5000)):
        assert parse_header(header + behind) == wanted
    for end in range(len(header)):
        found = parse_header(header[:end])
        assert isinstance(found, Incomplete)
        assert end < found.needed <= len(header)
        assert found.certain == (end >= (12 if header[:1] == b"\r" else 6))


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 5678 443\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 5678\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 5678 443 1\r\n",
        b"PROXY TCP4  203.0.113.7 192.0.2.1 5678 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 05678 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 5678 65536\r\n",
        b"PROXY TCP4 203.0.113.07 192.0.2.1 5678 443\r\n",
        b"PROXY TCP4 203.0.113 192.0.2.1 5678 443\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 5678 443\r\n",
        b"PROXY TCP6 203.0.113.7 192.0.2.1 5678 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 5678 443\r\n",
        b"PROXY UDP4 203.0.113.7 192.0.2.1 5678 443\r\n",
        b"PROXY UNKNOWNx\r\n",
        b"PROXY UNKNOWN \x00\r\n",
        b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 14),
        block(FOUR, version=1),
        block(FOUR, version=3),
        block(FOUR, command=2),
        block(FOUR, family=0x10),
        block(FOUR, family=0x41),
        block(FOUR, family=0x21),
        block(FOUR[:-1]),
        block(FOUR + b"\x04"),
        block(FOUR + b"\x04\x00\x05abcd"),
        block(FOUR + tlv(3, b"abcd")),
        block(FOUR + tlv(3, b"abc")),
        summed(FOUR)[:-1] + b"\x00",
        summed(FOUR + tlv(3, bytes(4))),
        block(bytes(215), family=0x31),
        SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x20\x00\xff\xff",
    ],
)
def test_a_bad_header(header: bytes) -> None:
    with pytest.raises(ProxyHeaderError) as caught:
        parse_header(header)
    assert "203.0" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROPFIND /",
        b"\x16\x03\x01",
        b"\r\nGET",
        b"proxy TCP4",
        b"PROXYX",
        b"\r\n\r\n\r",
    ],
)
def test_something_else(data: bytes) -> None:
    assert parse_header(data) is None


# A second reading, slow and by the byte, which says what a stream of bytes comes to.

Outcome = tuple[str, int, str | None, int]
"""What it is (none, part, bad, good), its size, source and port."""


def model(data: bytes) -> Outcome:
    for number, byte in enumerate(data[:12]):
        ones = [sign for sign in (b"PROXY ", SIGNATURE) if data[:number] == sign[:number]]
        if any(number >= len(sign) for sign in ones):
            break
        if not any(sign[number] == byte for sign in ones):
            return "none", 0, None, 0
    if data[:6] == b"PROXY ":
        return model_line(data)
    if len(data) < 12:
        return "part", 0, None, 0
    return model_block(data)


def model_line(data: bytes) -> Outcome:
    line = b""
    for byte in data[:107]:
        line += bytes([byte])
        if byte == 0x0A:
            break
    else:
        return ("bad" if len(data) >= 107 else "part"), 0, None, 0
    if not line.endswith(b"\r\n"):
        return "bad", 0, None, 0
    words = line[:-2].split(b" ")
    if words[1] == b"UNKNOWN":
        printable = all(0x20 <= byte <= 0x7E for byte in line[:-2])
        return ("good", len(line), None, 0) if printable else ("bad", 0, None, 0)
    if len(words) != 6 or words[1] not in {b"TCP4", b"TCP6"}:
        return "bad", 0, None, 0
    try:
        addresses = [ip_address(word.decode()) for word in words[2:4]]
        ports = [int(word.decode()) for word in words[4:]]
    except ValueError:
        return "bad", 0, None, 0
    fits = all(each.version == int(words[1][3:4]) and "%" not in str(each) for each in addresses)
    fits = fits and all(str(port).encode() == word for port, word in zip(ports, words[4:], strict=True))
    if not fits or not all(0 <= port <= 65535 for port in ports):
        return "bad", 0, None, 0
    return "good", len(line), str(parse_ip(str(addresses[0]))), ports[0]


def model_block(data: bytes) -> Outcome:
    if len(data) < 16:
        return "part", 0, None, 0
    size = 16 + data[14] * 256 + data[15]
    if data[12] not in {0x20, 0x21} or size > MAX_V2:
        return "bad", 0, None, 0
    if len(data) < size:
        return "part", 0, None, 0
    if data[12] == 0x20 or data[13] == 0:
        return "good", size, None, 0
    widths = {0x11: 4, 0x12: 4, 0x21: 16, 0x22: 16, 0x31: 108, 0x32: 108}
    if data[13] not in widths:
        return "bad", 0, None, 0
    width = widths[data[13]]
    rest = list(data[16:size])
    addresses = rest[: 2 * width + (4 if width < 108 else 0)]
    if len(addresses) < 2 * width + (4 if width < 108 else 0):
        return "bad", 0, None, 0
    rest = rest[len(addresses) :]
    checksums = []
    while rest:
        if len(rest) < 3 or len(rest) < 3 + rest[1] * 256 + rest[2]:
            return "bad", 0, None, 0
        length = rest[1] * 256 + rest[2]
        if rest[0] == 3:
            checksums.append((size - len(rest) + 3, bytes(rest[3 : 3 + length])))
        rest = rest[3 + length :]
    if len(checksums) > 1 or any(len(value) != 4 for _, value in checksums):
        return "bad", 0, None, 0
    for place, value in checksums:
        zeroed = bytearray(data[:size])
        zeroed[place : place + 4] = bytes(4)
        if crc32c(bytes(zeroed)) != int.from_bytes(value, "big"):
            return "bad", 0, None, 0
    if width == 108:
        return "good", size, None, 0
    source = ip_address(bytes(addresses[:width]))
    port = addresses[2 * width] * 256 + addresses[2 * width + 1]
    return "good", size, str(parse_ip(str(source))), port


def outcome(data: bytes) -> Outcome:
    try:
        found = parse_header(data)
    except ProxyHeaderError:
        return "bad", 0, None, 0
    if found is None:
        return "none", 0, None, 0
    if isinstance(found, Incomplete):
        assert len(data) < found.needed <= MAX_V2
        return "part", 0, None, 0
    assert found.size <= min(len(data), MAX_V2)
    return "good", found.size, None if found.source is None else str(found.source), found.port


addresses = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["::ffff:1.2.3.4", "1.2.3", "01.2.3.4", "fe80::1%lo", "", "::", "1.2.3.4.5"]),
)
numbers = st.one_of(st.integers(0, 70000).map(str), st.sampled_from(["", "-1", "+1", "00", "08", "٣", "1_0"]))
lines = st.builds(
    lambda kind, source, target, one, two, end: f"PROXY {kind} {source} {target} {one} {two}{end}".encode(),
    st.sampled_from(["TCP4", "TCP6", "UNKNOWN", "TCP"]),
    addresses,
    addresses,
    numbers,
    numbers,
    st.sampled_from(["\r\n", "\n", "\r", "", " \r\n"]),
)
tlvs = st.lists(
    st.builds(tlv, st.sampled_from([1, 2, 3, 4, 0x20, 0xEE]), st.binary(max_size=6)), max_size=3
).map(b"".join)
blocks = st.one_of(
    st.builds(
        lambda body, more, command, family: block(body + more, command=command, family=family),
        st.one_of(st.sampled_from([FOUR, SIX, bytes(216)]), st.binary(max_size=40)),
        st.one_of(tlvs, st.binary(max_size=8)),
        st.sampled_from([0, 1, 1, 1, 2]),
        st.sampled_from([0, 0x11, 0x12, 0x21, 0x22, 0x31, 0x10, 0x41]),
    ),
    tlvs.map(lambda more: summed(FOUR + more)),
)
beginnings = st.sampled_from(
    [b"", b"P", b"PROXY", b"PROXY ", SIGNATURE, SIGNATURE[:7], SIGNATURE + b"\x21\x11"]
)
streams = st.one_of(
    lines,
    blocks,
    st.builds(lambda begin, rest: begin + rest, beginnings, st.binary(max_size=130)),
    st.builds(lambda header, rest: header + rest, st.one_of(lines, blocks), st.binary(max_size=20)),
)


@given(streams)
def test_it_reads_as_the_model_does(data: bytes) -> None:
    assert outcome(data) == model(data)


@given(streams, st.lists(st.integers(1, 40), max_size=8))
def test_how_it_is_cut_up_changes_nothing(data: bytes, cuts: list[int]) -> None:
    seen = 0
    for cut in [*cuts, len(data)]:
        seen = min(len(data), seen + cut)
        early = outcome(data[:seen])
        if early[0] != "part":
            assert early == outcome(data)
            return


@given(st.binary(max_size=200))
def test_any_bytes_at_all(data: bytes) -> None:
    assert outcome(data) == model(data)
