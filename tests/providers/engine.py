"""A Docker Engine of our own: what its published API reference says of the four requests that matter, and its faults to order.

`Engine` is the state: containers that start, become well or ill, pause and die, with the events that a real one sends. `transport` is the way to
it without a network, for virtual time; `serve` speaks HTTP/1.1 on a Unix socket, with answers of a length and a chunked stream of events.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import trio
from attrs import Factory, define, field

API = "1.47"
OLDEST = "1.24"

_PATH = re.compile(r"(?:/v(?P<version>1\.\d+))?(?P<path>/.*)")


@define
class Fault:
    """What is wrong with the answers to the paths that `path` is found in, `times` of them.

    `status` answers so, `cut` ends the body (or the stream) after as many bytes, `body` is said instead, `hang` says nothing at all.
    """

    path: str
    status: int = 0
    cut: int = -1
    body: bytes = b""
    hang: bool = False
    times: int = 10**9


@define(eq=False)
class Engine:
    """The state of an Engine. `asked` counts requests by path, ids left out."""

    containers: dict[str, dict[str, Any]] = Factory(dict)
    faults: list[Fault] = Factory(list)
    asked: dict[str, int] = Factory(dict)
    authorization: list[str] = Factory(list)
    api: str = API
    down: bool = False
    _listeners: dict[trio.MemorySendChannel[bytes], Mapping[str, list[str]]] = field(factory=dict)
    _created: int = 0

    # What happens to containers.

    def start(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        *,
        ip: str = "172.18.0.2",
        network: str = "net",
        ports: Mapping[str, Any] | tuple[str, ...] = ("80/tcp",),
        health: str = "",
        mode: str = "",
        networks: Mapping[str, str] | None = None,
    ) -> str:
        """Start a container and return its id."""
        self._created += 1
        identity = f"{self._created:064x}"
        bound = ports if isinstance(ports, Mapping) else dict.fromkeys(ports)
        state: dict[str, Any] = {
            "Status": "running", "Running": True, "Paused": False, "Restarting": False, "OOMKilled": False, "Dead": False,
            "Pid": 4711, "ExitCode": 0, "Error": "", "StartedAt": "2026-01-02T03:04:05.678901234Z",
        }  # fmt: skip
        if health:
            state["Health"] = {"Status": health, "FailingStreak": 0, "Log": []}
        attached = {network: ip} if networks is None else dict(networks)
        minute, second = divmod(self._created, 60)
        self.containers[identity] = {
            "Id": identity,
            "Created": f"2026-01-02T{minute // 60:02}:{minute % 60:02}:{second:02}.5Z",
            "Name": f"/{name}",
            "State": state,
            "Config": {"Hostname": identity[:12], "Labels": dict(labels or {}), "Image": "chat:latest"},
            "HostConfig": {"NetworkMode": mode or network},
            "NetworkSettings": {
                "Ports": dict(bound),
                "Networks": {
                    each: {"IPAddress": address if ":" not in address else "", "GlobalIPv6Address": address if ":" in address else ""}
                    for each, address in attached.items()
                },
            },
        }  # fmt: skip
        self.happens(identity, "create", "start")
        return identity

    def stop(self, identity: str) -> None:
        """End a container; `docker run --rm`, so it is gone."""
        self.containers[identity]["State"] |= {"Running": False, "Status": "exited"}
        self.happens(identity, "kill", "die", "stop", "destroy")
        del self.containers[identity]

    def turn(self, identity: str, health: str) -> None:
        """Let a health check come out."""
        self.containers[identity]["State"]["Health"] = {"Status": health}
        self.happens(
            identity,
            "exec_create: /bin/check",
            "exec_start: /bin/check",
            "exec_die",
            f"health_status: {health}",
        )

    def pause(self, identity: str, *, paused: bool = True) -> None:
        state = self.containers[identity]["State"]
        state |= {"Paused": paused, "Status": "paused" if paused else "running"}
        self.happens(identity, "pause" if paused else "unpause")

    def connect(self, identity: str, network: str, ip: str) -> None:
        """Put a container into one more network."""
        self.containers[identity]["NetworkSettings"]["Networks"][network] = {"IPAddress": ip}
        self._tell(
            "network", "connect", {"ID": "f" * 64, "Attributes": {"container": identity, "name": network}}
        )

    def happens(self, identity: str, *actions: str) -> None:
        document = self.containers[identity]
        attributes = {**document["Config"]["Labels"], "image": "chat:latest", "name": document["Name"][1:]}
        for action in actions:
            self._tell("container", action, {"ID": identity, "Attributes": attributes})

    def _tell(self, kind: str, action: str, actor: Mapping[str, Any]) -> None:
        event = {
            "status": action, "id": actor["ID"], "from": "chat:latest", "Type": kind, "Action": action, "Actor": actor,
            "scope": "local", "time": 1767323045, "timeNano": 1767323045000000000,
        }  # fmt: skip
        for channel, wanted in list(self._listeners.items()):
            named = action.partition(":")[0] if action.startswith("health_status") else action
            if kind in wanted.get("type", [kind]) and named in wanted.get("event", [named]):
                self._send(channel, json.dumps(event).encode() + b"\n")

    def say(self, data: bytes) -> None:
        """Send bytes to all who listen to events."""
        for channel in list(self._listeners):
            self._send(channel, data)

    def hang_up(self) -> None:
        """End all streams of events."""
        for channel in list(self._listeners):
            del self._listeners[channel]
            channel.close()

    @property
    def listening(self) -> int:
        return sum(each.statistics().open_receive_channels for each in self._listeners)

    def _send(self, channel: trio.MemorySendChannel[bytes], data: bytes) -> None:
        try:
            channel.send_nowait(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._listeners.pop(channel, None)

    # What is answered.

    async def answer(self, target: str) -> tuple[int, bytes | trio.MemoryReceiveChannel[bytes], int]:
        """Return status, body or stream, and after how many bytes it is cut (-1: not at all)."""
        parts = urlsplit(target)
        match = _PATH.fullmatch(parts.path)
        assert match is not None
        version, path = match["version"] or self.api, match["path"]
        key = re.sub(r"/containers/[^/]+/json", "/containers/ID/json", path)
        self.asked[key] = self.asked.get(key, 0) + 1
        cut = -1
        for fault in self.faults:
            if fault.path in path and fault.times > 0:
                fault.times -= 1
                if fault.hang:
                    await trio.sleep_forever()
                if fault.status:
                    return fault.status, json.dumps({"message": "something went wrong"}).encode(), -1
                if fault.body:
                    return 200, fault.body, -1
                cut = fault.cut
        if not number(OLDEST) <= number(version) <= number(self.api):
            return 400, b'{"message": "client version is too old or too new"}', -1
        if path == "/events":
            wanted = json.loads(parse_qs(parts.query).get("filters", ["{}"])[0])
            send, receive = trio.open_memory_channel[bytes](inf)
            self._listeners[send] = wanted
            return 200, receive, cut
        status, document = self._document(path)
        return status, json.dumps(document).encode(), cut

    def _document(self, path: str) -> tuple[int, Any]:
        if path == "/_ping":
            return 200, "OK"
        if path == "/version":
            return 200, {"Version": "27.3.1", "ApiVersion": self.api, "MinAPIVersion": OLDEST, "Os": "linux"}
        if path == "/containers/json":
            running = [each for each in self.containers.values() if each["State"]["Running"]]
            return 200, [{"Id": each["Id"], "Names": [each["Name"]], "State": "running"} for each in running]
        match = re.fullmatch(r"/containers/([^/]+)/json", path)
        if match is not None and match[1] in self.containers:
            return 200, self.containers[match[1]]
        return 404, {"message": f"No such container: {path}"}


def number(version: str) -> int:
    return int(version.partition(".")[2])


class _Stream(httpx.AsyncByteStream):
    def __init__(self, body: bytes | trio.MemoryReceiveChannel[bytes], cut: int) -> None:
        self.body = body
        self.cut = cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self.body, bytes):
            yield self.body if self.cut < 0 else self.body[: self.cut]
            return
        async for data in self.body:
            # Chunks know nothing of lines.
            yield data[:7]
            yield data[7:]

    async def aclose(self) -> None:
        if not isinstance(self.body, bytes):
            self.body.close()


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        if self.engine.down:
            raise httpx.ConnectError("refused")
        assert request.method == "GET"
        self.engine.authorization.append(request.headers.get("authorization", ""))
        status, body, cut = await self.engine.answer(request.url.raw_path.decode())
        return httpx.Response(status, stream=_Stream(body, cut))


def transport(engine: Engine) -> Callable[[object], httpx.AsyncBaseTransport]:
    """Return what makes the way to `engine`, without a network."""
    return lambda _: _Transport(engine)


@asynccontextmanager
async def serve(engine: Engine, path: Path) -> AsyncIterator[None]:
    """Speak for `engine` on a Unix socket for as long as the block lasts; whoever is connected then is cut off."""
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await listener.bind(str(path))
    listener.listen(32)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            trio.serve_listeners,
            lambda stream: serve_connection(engine, stream),
            [trio.SocketListener(listener)],
        )
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
            listener.close()
            path.unlink()


async def serve_connection(engine: Engine, stream: trio.abc.Stream) -> None:
    """Answer the requests of a connection until its end."""
    try:
        await _serve_requests(engine, stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # whoever asked has gone


async def _serve_requests(engine: Engine, stream: trio.abc.Stream) -> None:
    rest = b""
    while True:
        while b"\r\n\r\n" not in rest:
            more = await stream.receive_some()
            if not more:
                return
            rest += more
        head, _, rest = rest.partition(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        assert method == "GET"
        status, body, cut = await engine.answer(target)
        line = f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}\r\nApi-Version: {engine.api}\r\n"
        line += "Content-Type: application/json\r\nServer: Docker/27.3.1 (linux)\r\n"
        if isinstance(body, bytes):
            await stream.send_all(f"{line}Content-Length: {len(body)}\r\n\r\n".encode())
            await stream.send_all(body if cut < 0 else body[:cut])
            if cut >= 0:
                return
            continue
        await stream.send_all(f"{line}Transfer-Encoding: chunked\r\n\r\n".encode())
        with body:
            if not await _stream_events(stream, body, cut):
                return
        await stream.send_all(b"0\r\n\r\n")


async def _stream_events(stream: trio.abc.Stream, body: trio.MemoryReceiveChannel[bytes], cut: int) -> bool:
    """Send each event as a chunk; whether they have ended before the cut."""
    sent = 0
    async for data in body:
        chunk = f"{len(data):x}\r\n".encode() + data + b"\r\n"
        if 0 <= cut < sent + len(chunk):
            await stream.send_all(chunk[: cut - sent])
            return False
        sent += len(chunk)
        await stream.send_all(chunk)
    return True
