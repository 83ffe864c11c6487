"""Frames that break RFC 6455: the daemon judges and stays transparent, the endpoint ends the session, the client is told the same.

Each case runs directly against an echo server (of the library `websockets`) and through the daemon, in every relay; what the
client is told at the end must be the same. A session with a limit of ours is ended by the daemon itself, whatever the header says.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.harness import PATIENCE, Running, daemon, free_port
from tests.hostile.case import upgrade
from trio_wsb.websocket.frames import mask_payload

pytestmark = pytest.mark.daemon

MASK = b"\x01\x02\x03\x04"


def frame(first: int, payload: bytes = b"", *, masked: bool = True, length: bytes | None = None) -> bytes:
    """Return a frame; `length` are the bytes of the length field, the mask bit left out."""
    if length is None:
        size = len(payload)
        length = bytes((size,)) if size < 126 else bytes((126,)) + size.to_bytes(2, "big")
    second = bytes((length[0] | (0x80 if masked else 0),)) + length[1:]
    return bytes((first,)) + second + (MASK + mask_payload(payload, MASK) if masked else payload)


CASES: dict[str, tuple[bytes, int, str]] = {
    "unmasked text": (frame(0x81, b"hi", masked=False), 1002, "5.1, 5.3"),
    "unmasked ping": (frame(0x89, b"hi", masked=False), 1002, "5.1, 5.3"),
    "unmasked close": (frame(0x88, b"\x03\xe8", masked=False), 1002, "5.1, 5.3"),
    "RSV1": (frame(0xC1, b"hi"), 1002, "5.2"),
    "RSV2": (frame(0xA1, b"hi"), 1002, "5.2"),
    "RSV3": (frame(0x91, b"hi"), 1002, "5.2"),
    "RSV1 on a ping": (frame(0xC9, b"hi"), 1002, "5.2"),
    "opcode 3": (frame(0x83, b"hi"), 1002, "5.2"),
    "opcode 7": (frame(0x87), 1002, "5.2"),
    "opcode 11": (frame(0x8B, b"hi"), 1002, "5.2"),
    "opcode 15": (frame(0x8F), 1002, "5.2"),
    "ping of 126 bytes": (frame(0x89, b"p" * 126), 1002, "5.5"),
    "pong of 300 bytes": (frame(0x8A, b"p" * 300), 1002, "5.5"),
    "close of 126 bytes": (frame(0x88, b"\x03\xe8" + b"r" * 124), 1002, "5.5"),
    "fragmented ping": (frame(0x09, b"hi"), 1002, "5.5"),
    "fragmented close": (frame(0x08, b"\x03\xe8"), 1002, "5.5"),
    "continuation of nothing": (frame(0x80, b"hi"), 1002, "5.4"),
    "text inside a message": (frame(0x01, b"a") + frame(0x81, b"b"), 1002, "5.4"),
    "close with half a code": (frame(0x88, b"\x03"), 1002, "5.5.1, 7.1.5"),
    "close with 1005": (frame(0x88, b"\x03\xed"), 1002, "7.4.1"),
    "close with 1006": (frame(0x88, b"\x03\xee"), 1002, "7.4.1"),
    "close with 999": (frame(0x88, b"\x03\xe7"), 1002, "7.4.1"),
    "close with 65535": (frame(0x88, b"\xff\xff"), 1002, "7.4.2"),
    "close whose reason is no UTF-8": (frame(0x88, b"\x03\xe8\xff"), 1007, "5.5.1, 8.1"),
    "text that is no UTF-8": (frame(0x81, b"\xff"), 1007, "8.1"),
    "text over two frames that is no UTF-8": (frame(0x01, b"\xce") + frame(0x80, b"\xff"), 1007, "8.1"),
    "length with the highest bit": (frame(0x82, length=b"\x7f" + b"\xff" * 8), 1009, "5.2"),
    "length of 2^62": (frame(0x82, length=b"\x7f\x40" + bytes(7)), 1009, "5.2"),
}
"""What a client sends, the code that it is told, and the section of RFC 6455."""


async def told(port: int, path: str, sent: bytes) -> int:
    """Open a session, send `sent`, and return the code of the Close that comes; 1006 without one."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    received = b""
    async with stream:
        await stream.send_all(upgrade(start=f"GET {path} HTTP/1.1"))
        with trio.fail_after(PATIENCE):
            while b"\r\n\r\n" not in received:
                received += await stream.receive_some(4096)
            head, _, received = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            await stream.send_all(sent)
            while (code := close_code(received)) is None:
                try:
                    data = await stream.receive_some(4096)
                except trio.BrokenResourceError:
                    data = b""
                if not data:
                    return 1006
                received += data
    return code


def close_code(data: bytes) -> int | None:
    """Return the code of the first Close in a server's frames, each shorter than 126 bytes."""
    while len(data) >= 2 and len(data) >= 2 + (size := data[1]):
        assert size < 126
        if data[0] == 0x88:
            return int.from_bytes(data[2:4], "big")
        data = data[2 + size :]
    return None


def service(port: int, relay: str, **session: object) -> Mapping[str, Any]:
    return {
        "loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{port}"}], "relay": relay, "session": session}
    }


async def test_what_a_client_is_told(tmp_path: Path) -> None:
    port = free_port()
    limited = {"maxMessageBytes": 1024}
    services = {
        "stream": service(port, "stream"),
        "kernel": service(port, "kernel"),
        "limited": service(port, "stream", **limited),
        "limited-kernel": service(port, "kernel", **limited),
    }
    routers = {name: {"rule": f"Path(`/{name}`)", "service": name} for name in services}
    found: dict[tuple[str, str], int] = {}
    async with Running.program(sys.executable, "-m", "tests.hostile.echo", str(port)) as backend:
        await backend.line("listening on")
        async with daemon(tmp_path, [], http={"routers": routers, "services": services}) as running:

            async def run(name: str, where: str) -> None:
                there = port if where == "direct" else running.port
                found[name, where] = await told(there, f"/{where}", CASES[name][0])

            async with trio.open_nursery() as nursery:
                for name in CASES:
                    for where in ("direct", "stream", "kernel"):
                        nursery.start_soon(run, name, where)
            wrong = {key: code for key, code in found.items() if code != CASES[key[0]][1]}
            assert wrong == {}
            # A limit of ours: the header alone decides, and no byte of such a message is waited for or kept.
            for where in ("limited", "limited-kernel"):
                for name in ("length with the highest bit", "length of 2^62"):
                    assert await told(running.port, f"/{where}", CASES[name][0]) == 1009
                too_long = frame(0x02, b"x" * 600) + frame(0x80, b"y" * 600)
                assert await told(running.port, f"/{where}", too_long) == 1009
                huge_ping = frame(0x89, b"x" * 2000)
                assert await told(running.port, f"/{where}", huge_ping) in {1002, 1009}
            assert running.log("internal error") == []
