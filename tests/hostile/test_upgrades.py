"""WebSocket smuggling at the running daemon: the backend says no, or something odd, and the client goes on as if it had said yes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE, daemon
from tests.hostile.case import SMUGGLED, upgrade
from tests.hostile.world import ask, balancing, listening

pytestmark = pytest.mark.daemon

ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

ANSWERS: dict[str, tuple[bytes, int, str]] = {
    "426": (b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n", 426, "RFC 6455 4.4"),
    "200": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "RFC 6455 4.1"),
    "200 that never ends": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", 200, "RFC 9112 8"),
    "503": (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 503, "RFC 9110 15.6.4"),
    "101 with a wrong accept": (SWITCH + b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", 502, "RFC 6455 4.1"),
    "101 without accept": (SWITCH + b"\r\n", 502, "RFC 6455 4.1"),
    "101 with two accepts": (SWITCH + ACCEPT + ACCEPT + b"\r\n", 502, "RFC 6455 4.1"),
    "101 to h2c": (SWITCH.replace(b"websocket", b"h2c") + ACCEPT + b"\r\n", 502, "RFC 6455 4.1; RFC 9110 7.8"),
    "101 without Upgrade": (SWITCH.replace(b"Upgrade: websocket\r\n", b"") + ACCEPT + b"\r\n", 502, "RFC 6455 4.1"),
    "101 without Connection": (SWITCH.replace(b"Connection: Upgrade\r\n", b"") + ACCEPT + b"\r\n", 502, "RFC 6455 4.1"),
    "101 with a protocol nobody offered": (SWITCH + ACCEPT + b"Sec-WebSocket-Protocol: mqtt\r\n\r\n", 502, "RFC 6455 4.1"),
    "101 with a length": (SWITCH + ACCEPT + b"Content-Length: 5\r\n\r\n", 101, "RFC 9110 8.6"),
    "200 with a header of a 101 in it": (b"HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + ACCEPT + b"Content-Length: 0\r\n\r\n", 200, "RFC 6455 4.1"),
    "a split answer": (b"HTTP/1.1 200 OK\r\nX: a\n\nHTTP/1.1 101 x\r\n\r\n", 502, "RFC 9112 2.2"),
}  # fmt: skip
"""What the backend answers, the status that the client gets, and where it is said."""


async def test_a_tunnel_opens_only_when_both_sides_agree(tmp_path: Path) -> None:
    answers: list[bytes] = []
    got: list[bytearray] = []

    async def serve(stream: trio.SocketStream) -> None:
        mine = bytearray()
        got.append(mine)
        answer = answers[-1]
        while b"\r\n\r\n" not in mine:
            data = await stream.receive_some(65536)
            if not data:
                return
            mine += data
        await stream.send_all(answer)
        while data := await stream.receive_some(65536):
            mine += data

    wrong: dict[str, str] = {}
    # Passive failures would take a backend away that answers so badly; here it is the only one, and stays.
    async with (
        listening(serve) as port,
        daemon(tmp_path, [], http=balancing(port, only="web")) as running,
    ):
        for name, (answer, status, _) in ANSWERS.items():
            answers.append(answer)
            got.clear()
            if status == 101 or "never ends" in name:
                await check_open(running.port, status)
                continue
            said = await ask(running.port, upgrade() + SMUGGLED)
            if not said.startswith(f"HTTP/1.1 {status} ".encode()):
                wrong[name] = f"answered {said[:40]!r}"
            elif b"Connection: close\r\n" not in said:
                wrong[name] = "kept the connection"
            elif any(b"smuggled" in each for each in got):
                wrong[name] = "smuggled"
        assert running.log("internal error") == []
    assert wrong == {}


async def check_open(port: int, status: int) -> None:
    """See the head of an answer that has no end, and that nothing early got through before it."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    said = b""
    async with stream:
        await stream.send_all(upgrade())
        with trio.fail_after(PATIENCE):
            while b"\r\n\r\n" not in said:
                said += await stream.receive_some(65536)
    assert said.startswith(f"HTTP/1.1 {status} ".encode())
    # RFC 9110 section 8.6: a 101 has no Content-Length, or somebody behind us could wait for a body.
    assert b"Content-Length" not in said
