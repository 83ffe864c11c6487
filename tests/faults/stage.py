"""What the tests of faults share: a daemon with something healthy beside what fails, and the judgement at the end.

While a fault lasts, *bystanders* (sessions of another service, under both relays) echo without a pause. When it is over the
daemon must be as it was: every message of theirs came back, nothing is counted that is not there, no descriptor is left, and
the log has no fault of the daemon's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.daemon.harness import (
    PATIENCE,
    Backend,
    Clients,
    Daemon,
    backend,
    clients,
    daemon,
    echo,
    free_port,
    http_client,
)
from tests.daemon.waiting import eventually
from tests.opening import opening

RELAYS = ("stream", "kernel")
"""Who may move the bytes; where the kernel cannot, its sessions are the daemon's too, and the tests hold all the same."""

PER_RELAY = 3
"""Bystanders of each relay."""

WHOAMI = '{"trio-wsb": "whoami"}'

Document = dict[str, Any]


def balancers(name: str, urls: Sequence[str], **keys: Any) -> Document:
    """Return a service for each relay over the same servers, called NAME-stream and NAME-kernel."""
    servers = [{"url": url} for url in urls]
    return {
        f"{name}-{relay}": {"loadBalancer": {"servers": servers, "relay": relay, **keys}} for relay in RELAYS
    }


class Bystanders:
    """Healthy sessions that echo for as long as they are asked to."""

    def __init__(self, connections: Sequence[WebSocketConnection]) -> None:
        self.connections = connections
        self.echoed = [0] * len(connections)

    async def talk(self, index: int) -> None:
        while True:
            await echo(self.connections[index], f"bystander {index} says {self.echoed[index]}")
            self.echoed[index] += 1
            await trio.sleep(0.02)

    async def go_on(self, messages: int = 10) -> None:
        """Wait until each of them has echoed so many messages more."""
        wanted = [count + messages for count in self.echoed]

        async def done() -> bool:
            return all(count >= want for count, want in zip(self.echoed, wanted, strict=True))

        await eventually(done, what="the healthy sessions go on")


class World:
    """The running daemon, what is healthy in it, and clients of what is not."""

    def __init__(self, running: Daemon, healthy: Backend, made: Clients, bystanders: Bystanders) -> None:
        self.daemon = running
        self.healthy = healthy
        self.clients = made
        self.bystanders = bystanders
        self.descriptors = 0

    @property
    def pid(self) -> int:
        return self.daemon.running.process.pid

    def open_descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def cpu_seconds(self) -> float:
        """Return what the daemon has used of the processor."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def ask(self, path: str) -> Document:
        async with http_client(uds=self.daemon.document["control"]["socket"]) as client:
            answer: Document = (await client.get(f"http://localhost{path}")).json()
            return answer

    async def status(self) -> Document:
        return await self.ask("/status")

    async def backend(self, url: str) -> Document:
        """Return what status says of a backend; where several services have it they say the same of it."""
        found: Sequence[Document] = (await self.status())["backends"]
        return next(each for each in found if each["url"] == url)

    async def reaches(self, url: str, **wanted: object) -> None:
        """Wait until status says `wanted` of a backend."""

        async def true() -> bool:
            view = await self.backend(url)
            return all(view[key] == value for key, value in wanted.items())

        await eventually(true, what=f"{url} has {wanted}")

    def logged(self, msg: str, **fields: object) -> list[Document]:
        """Return the lines so far with this message and these fields."""
        return [
            line
            for line in self.daemon.log(msg)
            if all(line.get(name) == value for name, value in fields.items())
        ]

    async def connect(self, path: str) -> WebSocketConnection:
        return await self.clients.connect(f"{self.daemon.ws}{path}")

    async def handshake(self, path: str) -> bytes:
        """Open a connection for one handshake and return the head of its answer, without opening a session."""
        with trio.fail_after(PATIENCE):
            async with await trio.open_tcp_stream("127.0.0.1", self.daemon.port) as stream:
                await stream.send_all(opening(path))
                data = b""
                while b"\r\n\r\n" not in data and (more := await stream.receive_some()):
                    data += more
                return data

    async def whereabouts(self, connections: Sequence[WebSocketConnection]) -> dict[int, str]:
        """Return the name of the backend that each is at, by its place."""
        found = {}
        for index, connection in enumerate(connections):
            await connection.send_message(WHOAMI)
            with trio.fail_after(PATIENCE):
                found[index] = str(json.loads(await connection.get_message())["backend"])
        return found

    async def lost(self, connection: WebSocketConnection) -> None:
        """Wait until `connection` has ended, and let go of it as a client would."""
        with trio.fail_after(PATIENCE):
            try:
                while True:
                    await connection.get_message()
            except ConnectionClosed:
                pass
        await trio.aclose_forcefully(connection._stream)


@asynccontextmanager
async def world(
    tmp_path: Path,
    services: Mapping[str, Document],
    *,
    transports: Document | None = None,
    under: Sequence[str] = (),
    address: str = "127.0.0.1",
    back_to_start: bool = True,
    **top: Any,
) -> AsyncIterator[World]:
    """Run the daemon with `services`, each at the path of its name, and see at the end that nothing healthy was disturbed.

    Args:
      tmp_path: where its files go.
      services: what may fail.
      transports: of the section serversTransports.
      under: a command line that runs the daemon's, which is put behind it.
      address: where it listens; it must be reachable as 127.0.0.1 too.
      back_to_start: whether all that came with the fault must be gone by the end.
      top: other sections of its file.

    """
    async with backend(name="healthy") as healthy:
        everything = {**balancers("healthy", [healthy.url]), **services}
        port = free_port()
        http = {
            "routers": {name: {"rule": f"Path(`/{name}`)", "service": name} for name in everything},
            "services": everything,
            **({"serversTransports": transports} if transports else {}),
        }
        entry = {"web": {"address": f"{address}:{port}"}}
        running = daemon(tmp_path, [], port=port, under=under, http=http, **{"entryPoints": entry, **top})
        async with running as started, clients() as made:
            connections = [
                await made.connect(f"{started.ws}/healthy-{relay}")
                for relay in RELAYS
                for _ in range(PER_RELAY)
            ]
            bystanders = Bystanders(connections)
            found = World(started, healthy, made, bystanders)
            found.descriptors = found.open_descriptors()
            async with trio.open_nursery() as nursery:
                for index in range(len(connections)):
                    nursery.start_soon(bystanders.talk, index)
                await bystanders.go_on(1)
                yield found
                await bystanders.go_on()
                nursery.cancel_scope.cancel()
            await judge(found, back_to_start=back_to_start)


async def judge(found: World, *, back_to_start: bool) -> None:
    """Fail unless the daemon is as it was before the fault."""
    healthy = len(found.bystanders.connections)
    assert found.daemon.running.process.poll() is None, "the daemon lives"
    internal = [
        line for line in found.daemon.running.lines if '"internal error' in line or "Traceback" in line
    ]
    assert not internal
    assert found.logged("session ended", backend=found.healthy.url) == []
    view = await found.backend(found.healthy.url)
    assert (view["live"], view["failures"], view["drops"], view["state"]) == (healthy, 0, 0, "ready")
    if not back_to_start:
        return
    for connection in found.clients.connections:
        if connection not in found.bystanders.connections:
            await trio.aclose_forcefully(connection._stream)

    async def nothing_left() -> bool:
        status = await found.status()
        rest = [each for each in status["backends"] if each["url"] != found.healthy.url]
        return (
            status["sessions"]["open"] == healthy
            and all(each["live"] == 0 and each["handshakes"] == 0 for each in rest)
            and status["kernelRelay"]["sessions"] in {0, healthy // 2}
            and found.open_descriptors() <= found.descriptors
        )

    await eventually(nothing_left, what="counts and descriptors are back where they began")
    ended = (await found.status())["sessions"]
    assert ended["opened"] == ended["open"] + sum(ended["ended"].values()), "each session ended once"
