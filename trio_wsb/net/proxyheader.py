"""The header of the PROXY protocol, which a proxy puts in front of a connection to say whose it is.

HAProxy's specification "The PROXY protocol, versions 1 & 2" names the sections cited here. Version 1 is a line of text,
version 2 a block of bytes with a length. `parse_header` is pure: it looks at the first bytes of a connection and says
what they are, or how many more it has to see.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import frozen

from trio_wsb.addresses import IPAddress, parse_ip
from trio_wsb.errors import Error

MAX_V1: Final = 107
"""Bytes of the longest line of version 1, its CRLF included (section 2.1)."""

MAX_V2: Final = 16 + 4096
"""Bytes of the longest block of version 2 that is taken. Addresses have 216 at most; what TLVs say of TLS, with a
certificate among it, a few thousand. The length field could say 65535, which nobody sends."""

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED: Final = 16

_LINE: Final = re.compile(
    rb"PROXY (?:(UNKNOWN)(?: [ -~]*)?"
    rb"|(TCP[46]) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)

_ADDRESS_SIZES: Final = {0x11: 4, 0x12: 4, 0x21: 16, 0x22: 16}
"""Bytes of one address by family and transport (section 2.2): TCP and UDP over IPv4 and IPv6."""

_UNSPECIFIED: Final = 0x00
_UNIX: Final = frozenset({0x31, 0x32})
_UNIX_ADDRESSES: Final = 216

_TLV_CRC32C: Final = 0x03

# The polynomial of RFC 3720 appendix B.4, reflected.
_CRC_TABLE: Final = []
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = (_value >> 1) ^ (0x82F63B78 if _value & 1 else 0)
    _CRC_TABLE.append(_value)


class ProxyHeaderError(Error):
    """What begins as a PROXY header is none; the text says why and has nothing in it that the peer sent."""


@frozen
class Incomplete:
    """More bytes are needed: `needed` of them from the beginning on.

    `certain` says that it is a PROXY header; else it may still be something else that begins like one.
    """

    needed: int
    certain: bool


@frozen
class ProxyHeader:
    """A whole header: its size in bytes, and who the connection is from.

    `source` is None when the header does not say it: the connection is the proxy's own (LOCAL, as for its health
    checks), or from something without an IP address. Then the address of the connection itself counts.
    """

    size: int
    source: IPAddress | None
    port: int = 0


def parse_header(data: bytes) -> ProxyHeader | Incomplete | None:
    """Return what `data`, the first bytes of a connection, has for a header; None when it begins with none.

    Looks at `MAX_V2` bytes at most, and never wants more.

    Raises:
      ProxyHeaderError: it begins as a header and is none.

    """
    if data.startswith(_V1):
        return _parse_v1(data)
    if data.startswith(_V2):
        return _parse_v2(data)
    if _V1.startswith(data) or _V2.startswith(data):  # nothing at all too
        return Incomplete(len(data) + 1, certain=False)
    return None


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of `data`, as RFC 3720 section 12.1 defines it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _parse_v1(data: bytes) -> ProxyHeader | Incomplete:
    end = data.find(b"\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise ProxyHeaderError(f"a PROXY line has at most {MAX_V1} bytes")
        return Incomplete(len(data) + 1, certain=True)
    match = _LINE.fullmatch(data, 0, end + 1)
    if match is None:
        raise ProxyHeaderError("the PROXY line is malformed")
    if match[1]:
        return ProxyHeader(end + 1, None)
    family: type[IPv4Address | IPv6Address] = IPv4Address if match[2] == b"TCP4" else IPv6Address
    try:
        source, _ = (family(match[number].decode("ascii")) for number in (3, 4))
    except ValueError:
        raise ProxyHeaderError("the PROXY line has an address that is none of its family") from None
    ports = [int(match[number]) for number in (5, 6)]
    if max(ports) > 65535:
        raise ProxyHeaderError("the PROXY line has a port out of range")
    return ProxyHeader(end + 1, parse_ip(str(source)), ports[0])


def _parse_v2(data: bytes) -> ProxyHeader | Incomplete:
    if len(data) < _V2_FIXED:
        return Incomplete(_V2_FIXED, certain=True)
    version, command, family = data[12] >> 4, data[12] & 0x0F, data[13]
    size = _V2_FIXED + int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise ProxyHeaderError("the PROXY block has an unknown version or command")
    if size > MAX_V2:
        raise ProxyHeaderError(f"the PROXY block is longer than {MAX_V2} bytes")
    if len(data) < size:
        return Incomplete(size, certain=True)
    # LOCAL: "discard the protocol block including the family which is ignored" (section 2.2).
    if command == 0 or family == _UNSPECIFIED:
        return ProxyHeader(size, None)
    block = data[:size]
    if family in _UNIX:
        _check_tlvs(block, _V2_FIXED + _UNIX_ADDRESSES)
        return ProxyHeader(size, None)
    width = _ADDRESS_SIZES.get(family)
    if width is None:
        raise ProxyHeaderError("the PROXY block has an unknown address family")
    addresses = _V2_FIXED + 2 * width + 4
    _check_tlvs(block, addresses)
    raw = block[_V2_FIXED : _V2_FIXED + width]
    source = IPv4Address(raw) if width == 4 else IPv6Address(raw)
    return ProxyHeader(
        size, parse_ip(str(source)), int.from_bytes(block[addresses - 4 : addresses - 2], "big")
    )


def _check_tlvs(block: bytes, start: int) -> None:
    """Check that the rest of `block` from `start` on is TLVs (section 2.2.6), and the checksum if it has one."""
    if start > len(block):
        raise ProxyHeaderError("the PROXY block is too short for its addresses")
    checksum_at = 0
    while start < len(block):
        value = start + 3
        end = value + int.from_bytes(block[start + 1 : value], "big")
        if value > len(block) or end > len(block):
            raise ProxyHeaderError("the PROXY block ends within a TLV")
        if block[start] == _TLV_CRC32C:
            if checksum_at or end - value != 4:
                raise ProxyHeaderError("the PROXY block has a malformed checksum")
            checksum_at = value
        start = end
    if checksum_at:
        # Section 2.2.3: over the whole block, the checksum itself counting as zeros.
        zeroed = block[:checksum_at] + bytes(4) + block[checksum_at + 4 :]
        if crc32c(zeroed) != int.from_bytes(block[checksum_at : checksum_at + 4], "big"):
            raise ProxyHeaderError("the PROXY block has a wrong checksum")
