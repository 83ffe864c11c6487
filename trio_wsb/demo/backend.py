"""The demo backend: a WebSocket echo server that reports its connection count, and misbehaves on request.

One port serves both kinds of request:

- A WebSocket handshake on any path is accepted with the first subprotocol offered, and every message, text
  or binary, is sent back as it came.
- ``GET /metric`` answers ``{"agentsConnections": N, "podName": ..., "podIP": ..., "nodeName": ...}``, N being
  its live sessions plus the pretended foreign ones.
- ``GET /api/health`` answers ``{"status": "ok"}``.
- ``GET /api/stats`` answers what the backend counts, for tests and for the demo.
- ``POST /echo`` sends the body back; any other plain request gets ``/request``'s answer or 404:
  ``/request`` shows method, target and header fields as they arrived.

A text message that is a JSON object whose first key is ``trio-wsb`` is a command instead of something to echo:

- ``{"trio-wsb": "whoami"}`` is answered with ``{"trio-wsb": "whoami", "backend": NAME, "target": ...,
  "subprotocol": ..., "headers": [[NAME, VALUE], ...]}``, the handshake as it arrived here.
- ``{"trio-wsb": "close", "code": 4000, "reason": "..."}`` makes the backend close the session.
- ``{"trio-wsb": "drop"}`` makes it reset the connection without a Close frame.
- ``{"trio-wsb": "ping"}`` makes it send a ping, and ``{"trio-wsb": "pong"}`` once the pong has come.

trio-websocket speaks the WebSocket protocol here. It cannot answer plain requests, so each head is read
first and a handshake is handed over with the bytes that were read (`trio_wsb.demo.plain`).
"""

from __future__ import annotations

import json
import logging
import platform
import socket
import ssl
import struct
from functools import partial
from typing import Any, Literal, assert_never, get_args

import h11
import trio
import trio_websocket
from attrs import define

from trio_wsb.addresses import ListenAddress, format_host
from trio_wsb.demo.plain import RECEIVE_BYTES, PlainConnection, ReplayStream

logger = logging.getLogger(__name__)

MetricFault = Literal["500", "html", "hang", "garbage", "redirect", "drip", "huge", "negative", "boolean"]
"""How ``/metric`` can fail."""

METRIC_FAULTS: tuple[str, ...] = get_args(MetricFault)

HEAD_TIMEOUT = 300.0
"""Time for the next request on a connection, in seconds; longer than any sensible interval of polls."""

CLOSE_TIMEOUT = 10.0
"""Time for the closing handshake and for the opening one, in seconds."""

STOP_GRACE = 3.0
"""Time for all sessions to be closed when the backend stops, in seconds."""

MAX_PLAIN_BODY = 64 * 2**20
COMMAND_PREFIX = '{"trio-wsb":'


@define
class Behaviour:
    """What a demo backend pretends and how it misbehaves; may be changed while it runs.

    Times are seconds.
    """

    name: str = "backend"
    foreign: int = 0
    """Added to the reported connections: sessions that did not come through the balancer."""
    metric_delay: float = 0.0
    metric_fault: MetricFault | None = None
    accept_delay: float = 0.0
    """How long a handshake waits for its 101."""
    refuse_status: int | None = None
    """Answer handshakes with this status instead of 101."""
    drop_after: float | None = None
    """Reset each connection this long after its 101."""
    slow_echo: float = 0.0
    """How long each message waits before it is sent back."""
    max_message_size: int = 64 * 2**20


class DemoBackend:
    """A running, or about to run, demo backend.

    `behaviour` may be changed at any time. `sessions`, `accepted`, `messages` and `metric_requests` are counts.
    """

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.accepted = 0
        self.messages = 0
        self.metric_requests = 0
        self._address = ""
        self._open: set[trio_websocket.WebSocketConnection] = set()
        self._accepting = 0
        self._stop = trio.Event()

    @property
    def sessions(self) -> int:
        """Live WebSocket sessions."""
        return len(self._open)

    @property
    def reported(self) -> int:
        """What ``/metric`` reports.

        A session whose 101 is going out is among them: to its peer, and so to a balancer, it is open already.
        """
        return len(self._open) + self._accepting + self.behaviour.foreign

    def stop(self) -> None:
        """Make `serve` close every session with 1001 and return."""
        self._stop.set()

    async def serve(
        self,
        address: ListenAddress,
        *,
        ssl_context: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on `address` until `stop` or cancellation; cancellation cuts every connection.

        Reports its URL as the start value.

        Raises:
          OSError: `address` cannot be listened on.

        """
        sockets = await trio.open_tcp_listeners(address.port, host=address.host or "0.0.0.0")  # noqa: S104 - asked for
        host, port = sockets[0].socket.getsockname()[:2]
        self._address = host
        listeners = [
            trio.SSLListener(listener, ssl_context, https_compatible=True) if ssl_context else listener
            for listener in sockets
        ]
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as listening:
                serve: Any = partial(
                    trio.serve_listeners, self._connection, listeners, handler_nursery=connections
                )
                await listening.start(serve)
                task_status.started(f"{'https' if ssl_context else 'http'}://{format_host(host)}:{port}")
                await self._stop.wait()
                listening.cancel_scope.cancel()
            await self._close_sessions()
            connections.cancel_scope.cancel()

    async def _close_sessions(self) -> None:
        with trio.move_on_after(STOP_GRACE):
            async with trio.open_nursery() as nursery:
                for websocket in self._open.copy():
                    nursery.start_soon(websocket.aclose, 1001, "the backend stops")

    async def _connection(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await self._requests(stream)
        except* Exception as group:  # noqa: BLE001 - guards the connection
            # Whatever a peer does to one connection must not end the others.
            logger.debug("connection ended: %r", group.exceptions)
        finally:
            await trio.aclose_forcefully(stream)

    async def _requests(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        plain = PlainConnection(stream)
        while (request := await plain.read_request(HEAD_TIMEOUT)) is not None:
            fields = dict(request.headers)
            if b"websocket" not in fields.get(b"upgrade", b"").lower():
                await self._plain_request(plain, request)
            elif self.behaviour.refuse_status is not None:
                status = self.behaviour.refuse_status
                await plain.respond(status, {"error": f"told to refuse with {status}"}, close=True)
                return
            else:
                await self._session(stream, plain, request)
                return

    async def _plain_request(self, plain: PlainConnection, request: h11.Request) -> None:
        body = await plain.read_body(MAX_PLAIN_BODY)
        target = request.target.decode("ascii", "replace")
        path = target.partition("?")[0]
        if body is None:
            await plain.respond(400, {"error": "the body is too large or breaks off"}, close=True)
        elif path == "/metric":
            self.metric_requests += 1
            await trio.sleep(self.behaviour.metric_delay)
            await self._metric(plain)
        elif path == "/metric-moved":
            # A balancer that follows redirects would believe this one to be empty.
            await plain.respond(200, {"agentsConnections": 0})
        elif path == "/api/health":
            await plain.respond(200, {"status": "ok"})
        elif path == "/api/stats":
            await plain.respond(200, self.statistics())
        elif path == "/echo":
            await plain.respond(200, body)
        elif path == "/request":
            method = request.method.decode("ascii")
            await plain.respond(
                200,
                {
                    "backend": self.behaviour.name,
                    "method": method,
                    "target": target,
                    "headers": _pairs(request),
                },
            )
        else:
            await plain.respond(404, {"error": "nothing here but WebSockets, /metric and /api/health"})

    def statistics(self) -> dict[str, object]:
        """Return what this backend counts."""
        return {
            "name": self.behaviour.name,
            "sessions": self.sessions,
            "foreign": self.behaviour.foreign,
            "reported": self.reported,
            "accepted": self.accepted,
            "messages": self.messages,
            "metricRequests": self.metric_requests,
        }

    def _report(self) -> dict[str, object]:
        return {
            "agentsConnections": self.reported,
            "podName": self.behaviour.name,
            "podIP": self._address,
            "nodeName": platform.node(),
        }

    async def _metric(self, plain: PlainConnection) -> None:
        fault = self.behaviour.metric_fault
        if fault is None:
            await plain.respond(200, self._report())
        elif fault == "500":
            await plain.respond(500, {"error": "told to fail"})
        elif fault == "html":
            await plain.respond(200, b"<!doctype html><title>Welcome</title><p>Not a count.")
        elif fault == "garbage":
            await plain.respond(200, b'\x00\xff{"agentsConnections": ')
        elif fault == "redirect":
            await plain.respond(302, {}, (("Location", "/metric-moved"),))
        elif fault == "huge":
            await plain.respond(200, self._report() | {"padding": "x" * 2**20})
        elif fault == "negative":
            await plain.respond(200, {"agentsConnections": -1})
        elif fault == "boolean":
            await plain.respond(200, {"agentsConnections": True})
        elif fault == "hang":
            # Until the asker gives up: reading is the way to notice that it did.
            while await plain.stream.receive_some(RECEIVE_BYTES):
                pass
        elif fault == "drip":
            await plain.send(h11.Response(status_code=200, headers=[("Content-Length", "86400")]))
            while True:
                await plain.send(h11.Data(data=b" "))
                await trio.sleep(1)
        else:
            assert_never(fault)

    async def _session(
        self,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
        plain: PlainConnection,
        request: h11.Request,
    ) -> None:
        async with trio.open_nursery() as nursery:
            # trio-websocket answers a malformed handshake by itself, closes the stream and leaves
            # `wrap_server_stream` waiting for ever; hence the cancellation when the stream is closed.
            handshake = trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT)
            replay = ReplayStream(stream, *plain.upgrade_bytes(), on_close=handshake.cancel)
            with handshake:
                proposal = await trio_websocket.wrap_server_stream(
                    nursery,
                    replay,
                    max_message_size=self.behaviour.max_message_size,
                    receive_buffer_size=RECEIVE_BYTES,
                )
            if handshake.cancelled_caught:
                nursery.cancel_scope.cancel()
                return
            await trio.sleep(self.behaviour.accept_delay)
            self._accepting += 1
            try:
                websocket = await proposal.accept(
                    subprotocol=next(iter(proposal.proposed_subprotocols), None)
                )
            finally:
                self._accepting -= 1
            self.accepted += 1
            self._open.add(websocket)
            replay.release()
            try:
                dropped = await self._echo(websocket, request)
            finally:
                self._open.discard(websocket)
            if dropped:
                _reset(stream)
                nursery.cancel_scope.cancel()
            # The reader task goes on until the closing handshake is complete, but not for ever.
            nursery.cancel_scope.deadline = trio.current_time() + CLOSE_TIMEOUT

    async def _echo(self, websocket: trio_websocket.WebSocketConnection, request: h11.Request) -> bool:
        """Echo until the session ends; return whether the connection is to be reset."""
        drop_after = self.behaviour.drop_after
        with trio.move_on_after(float("inf") if drop_after is None else drop_after):
            try:
                while True:
                    message = await websocket.get_message()
                    self.messages += 1
                    if isinstance(message, str) and (command := _command(message)):
                        if command["trio-wsb"] == "drop":
                            return True
                        await self._obey(websocket, request, command)
                        continue
                    if self.behaviour.slow_echo:
                        await trio.sleep(self.behaviour.slow_echo)
                    await websocket.send_message(message)
            except trio_websocket.ConnectionClosed:
                return False
        return True

    async def _obey(
        self, websocket: trio_websocket.WebSocketConnection, request: h11.Request, command: dict[str, Any]
    ) -> None:
        if command["trio-wsb"] == "close":
            await websocket.aclose(int(command.get("code", 1000)), str(command.get("reason", "")) or None)
            return
        answer: dict[str, object] = {"trio-wsb": command["trio-wsb"]}
        if command["trio-wsb"] == "whoami":
            answer |= {
                "backend": self.behaviour.name,
                "target": request.target.decode("ascii", "replace"),
                "subprotocol": websocket.subprotocol,
                "headers": _pairs(request),
            }
        elif command["trio-wsb"] == "ping":
            await websocket.ping()
            answer = {"trio-wsb": "pong"}
        else:
            answer |= {"error": "unknown command; known are whoami, close, drop and ping"}
        await websocket.send_message(json.dumps(answer))


def _command(message: str) -> dict[str, Any] | None:
    if not message.startswith(COMMAND_PREFIX):
        return None
    try:
        command = json.loads(message)
    except ValueError:
        return None
    return command if isinstance(command, dict) else None


def _pairs(request: h11.Request) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw_items()]


def _reset(stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
    """Close the connection so that the peer sees a reset."""
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    # SO_LINGER with a time of zero makes close() send RST instead of FIN.
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.socket.close()
