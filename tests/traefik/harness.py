"""The real Traefik with the files of `etc/traefik`, its ports replaced by free ones of loopback.

What the files say is kept, except what a test cannot have (privileged ports, a public name, paths below /etc) and
what it asks to be different: so it is the files that are tested.
"""

from __future__ import annotations

import re
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
import yaml
from trio_websocket import WebSocketConnection, wrap_client_stream

from tests.daemon.harness import PATIENCE, Backend, Clients, Daemon, Running, daemon, free_port, http_client
from tests.daemon.waiting import eventually
from trio_wsb.demo.connect import parse_target

ETC = Path(__file__).parents[2] / "etc"

EXAMPLE_HOST = "chat.example.com"
HOST = "127.0.0.1"
"""Stands for the public name in rules, so that clients need no resolver."""

SERVICE = "trio-wsb"

Status = dict[str, str]
"""What Traefik thinks of each server of the service, by URL: UP or DOWN."""


def traefik_program() -> str | None:
    """Return the path of the Traefik program, which may be installed in this environment alone."""
    return shutil.which("traefik", path=str(Path(sys.executable).parent)) or shutil.which("traefik")


def read(path: Path, *, variants: bool = False) -> dict[str, Any]:
    """Return a file of `etc`; with `variants` what stands there behind a # is taken too."""
    text = path.read_text("utf-8")
    if variants:
        text = re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE)
    document: dict[str, Any] = yaml.safe_load(text)
    return document


class Traefik:
    """Traefik in a process of its own. Change `static` and `dynamic` before a start, `dynamic` also before `save`."""

    def __init__(self, directory: Path, servers: Sequence[str], *, certificate: Path | None = None) -> None:
        """Prepare the example's files.

        Args:
          directory: for the files.
          servers: the URLs of the service's servers.
          certificate: a PEM file with key and certificate for the variant with TLS, which is left out without it.

        """
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._applied = 0
        self.port, self.tls_port = free_port(), free_port()
        self.api = f"http://127.0.0.1:{free_port()}"
        self.static = read(ETC / "traefik/traefik.yml", variants=True)
        self.dynamic = read(ETC / "traefik/dynamic/trio-wsb.yml", variants=True)
        entry_points = self.static["entryPoints"]
        entry_points["web"]["address"] = f"127.0.0.1:{self.port}"
        entry_points["traefik"]["address"] = self.api.removeprefix("http://")
        self.static["providers"]["file"]["directory"] = str(directory / "dynamic")
        # Else a change waits until the last one is two seconds old.
        self.static["providers"]["providersThrottleDuration"] = "50ms"
        for router in self.dynamic["http"]["routers"].values():
            router["rule"] = router["rule"].replace(EXAMPLE_HOST, HOST)
        self.service["servers"] = [{"url": url} for url in servers]
        if len(servers) == 1:
            del self.service["healthCheck"]
        if certificate is not None:
            entry_points["websecure"]["address"] = f"127.0.0.1:{self.tls_port}"
            pair = {"certFile": str(certificate), "keyFile": str(certificate)}
            self.dynamic["tls"]["certificates"] = [pair]
        else:
            del entry_points["websecure"], self.dynamic["tls"], self.dynamic["http"]["routers"]["chat-secure"]

    @property
    def service(self) -> dict[str, Any]:
        """The example's loadBalancer."""
        found: dict[str, Any] = self.dynamic["http"]["services"][SERVICE]["loadBalancer"]
        return found

    @property
    def router(self) -> dict[str, Any]:
        """The example's router without TLS."""
        found: dict[str, Any] = self.dynamic["http"]["routers"]["chat"]
        return found

    @property
    def ws(self) -> str:
        return f"ws://{HOST}:{self.port}/ws"

    @property
    def wss(self) -> str:
        return f"wss://{HOST}:{self.tls_port}/ws"

    def save(self) -> None:
        """Write both files as they are now."""
        dynamic = self._directory / "dynamic"
        dynamic.mkdir(exist_ok=True)
        (self._directory / "traefik.yml").write_text(yaml.safe_dump(self.static))
        # Moved into its place: Traefik must not read half of it.
        fresh = self._directory / "fresh"
        fresh.write_text(yaml.safe_dump(self.dynamic))
        fresh.rename(dynamic / "trio-wsb.yml")

    async def apply(self) -> None:
        """Write the dynamic file of a Traefik that runs, and wait until it has taken it."""
        self._applied += 1
        marker = f"applied-{self._applied}"
        self.dynamic["http"]["middlewares"][marker] = {
            "headers": {"customRequestHeaders": {"X-Applied": marker}}
        }
        self.save()
        with trio.fail_after(PATIENCE):
            while await self._ask(f"middlewares/{marker}@file") is None:
                await trio.sleep(0.02)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Run it until the block ends; it has read its dynamic file when the block begins."""
        program = traefik_program()
        assert program is not None
        self.save()
        async with Running.program(program, f"--configFile={self._directory / 'traefik.yml'}") as process:
            await self.until(bool)
            yield process
            # Its stop waits for clients as long as it may; the tests of it are over by now.
            process.process.kill()

    async def status(self) -> Status:
        """Return the state of each server; nothing as long as Traefik does not know the service."""
        service = await self._ask(f"services/{SERVICE}@file") or {}
        status: Status = service.get("serverStatus", {})
        return status

    async def until(self, fits: Callable[[Status], bool]) -> None:
        """Wait until the state of the servers fits."""
        await eventually(self.status, fits)

    async def _ask(self, what: str) -> dict[str, Any] | None:
        # What the API says is in force: it is exchanged together with the routers.
        async with http_client() as client:
            try:
                answer = await client.get(f"{self.api}/api/http/{what}")
            except httpx.TransportError:
                return None
        document: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
        return document


@asynccontextmanager
async def balancer(
    directory: Path,
    backends: Sequence[Backend],
    *,
    port: int | None = None,
    like_the_example: bool = False,
    **transport: str,
) -> AsyncIterator[Daemon]:
    """Run the daemon with the example's configuration.

    Args:
      directory: for its file.
      backends: take the place of the example's.
      port: of the entry point that Traefik connects to; a free one unless given.
      like_the_example: stop as slowly as it says.
      transport: other respondingTimeouts than the example's.

    """
    directory.mkdir(exist_ok=True)
    document = read(ETC / "trio-wsb-behind-traefik.yaml")
    port = port or free_port()
    web = document["entryPoints"]["web"]
    web["address"] = f"127.0.0.1:{port}"
    web["transport"]["respondingTimeouts"].update(transport)
    web["transport"]["lifeCycle"]["graceTimeOut"] = "2s"
    if not like_the_example:
        web["transport"]["lifeCycle"]["requestAcceptGraceTimeout"] = "0s"
    document["entryPoints"]["admin"]["address"] = "127.0.0.1:0"
    balancing = document["http"]["services"]["chat"]["loadBalancer"]
    balancing["servers"] = [{"url": each.url} for each in backends]
    balancing["connectionCount"]["interval"] = "500ms"
    async with daemon(
        directory, [], port=port, http=document["http"], entryPoints=document["entryPoints"]
    ) as running:
        yield running


class Visitors(Clients):
    """Clients from any loopback address, with any header fields."""

    async def visit(
        self,
        url: str,
        *,
        source: str = "127.0.0.1",
        headers: Sequence[tuple[str, str]] = (),
        ssl_context: ssl.SSLContext | None = None,
    ) -> WebSocketConnection:
        target = parse_target(url)
        fields = [(name.encode(), value.encode()) for name, value in headers]
        with trio.fail_after(PATIENCE):
            plain = await trio.open_tcp_stream(target.host, target.port, local_address=source)
            stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = plain
            if ssl_context is not None:
                stream = trio.SSLStream(
                    plain, ssl_context, server_hostname=target.host, https_compatible=True
                )
            connection = await wrap_client_stream(
                self._nursery, stream, target.authority, target.resource, extra_headers=fields
            )
        self.connections.append(connection)
        return connection


visitors = Visitors.until_the_end
