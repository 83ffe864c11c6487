"""The running daemon with everything that the tables attack, and a backend that keeps what it gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from tests.daemon.harness import PATIENCE, Daemon, daemon, free_port
from tests.hostile.backend import Seen, record
from tests.tlsfiles import Authority


@define
class World:
    """Ports of the daemon's entry points, and what the backend saw since `seen` was cleared."""

    daemon: Daemon
    ports: dict[str, int]
    seen: list[Seen] = field(factory=list)

    async def ask(self, sent: bytes, entry: str = "web") -> bytes:
        """Return all that is said to `sent` until the connection is closed."""
        return await ask(self.ports[entry], sent)

    async def head(self, sent: bytes, entry: str = "web") -> bytes:
        """Return the head of the answer to `sent`, and close the connection."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.ports[entry])
        answer = b""
        async with stream:
            await stream.send_all(sent)
            with trio.fail_after(PATIENCE):
                while b"\r\n\r\n" not in answer and (data := await stream.receive_some(65536)):
                    answer += data
        return answer


async def ask(port: int, sent: bytes) -> bytes:
    """Return all that is said to `sent` until the connection is closed, or reset with bytes of ours unread."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    answer = b""

    async def send() -> None:
        try:
            await stream.send_all(sent)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            with trio.fail_after(PATIENCE):
                while data := await stream.receive_some(65536):
                    answer += data
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()
    return answer


Serve = Callable[[trio.SocketStream], Coroutine[Any, Any, None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """Serve connections with `serve`, and give the port."""

    async def guarded(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await serve(stream)
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, guarded, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def balancing(*ports: int, only: str = "", **options: object) -> dict[str, Any]:
    """Return an `http` section with one router for everything; nobody but the tests asks its backends."""
    entries = [only] if only else ["web", "proxied", "lied"]
    servers = [{"url": f"http://127.0.0.1:{port}"} for port in ports]
    return {
        "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "back", "entryPoints": entries}},
        "services": {"back": {"loadBalancer": {"servers": servers, **options}}},
    }


@asynccontextmanager
async def attacked(folder: Path) -> AsyncIterator[World]:
    """Run the daemon with entry points `web`, `proxied` (believes PROXY headers), `lied` (does not), `tls` and `admin`."""
    seen: list[Seen] = []

    async def serve(stream: trio.SocketStream) -> None:
        seen.append(Seen())
        await record(seen[-1], partial(stream.receive_some, 65536), stream.send_all)

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(serve))
        http = balancing(port, sticky={"cookie": {"name": "lb"}})
        allowed = ["https://app.example", "https://*.good.example"]
        http["middlewares"] = {"pages": {"originAllowList": {"origins": allowed}}}
        http["routers"]["pages"] = {
            "rule": "PathPrefix(`/pages`)",
            "service": "back",
            "middlewares": ["pages"],
            "entryPoints": ["web"],
        }
        http["routers"]["secure"] = {
            "rule": "PathPrefix(`/`)",
            "service": "back",
            "entryPoints": ["tls"],
            "tls": {},
        }
        files = Authority(folder).issue("front", "front.test")
        ports = {name: free_port() for name in ("web", "proxied", "lied", "tls", "admin")}
        entries: dict[str, Any] = {name: {"address": f"127.0.0.1:{number}"} for name, number in ports.items()}
        entries["proxied"]["proxyProtocol"] = {"trustedIPs": ["127.0.0.1"]}
        entries["lied"]["proxyProtocol"] = {"trustedIPs": ["192.0.2.1"]}
        running = await stack.enter_async_context(
            daemon(
                folder,
                [],
                port=ports["web"],
                entryPoints=entries,
                http=http,
                tls={"certificates": [files.section]},
            )
        )
        yield World(running, ports, seen)
        assert running.log("internal error") == []
