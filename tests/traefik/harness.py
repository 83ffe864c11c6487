"""The real Traefik with the files of `etc/traefik`, its ports replaced by free ones of loopback.

What the files say is kept, except what a test cannot have (privileged ports, paths below /etc) and what it asks to
be different: so it is the files that are tested.
"""

from __future__ import annotations

import re
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import trio
import yaml
from trio_websocket import WebSocketConnection, wrap_client_stream

from tests.daemon.harness import PATIENCE, Backend, Clients, Daemon, Running, daemon, free_port
from trio_wsb.demo.connect import parse_target

ETC = Path(__file__).parents[2] / "etc"

HOST = "chat.example.com"
"""The host name that the router of the example is for."""

SERVICE = "trio-wsb"


def traefik_program() -> str | None:
    """Return the path of the Traefik program, which may be installed in this environment alone."""
    return shutil.which("traefik", path=str(Path(sys.executable).parent)) or shutil.which("traefik")


def read(path: Path, *, variants: bool = False) -> dict[str, Any]:
    """Return a file of `etc`; with `variants` what stands there behind a # is shown too."""
    text = path.read_text("utf-8")
    if variants:
        text = re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE)
    document: dict[str, Any] = yaml.safe_load(text)
    return document


class Traefik:
    """Traefik in a process of its own. `static` and `dynamic` may be changed before `save` or a start."""

    def __init__(self, directory: Path, servers: Sequence[str], *, certificate: Path | None = None) -> None:
        """Prepare the files of the example in `directory`.

        Args:
          directory: an empty one.
          servers: the URLs of the balancers.
          certificate: a PEM file with key and certificate; there is TLS if it is given.

        """
        self.port = free_port()
        self.api = f"http://127.0.0.1:{free_port()}"
        self._directory = directory
        self.static = read(ETC / "traefik/traefik.yml", variants=certificate is not None)
        self.static["entryPoints"]["web"]["address"] = f"127.0.0.1:{self.port}"
        self.static["entryPoints"]["traefik"]["address"] = self.api.removeprefix("http://")
        self.static["providers"]["file"]["directory"] = str(directory / "dynamic")
        self.dynamic = read(ETC / "traefik/dynamic/trio-wsb.yml", variants=certificate is not None)
        self.service["servers"] = [{"url": url} for url in servers]
        if certificate is not None:
            self.tls_port = free_port()
            self.static["entryPoints"]["websecure"]["address"] = f"127.0.0.1:{self.tls_port}"
            self.static["entryPoints"]["web"].pop("forwardedHeaders")
            self.dynamic["tls"]["certificates"] = [{"certFile": str(certificate), "keyFile": str(certificate)}]

    @property
    def service(self) -> dict[str, Any]:
        """The loadBalancer of the example."""
        found: dict[str, Any] = self.dynamic["http"]["services"][SERVICE]["loadBalancer"]
        return found

    @property
    def ws(self) -> str:
        return f"ws://{HOST}:{self.port}/ws"

    def save(self) -> None:
        """Write both files as they are now; a Traefik that runs applies the dynamic one."""
        dynamic = self._directory / "dynamic"
        dynamic.mkdir(exist_ok=True)
        (self._directory / "traefik.yml").write_text(yaml.safe_dump(self.static))
        # Moved into its place, or Traefik would read half of it.
        fresh = self._directory / "fresh.yml"
        fresh.write_text(yaml.safe_dump(self.dynamic))
        fresh.rename(dynamic / "trio-wsb.yml")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Run it until the block ends; it has read its dynamic file when this begins."""
        program = traefik_program()
        assert program is not None
        self.save()
        async with Running.program(program, f"--configFile={self._directory / 'traefik.yml'}") as process:
            await self.until(lambda status: set(status) == self.urls)
            yield process

    @property
    def urls(self) -> set[str]:
        return {server["url"] for server in self.service["servers"]}

    async def status(self) -> dict[str, str]:
        """Return what Traefik thinks of each server, UP or DOWN; nothing as long as it does not answer."""
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            try:
                answer = await client.get(f"{self.api}/api/http/services/{SERVICE}@file")
            except httpx.TransportError:
                return {}
        if answer.status_code != 200:
            return {}
        status: dict[str, str] = answer.json().get("serverStatus", {})
        return status

    async def until(self, fits: Any) -> None:
        """Wait until `fits` says yes to `status`."""
        with trio.fail_after(PATIENCE):
            while not fits(await self.status()):
                await trio.sleep(0.02)


AnyStream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Visitors(Clients):
    """Clients that take `HOST` for an address of loopback."""

    def __init__(self, nursery: trio.Nursery, *, ssl_context: ssl.SSLContext | None = None) -> None:
        super().__init__(nursery)
        self._ssl = ssl_context

    async def connect(self, url: str, headers: Sequence[tuple[str, str]] = ()) -> WebSocketConnection:
        target = parse_target(url)
        address = "127.0.0.1" if target.host == HOST else target.host
        with trio.fail_after(PATIENCE):
            stream: AnyStream = await trio.open_tcp_stream(address, target.port)
            try:
                if target.tls:
                    assert self._ssl is not None
                    stream = trio.SSLStream(
                        stream, self._ssl, server_hostname=target.host, https_compatible=True
                    )
                fields = [(name.encode(), value.encode()) for name, value in headers]
                connection = await wrap_client_stream(
                    self._nursery, stream, target.authority, target.resource, extra_headers=fields
                )
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        self.connections.append(connection)
        return connection


@asynccontextmanager
async def visitors(*, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[Visitors]:
    async with trio.open_nursery() as nursery:
        made = Visitors(nursery, ssl_context=ssl_context)
        try:
            yield made
        finally:
            with trio.move_on_after(PATIENCE, shield=True):
                await made.close()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def balancer(
    directory: Path, backends: Sequence[Backend], *, grace: str = "2s", accept_grace: str | None = None
) -> AsyncIterator[Daemon]:
    """Run the daemon with the example's configuration; the times are lifeCycle's, where the example's are not wanted."""
    directory.mkdir(exist_ok=True)
    document = read(ETC / "trio-wsb-behind-traefik.yaml")
    web = document["entryPoints"]["web"]
    port = free_port()
    web["address"] = f"127.0.0.1:{port}"
    web["transport"]["lifeCycle"]["graceTimeOut"] = grace
    if accept_grace is not None:
        web["transport"]["lifeCycle"]["requestAcceptGraceTimeout"] = accept_grace
    document["entryPoints"]["admin"]["address"] = "127.0.0.1:0"
    balancing = document["http"]["services"]["chat"]["loadBalancer"]
    balancing["servers"] = [{"url": each.url} for each in backends]
    balancing["connectionCount"]["interval"] = "500ms"
    async with daemon(directory, [], port=port, http=document["http"], entryPoints=document["entryPoints"]) as running:
        yield running
