"""Fields, origins, cookies and PROXY headers with which a stranger passes for somebody else, at the running daemon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from tests.hostile.case import head, upgrade
from tests.hostile.fields import COOKIES, FIELDS, LIE, ORIGINS, FieldCase
from tests.hostile.world import World, attacked

pytestmark = pytest.mark.daemon


def status(answer: bytes) -> int:
    match = re.match(rb"HTTP/1\.1 ([0-9]{3}) ", answer)
    return int(match[1]) if match else 0


def last(sent: bytes) -> bytes:
    """Return a plain request as the last of its connection."""
    return sent if b"\r\nConnection:" in sent else sent.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


async def fault_of(world: World, case: FieldCase) -> str:
    """Return what is wrong with what reached the backend, "" if nothing is."""
    world.seen.clear()
    answer = await world.head(last(case.sent))
    if status(answer) not in {101, 200}:
        return f"answered {answer[:60]!r}"
    [seen] = world.seen
    if seen.fault or len(seen.requests) != 1:
        return f"no one good request: {seen.fault}"
    if case.gone in seen.raw:
        return f"{case.gone!r} reached the backend"
    wrong = {name: seen.values(name) for name, values in case.values.items() if seen.values(name) != values}
    if wrong:
        return f"the backend got {wrong}"
    return "" if bytes(seen.body) == case.body else f"the body was {bytes(seen.body)!r}"


async def test_who_a_client_is_and_what_ends_here(tmp_path: Path) -> None:
    async with attacked(tmp_path) as world:
        faults = {case.name: await fault_of(world, case) for case in FIELDS}
        assert {name: fault for name, fault in faults.items() if fault} == {}
        await check_origins(world)
        await check_cookies(world)
        await check_proxy_headers(world)


async def check_origins(world: World) -> None:
    wrong = {}
    for origin, expected in ORIGINS:
        sent = upgrade(b"Origin: " + origin.encode(), start="GET /pages HTTP/1.1")
        world.seen.clear()
        found = status(await world.head(sent))
        if found != expected or (expected != 101 and world.seen):
            wrong[origin] = found
    assert wrong == {}
    # Two fields, of which the backend might believe the other one.
    both = upgrade("Origin: https://app.example", "Origin: https://evil.test", start="GET /pages HTTP/1.1")
    assert status(await world.head(both)) == 403


async def check_cookies(world: World) -> None:
    good: str | None = None
    for value in COOKIES:
        sent = head(f"Cookie: lb={value}".encode(), "Connection: close", start="GET / HTTP/1.1")
        answer = await world.head(sent)
        assert status(answer) == 200, value
        match = re.search(rb"\r\nSet-Cookie: lb=([0-9a-f]{16}); Path=/\r\n", answer)
        assert match is not None, value
        good = match[1].decode()
    # The one that it gave is kept, and said no more.
    answer = await world.head(head(f"Cookie: lb={good}", "Connection: close", start="GET / HTTP/1.1"))
    assert status(answer) == 200
    assert b"Set-Cookie" not in answer


def block(command: int, family: int, rest: bytes, size: int | None = None) -> bytes:
    length = len(rest) if size is None else size
    return b"\r\n\r\n\x00\r\nQUIT\n" + bytes((command, family)) + length.to_bytes(2, "big") + rest


ADDRESSES = bytes((203, 0, 113, 66, 192, 0, 2, 1, 0, 80, 0, 80))

BROKEN_HEADERS = {
    "no address": b"PROXY TCP4 203.0.113.666 192.0.2.1 1 2\r\n",
    "another family": b"PROXY TCP6 203.0.113.66 192.0.2.1 1 2\r\n",
    "a bare LF": b"PROXY TCP4 203.0.113.66 192.0.2.1 1 2\n",
    "a port out of range": b"PROXY TCP4 203.0.113.66 192.0.2.1 1 65536\r\n",
    "a leading zero": b"PROXY TCP4 203.0.113.66 192.0.2.1 01 2\r\n",
    "a long line": b"PROXY UNKNOWN " + b"a" * 200 + b"\r\n",
    "a CR in it": b"PROXY UNKNOWN a\rb\r\n",
    "version 3": block(0x31, 0x11, ADDRESSES),
    "an unknown command": block(0x2F, 0x11, ADDRESSES),
    "an unknown family": block(0x21, 0x99, ADDRESSES),
    "addresses cut short": block(0x21, 0x11, ADDRESSES[:5]),
    "a long block": block(0x21, 0x11, ADDRESSES, 60_000),
    "a TLV that ends outside": block(0x21, 0x11, ADDRESSES + b"\x04\xff\xff"),
    "a wrong checksum": block(0x21, 0x11, ADDRESSES + b"\x03\x00\x04abcd"),
}
"""Closed without a word (the PROXY protocol, sections 2.1 and 2.2): who sends them expects no answer."""


async def check_proxy_headers(world: World) -> None:
    request = head("Connection: close", start="GET / HTTP/1.1")
    world.seen.clear()
    for name, header in BROKEN_HEADERS.items():
        with trio.fail_after(10):
            assert await world.ask(header + request, "proxied") == b"", name
    assert world.seen == []
    # Believed from who is trusted, once; a second one is no request.
    line = f"PROXY TCP4 {LIE} 192.0.2.1 1 2\r\n".encode()
    for header, entry, client in [
        (line, "proxied", LIE),
        (block(0x21, 0x11, ADDRESSES), "proxied", LIE),
        (block(0x20, 0x11, ADDRESSES), "proxied", "127.0.0.1"),
        (line, "lied", "127.0.0.1"),
        (block(0x21, 0x11, ADDRESSES), "lied", "127.0.0.1"),
    ]:
        world.seen.clear()
        assert status(await world.ask(header + request, entry)) == 200
        assert world.seen[0].values("X-Forwarded-For") == [client]
    assert status(await world.ask(line + line + request, "proxied")) == 400
    assert status(await world.ask(line + request, "web")) == 400
