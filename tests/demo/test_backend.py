"""The demo backend over real loopback sockets."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import httpx
import pytest
import trio
import trustme
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection

from tests.daemon.harness import http_client
from trio_wsb.addresses import ListenAddress
from trio_wsb.demo import backend as backend_module
from trio_wsb.demo.backend import METRIC_FAULTS, Behaviour, DemoBackend, MetricFault
from trio_wsb.demo.connect import open_session, parse_target

LOOPBACK = ListenAddress("127.0.0.1", 0)
HANDSHAKE = (
    b"GET /raw HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@asynccontextmanager
async def running(behaviour: Behaviour | None = None) -> AsyncIterator[tuple[DemoBackend, str]]:
    backend = DemoBackend(behaviour)
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(backend.serve, LOOPBACK)
        with trio.fail_after(30):
            yield backend, url
        nursery.cancel_scope.cancel()


def websocket(url: str, **options: Any) -> AbstractAsyncContextManager[WebSocketConnection]:
    return open_session(parse_target(url + "/any/path?x=1"), **options)


def code(closed: pytest.ExceptionInfo[ConnectionClosed]) -> int:
    assert closed.value.reason is not None
    return closed.value.reason.code


async def ask(connection: WebSocketConnection, **command: object) -> dict[str, Any]:
    await connection.send_message(json.dumps({"trio-wsb": command.pop("command"), **command}))
    return cast("dict[str, Any]", json.loads(await connection.get_message()))


async def test_echoes_text_and_binary_and_counts_its_sessions() -> None:
    async with running(Behaviour(name="b1", foreign=5)) as (backend, url):
        async with websocket(url) as first, websocket(url):
            for message in ("text", "", "żółw", b"\x00\xff", b"x" * 300_000, '{"trio-wsb": no json'):
                await first.send_message(message)
                assert await first.get_message() == message
            assert backend.sessions == 2
            assert backend.reported == 7
        # The client's side is closed when the server has answered its Close, or just before.
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert backend.sessions == 0
        assert (backend.accepted, backend.messages) == (2, 6)


async def test_reports_as_a_balancer_expects_on_one_kept_connection() -> None:
    async with running(Behaviour(name="b1", foreign=5)) as (backend, url), http_client() as http:
        async with websocket(url):
            for _ in range(3):
                answer = await http.get(url + "/metric?x")
                assert answer.status_code == 200
                assert answer.headers["content-type"] == "application/json"
                report = answer.json()
                assert report.pop("nodeName")
                assert report == {"agentsConnections": 6, "podName": "b1", "podIP": "127.0.0.1"}
            stats = (await http.get(url + "/api/stats")).json()
        assert stats["metricRequests"] == backend.metric_requests == 3
        assert stats["sessions"] == 1


async def test_plain_requests() -> None:
    async with running(Behaviour(name="b1")) as (_, url), http_client() as http:
        assert (await http.get(url + "/api/health")).json() == {"status": "ok"}
        head = await http.head(url + "/api/health")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 0
        assert (await http.get(url + "/nothing")).status_code == 404
        body = bytes(range(256)) * 1000
        assert (await http.post(url + "/echo", content=body)).content == body
        seen = (await http.put(url + "/request?a=b", headers={"X-Thing": "1"})).json()
        assert (seen["method"], seen["target"], seen["backend"]) == ("PUT", "/request?a=b", "b1")
        assert ["X-Thing", "1"] in seen["headers"]


async def test_a_chunked_body_and_one_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"0123456789"

    async with running() as (_, url), http_client() as http:
        assert (await http.post(url + "/echo", content=chunks())).content == b"0123456789" * 10
        monkeypatch.setattr(backend_module, "MAX_PLAIN_BODY", 50)
        assert (await http.post(url + "/echo", content=b"x" * 51)).status_code == 400


@pytest.mark.parametrize("fault", METRIC_FAULTS)
async def test_metric_faults(fault: MetricFault) -> None:
    async with running(Behaviour(metric_fault=fault)) as (backend, url):
        async with http_client(timeout=0.2) as http:
            if fault in {"hang", "drip"}:
                with pytest.raises(httpx.ReadTimeout):
                    await http.get(url + "/metric")
                return
            answer = await http.get(url + "/metric")
        assert answer.status_code == {"500": 500, "redirect": 302}.get(fault, 200)
        if fault in {"html", "garbage"}:
            with pytest.raises(ValueError):
                answer.json()
        if fault == "huge":
            assert len(answer.content) > 2**20
        if fault in {"negative", "boolean"}:
            assert answer.json() == {"agentsConnections": -1 if fault == "negative" else True}
        if fault == "redirect":
            async with http_client(follow_redirects=True) as http:
                assert (await http.get(url + "/metric")).json() == {"agentsConnections": 0}
        backend.behaviour.metric_fault = None
        async with http_client() as http:
            assert (await http.get(url + "/metric")).json()["agentsConnections"] == 0


async def test_takes_the_first_subprotocol_and_tells_who_it_is() -> None:
    async with (
        running(Behaviour(name="b7")) as (_, url),
        websocket(url, subprotocols=["chat", "other"], headers=[(b"X-Thing", b"1")]) as connection,
    ):
        assert connection.subprotocol == "chat"
        answer = await ask(connection, command="whoami")
        assert (answer["backend"], answer["target"], answer["subprotocol"]) == (
            "b7",
            "/any/path?x=1",
            "chat",
        )
        assert ["X-Thing", "1"] in answer["headers"]
        assert await ask(connection, command="ping") == {"trio-wsb": "pong"}
        assert "error" in await ask(connection, command="dance")


async def test_closes_and_drops_on_command() -> None:
    async with running() as (_, url):
        async with websocket(url) as connection:
            with pytest.raises(ConnectionClosed) as closed:
                await ask(connection, command="close", code=4001, reason="asked")
            assert code(closed) == 4001
            assert "asked" in str(closed.value)
        async with websocket(url) as connection:
            with pytest.raises(ConnectionClosed) as closed:
                await ask(connection, command="drop")
            assert code(closed) == 1006


async def test_refuses_handshakes() -> None:
    async with running(Behaviour(refuse_status=503)) as (backend, url):
        with pytest.raises(ConnectionRejected) as rejected:
            async with websocket(url):
                pass
        assert rejected.value.status_code == 503
        assert backend.accepted == 0


async def test_drops_after_the_101() -> None:
    async with running(Behaviour(drop_after=0.0)) as (backend, url):
        async with websocket(url) as connection:
            with pytest.raises(ConnectionClosed) as closed:
                await connection.get_message()
            assert code(closed) == 1006
        assert (backend.accepted, backend.sessions) == (1, 0)


async def test_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Behaviour(accept_delay=0.05, slow_echo=0.05, metric_delay=0.05)
    async with running(slow) as (_, url), http_client() as http:
        times = [trio.current_time()]
        async with websocket(url) as connection:
            times.append(trio.current_time())
            await connection.send_message("x")
            await connection.get_message()
            times.append(trio.current_time())
        begin = trio.current_time()
        await http.get(url + "/metric")
        assert trio.current_time() - begin >= 0.05
        assert times[1] - times[0] >= 0.05
        assert times[2] - times[1] >= 0.05


async def test_frames_that_arrive_with_the_handshake_are_echoed() -> None:
    async with running(Behaviour(accept_delay=0.01)) as (_, url):
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
        async with stream:
            await stream.send_all(HANDSHAKE + b"\x81\x82\x00\x00\x00\x00hi")
            received = b""
            while not received.endswith(b"\x81\x02hi"):
                data = await stream.receive_some()
                assert data, received
                received += data
            assert received.startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HANDSHAKE.replace(b"Sec-WebSocket-Key", b"Sec-Nothing"), b"400"),
        (HANDSHAKE.replace(b"13", b"12"), b"426"),
        (b"not http at all\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000, b"431"),
    ],
)
async def test_nonsense_is_answered_and_the_connection_closed(request_bytes: bytes, status: bytes) -> None:
    async with running() as (backend, url):
        async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream:
            await stream.send_all(request_bytes)
            received = b""
            try:
                while data := await stream.receive_some():
                    received += data
            except trio.BrokenResourceError:
                # What the backend left unread makes the system send a reset.
                assert status == b"431"
            assert status in received.partition(b"\r\n")[0]
        async with websocket(url):
            assert backend.sessions == 1


async def test_a_client_that_leaves_at_any_point_ends_its_connection_alone() -> None:
    async with running(Behaviour(accept_delay=0.02)) as (backend, url):
        port = int(url.rpartition(":")[2])
        async with websocket(url) as survivor:
            for sent in (b"", b"GET /met", HANDSHAKE, HANDSHAKE + b"\x81\xfe"):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    if sent:
                        await stream.send_all(sent)
            await survivor.send_message("still here")
            assert await survivor.get_message() == "still here"
            while backend.sessions > 1:
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_stop_closes_sessions_with_1001_and_serve_returns() -> None:
    backend = DemoBackend()
    codes: list[int] = []

    async def hold(url: str, task_status: trio.TaskStatus[None]) -> None:
        async with websocket(url) as connection:
            task_status.started()
            with pytest.raises(ConnectionClosed) as closed:
                await connection.get_message()
            codes.append(code(closed))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(backend.serve, LOOPBACK)
            for _ in range(20):
                await nursery.start(lambda task_status: hold(url, task_status))
            backend.stop()
        assert codes == [1001] * 20
        with pytest.raises(OSError):
            await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))


async def test_stop_does_not_wait_for_a_silent_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "STOP_GRACE", 0.05)
    backend = DemoBackend()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(backend.serve, LOOPBACK)
            stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
            await stream.send_all(HANDSHAKE)
            await stream.receive_some()
            while not backend.sessions:
                await trio.testing.wait_all_tasks_blocked(0.01)
            backend.stop()
        await stream.aclose()


async def test_serves_tls() -> None:
    authority = trustme.CA()

    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    backend = DemoBackend(Behaviour(name="tls"))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(
                lambda task_status: backend.serve(LOOPBACK, ssl_context=server, task_status=task_status)
            )
            assert url.startswith("https://127.0.0.1:")
            async with httpx.AsyncClient(verify=client) as http:
                assert (await http.get(url + "/metric")).json()["podName"] == "tls"
            async with websocket(url, ssl_context=client) as connection:
                await connection.send_message("secret")
                assert await connection.get_message() == "secret"
                with pytest.raises(ConnectionClosed):
                    await ask(connection, command="drop")
            nursery.cancel_scope.cancel()
