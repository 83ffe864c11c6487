"""The real daemon and real backends as processes, on loopback, for tests that need the whole thing.

Nothing here sleeps to hope: a process is ready when it says so, and what a log must say is waited for with a
deadline.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import trio
import yaml
from trio_websocket import WebSocketConnection, wrap_client_stream

from tests import ports
from trio_wsb.proxy.relaying import BUSY, LEFT, RelayKind

TOP_LEVEL = (
    "kernelRelay",
    "http",
    "ping",
    "log",
    "entryPoints",
    "control",
    "accessLog",
    "metrics",
    "providers",
    "api",
    "dns",
)

one_relay: RelayKind | None = None
"""Who has to move the bytes of every session; None if any may. The fixture `both_relays` sets it."""

PATIENCE = 30.0
"""Seconds after which what should have happened by now will not; generous, for busy machines."""


free_port = ports.free_port


def http_client(*, uds: str | None = None, **options: Any) -> httpx.AsyncClient:
    """Return a client for plain HTTP that does as it is told, whatever the environment says; over a Unix socket with `uds`.

    It has no certificates: to read those that the system trusts takes 20 ms of the processor, for each client.
    """
    transport = httpx.AsyncHTTPTransport(uds=uds, verify=False)
    return httpx.AsyncClient(transport=transport, **{"trust_env": False, "timeout": PATIENCE, **options})


class Running:
    """A process whose output is collected by the line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = trio.Condition()
        self._all_said = False

    @classmethod
    def start(
        cls, *arguments: str, environment: dict[str, str] | None = None
    ) -> AbstractAsyncContextManager[Self]:
        """Run `python -m trio_wsb ARGUMENTS` for as long as the block lasts, then kill what is left."""
        return cls.program(sys.executable, "-m", "trio_wsb", *arguments, environment=environment)

    @classmethod
    @asynccontextmanager
    async def program(
        cls, *command: str, environment: dict[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> AsyncIterator[Self]:
        """Run any program for as long as the block lasts, then kill what is left."""
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            pass_fds=pass_fds,
        )
        running = cls(process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running._collect)
            try:
                yield running
            finally:
                with trio.CancelScope(shield=True):
                    if process.poll() is None:
                        process.send_signal(signal.SIGTERM)
                        with trio.move_on_after(5):
                            await process.wait()
                        process.kill()
                    await process.wait()
                nursery.cancel_scope.cancel()
        assert process.stdout is not None
        await process.stdout.aclose()

    async def _collect(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            async with self._news:
                self.lines += [line.decode() for line in lines]
                self._news.notify_all()
        async with self._news:
            self._all_said = True
            self._news.notify_all()

    async def line(self, wanted: str | Callable[[str], bool], *, after: int = 0) -> str:
        """Return the first line from number `after` on that has `wanted` in it or fits it, once there is one.

        Fails when there is none in time, and at once when the process has closed its output without one.
        """
        fits = wanted if callable(wanted) else (lambda line: wanted in line)
        with trio.move_on_after(PATIENCE):
            async with self._news:
                while True:
                    for line in self.lines[after:]:
                        if fits(line):
                            return line
                    if self._all_said:
                        break
                    await self._news.wait()
        raise AssertionError(f"no line with {wanted!r} in:\n" + "\n".join(self.lines[-40:]))

    async def exit(self) -> int:
        """Return the exit status once the process has ended."""
        with trio.fail_after(PATIENCE):
            return await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class Backend:
    """A demo backend in a process of its own."""

    def __init__(self, running: Running, port: int, host: str = "127.0.0.1") -> None:
        self.running = running
        self.port = port
        self.url = f"http://{host}:{port}"

    async def stats(self) -> dict[str, Any]:
        async with http_client() as client:
            document: dict[str, Any] = (await client.get(f"{self.url}/api/stats")).json()
            return document


class Daemon:
    """The daemon in a process of its own, with JSON log lines on its standard error."""

    def __init__(self, running: Running, path: Path, document: dict[str, Any], port: int) -> None:
        self.running = running
        self.path = path
        self.document = document
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}"

    def write(self) -> None:
        """Write the configuration file as `document` has it now."""
        self.path.write_text(yaml.safe_dump(self.document))

    def log(self, msg: str) -> list[dict[str, Any]]:
        """Return the log lines so far with this message."""
        found = [json.loads(line) for line in self.running.lines if line.startswith("{")]
        return [line for line in found if line["msg"] == msg]

    async def logged(self, msg: str, **fields: object) -> dict[str, Any]:
        """Return the first log line with this message and these fields, once there is one."""

        def fits(line: str) -> bool:
            if not line.startswith("{"):
                return False
            found = json.loads(line)
            return found["msg"] == msg and all(found.get(name) == value for name, value in fields.items())

        line: dict[str, Any] = json.loads(await self.running.line(fits))
        return line

    async def status(self) -> dict[str, Any]:
        """Return what `trio-wsb status` is made of."""
        async with http_client(uds=self.document["control"]["socket"]) as client:
            document: dict[str, Any] = (await client.get("http://control/status")).json()
            return document

    async def shows(self, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return the status once it fits."""
        with trio.fail_after(PATIENCE):
            while True:
                seen = len(self.running.lines)
                document = await self.status()
                if fits(document):
                    return document
                with trio.move_on_after(0.2):  # not all that is shown is also logged
                    await self.running.line("", after=seen)

    def relayed_otherwise(self, relay: str) -> list[dict[str, Any]]:
        """Return the log's lines of sessions that `relay` does not move though it could.

        It cannot where a peer was so quick, with data or with its end, that the kernel does not take the session any more.
        """
        return [
            line
            for line in self.log("session opened")
            if line["relay"] != relay and line.get("relayReason") not in {BUSY, LEFT}
        ]

    async def reload(self, *, count: int) -> None:
        """Send SIGHUP and wait until `count` reloads have worked."""
        self.running.signal(signal.SIGHUP)
        await self.logged("configuration reloaded", reloads=count)


@asynccontextmanager
async def backend(
    *options: str, name: str = "backend", port: int = 0, host: str = "127.0.0.1"
) -> AsyncIterator[Backend]:
    """Run a demo backend."""
    async with Running.start(
        "demo-backend", "--listen", f"{host}:{port}", "--name", name, *options
    ) as running:
        line = await running.line("listening on")
        match = re.search(r":(\d+)$", line)
        assert match is not None
        yield Backend(running, int(match[1]), host)


@asynccontextmanager
async def backends(count: int, *options: Sequence[str]) -> AsyncIterator[list[Backend]]:
    """Run several demo backends; `options` are those of each."""
    async with AsyncExitStack() as stack:
        started: list[Backend] = []
        for index in range(count):
            own = options[index] if index < len(options) else ()
            started.append(await stack.enter_async_context(backend(*own, name=f"backend-{index + 1}")))
        yield started


@asynccontextmanager
async def daemon(
    tmp_path: Path, pods: Sequence[str], *, port: int | None = None, under: Sequence[str] = (), **changes: Any
) -> AsyncIterator[Daemon]:
    """Run the daemon over `pods`; `changes` are keys of the `wsbalancer` block or, by their name, of the file.

    `under` is a command line that runs the daemon's, which is put behind it.
    """
    port = port or free_port()
    top: dict[str, Any] = {key: changes.pop(key) for key in TOP_LEVEL if key in changes}
    document: dict[str, Any] = {
        "entryPoints": {"web": {"address": f"127.0.0.1:{port}"}},
        "log": {"format": "json"},
        "control": {"socket": str(tmp_path / "control.sock")},
        "wsbalancer": {"pods": list(pods), "cacheTTL": "1s", **changes},
        **top,
    }
    if "http" in top:
        del document["wsbalancer"]
    if one_relay == "stream":
        document["kernelRelay"] = {"enabled": False}
    path = tmp_path / "trio-wsb.yaml"
    path.write_text(yaml.safe_dump(document))
    command = [*under, sys.executable, "-m", "trio_wsb", "run", "--config", str(path)]
    async with Running.program(*command) as running:
        started = Daemon(running, path, document, port)
        await started.logged("started")
        yield started
        if one_relay is not None:
            assert not started.relayed_otherwise(one_relay)


class Clients:
    """WebSocket clients, made with trio-websocket; they are closed when the block that made them ends."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.connections: list[WebSocketConnection] = []

    async def connect(self, url: str) -> WebSocketConnection:
        parts = urlsplit(url)
        assert parts.scheme == "ws"
        assert parts.hostname
        assert parts.port
        target = parts._replace(scheme="", netloc="").geturl() or "/"
        with trio.fail_after(PATIENCE):
            stream = await trio.open_tcp_stream(parts.hostname, parts.port)
            try:
                connection = await wrap_client_stream(self._nursery, stream, parts.netloc, target)
            except BaseException:
                # trio-websocket leaves a handshake that was cancelled to the garbage collector.
                await trio.aclose_forcefully(stream)
                raise
        self.connections.append(connection)
        return connection

    async def connect_many(self, url: str, count: int, *, at_once: int = 100) -> list[WebSocketConnection]:
        limit = trio.CapacityLimiter(at_once)
        connections: list[WebSocketConnection] = []

        async def connect() -> None:
            async with limit:
                connections.append(await self.connect(url))

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(connect)
        return connections

    async def close(self) -> None:
        async def close(connection: WebSocketConnection) -> None:
            await connection.aclose()
            # After a close by the server trio-websocket leaves the socket to the garbage collector.
            await trio.aclose_forcefully(connection._stream)

        async with trio.open_nursery() as nursery:
            for connection in self.connections:
                nursery.start_soon(close, connection)

    @classmethod
    @asynccontextmanager
    async def until_the_end(cls) -> AsyncIterator[Self]:
        """Make clients for as long as the block lasts."""
        async with trio.open_nursery() as nursery:
            made = cls(nursery)
            try:
                yield made
            finally:
                with trio.move_on_after(PATIENCE, shield=True):
                    await made.close()
                nursery.cancel_scope.cancel()


clients = Clients.until_the_end


async def echo(connection: WebSocketConnection, text: str) -> None:
    """Send `text` and see it come back."""
    with trio.fail_after(PATIENCE):
        await connection.send_message(text)
        assert await connection.get_message() == text
