"""Backends that answer the handshake one byte at a time, never, with garbage, or with the end of the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.harness import PATIENCE, backend
from tests.faults.servers import Handle, Server, read_head, reset, server, switching
from tests.faults.stage import World, world

pytestmark = pytest.mark.daemon

TRANSPORTS = {
    "quick": {"forwardingTimeouts": {"responseHeaderTimeout": "500ms"}},
    "patient": {"forwardingTimeouts": {"responseHeaderTimeout": "30s"}},
}


def says(*parts: bytes) -> Handle:
    """Return a server that answers any handshake with `parts`, and ends the connection."""

    async def handle(stream: trio.SocketStream) -> None:
        if await read_head(stream):
            for part in parts:
                await stream.send_all(part)

    return handle


async def never(stream: trio.SocketStream) -> None:
    await read_head(stream)
    await trio.sleep_forever()


async def drips(stream: trio.SocketStream) -> None:
    """Answer well, one byte in a segment."""
    head = await read_head(stream)
    if head:
        for byte in switching(head):
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.002)
        await stream.send_all(b"\x81\x04here")
        await trio.sleep_forever()


async def drips_for_ever(stream: trio.SocketStream) -> None:
    await read_head(stream)
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nX-Long: ")
    while True:
        await stream.send_all(b"x")
        await trio.sleep(0.05)


async def endless(stream: trio.SocketStream) -> None:
    await read_head(stream)
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n")
    while True:
        await stream.send_all(b"X-More: " + b"x" * 1000 + b"\r\n")


async def resets(stream: trio.SocketStream) -> None:
    await read_head(stream)
    reset(stream)


async def ends(stream: trio.SocketStream) -> None:
    await read_head(stream)


REFUSED: dict[str, tuple[Handle, bytes]] = {
    "never": (never, b"504"),
    "drips_for_ever": (drips_for_ever, b"504"),
    "endless": (endless, b"502"),
    "zeros": (says(bytes(4096)), b"502"),
    "text": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), b"502"),
    "tls_alert": (says(b"\x15\x03\x03\x00\x02\x02\x46"), b"502"),
    "http_09": (says(b"<html>hello</html>"), b"502"),
    "cut_off": (says(b"HTTP/1.1 101 Switching Pro"), b"502"),
    "wrong_accept": (
        says(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n\x81\x06secret"
        ),
        b"502",
    ),
    "no_status": (says(b"HTTP/1.1 xyz\r\n\r\n"), b"502"),
}
"""What a server does, and what its client is told. None of these is tried again: the backend may have acted on it."""

NEXT: dict[str, Handle] = {"ends": ends, "resets": resets}
"""What sends the client to the next best backend."""


@asynccontextmanager
async def servers() -> AsyncIterator[dict[str, Server]]:
    async with AsyncExitStack() as stack:
        handles = {**{name: handle for name, (handle, _) in REFUSED.items()}, **NEXT, "drips": drips}
        yield {name: await stack.enter_async_context(server(handle)) for name, handle in handles.items()}


def service(*urls: str, transport: str = "patient", **keys: Any) -> dict[str, Any]:
    servers = [{"url": url, "weight": 100 if index == 0 else 1} for index, url in enumerate(urls)]
    return {"loadBalancer": {"servers": servers, "serversTransport": transport, **keys}}


async def test_handshakes_that_fail(tmp_path: Path) -> None:
    async with servers() as bad, backend(name="good") as good:
        services = {
            **{name: service(bad[name].url) for name in REFUSED},
            "never": service(bad["never"].url, transport="quick"),
            "drips_for_ever": service(bad["drips_for_ever"].url, transport="quick"),
            **{name: service(bad[name].url, good.url) for name in NEXT},
            "drips": service(bad["drips"].url),
        }
        async with world(tmp_path, services, transports=TRANSPORTS) as found:
            for name, (_, status) in REFUSED.items():
                answer = await found.handshake(f"/{name}")
                assert answer.startswith(b"HTTP/1.1 " + status), (name, answer)
                assert b"secret" not in answer
                assert bad[name].connections == 1, "it is not tried again"
                await told(found, bad[name].url)
            for name in NEXT:
                connection = await found.connect(f"/{name}")
                assert await found.whereabouts([connection]) == {0: "good"}
                assert bad[name].connections == 1
                await told(found, bad[name].url)
            assert (await found.backend(good.url))["failures"] == 0
            # One byte at a time is slow, not wrong.
            connection = await found.connect("/drips")
            with trio.fail_after(PATIENCE):
                assert await connection.get_message() == "here"
            assert (await found.backend(bad["drips"].url))["state"] == "ready"


async def told(found: World, url: str) -> None:
    """See one line that says why, and the state that status shows."""
    line = await found.daemon.logged("backend failed", backend=url)
    assert line["level"] == "warning"
    assert line["reason"]
    view = await found.backend(url)
    assert (view["live"], view["handshakes"], view["failures"]) == (0, 0, 1)
    assert len(found.logged("backend failed", backend=url)) == 1
