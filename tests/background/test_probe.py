"""One check against servers on loopback that do what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme

from trio_wsb.addresses import BackendURL, ListenAddress, parse_backend_url
from trio_wsb.background.probe import HealthTarget, probe
from trio_wsb.balancing.health import Question
from trio_wsb.demo.backend import Behaviour, DemoBackend

Handler = Callable[[trio.SocketStream, bytes], Awaitable[None]]


def target(url: BackendURL, path: str = "/health", *, timeout: float = 5.0, **fields: Any) -> HealthTarget:
    settings = {key: fields.pop(key) for key in ("ssl_context", "server_name") if key in fields}
    return HealthTarget(url, Question(path, **fields), 30.0, 30.0, timeout, **settings)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[BackendURL, list[bytes]]]:
    """Serve on loopback; yields the URL and the heads that came."""
    heads: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some(65536)
            if not data:
                return
            head += data
        heads.append(head)
        try:
            await handler(stream, head)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        yield BackendURL("http", "127.0.0.1", port), heads
        nursery.cancel_scope.cancel()


def answering(*answers: bytes) -> Handler:
    left = list(answers)

    async def handler(stream: trio.SocketStream, head: bytes) -> None:
        await stream.send_all(left.pop(0) if len(left) > 1 else left[0])

    return handler


def status(line: str, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {line}", "Content-Length: 0", *fields, "", ""]).encode()


@pytest.mark.parametrize(
    ("line", "wanted", "reason"),
    [
        ("200 OK", 0, None),
        ("204 No Content", 0, None),
        ("399 Odd", 0, None),
        ("400 Bad Request", 0, "answered 400"),
        ("503 Unavailable", 0, "answered 503"),
        ("503 Unavailable", 503, None),
        ("200 OK", 204, "answered 200"),
    ],
)
async def test_status(line: str, wanted: int, reason: str | None) -> None:
    async with serving(answering(status(line))) as (url, _):
        assert await probe(target(url, status=wanted)) == reason


async def test_what_is_sent() -> None:
    async with serving(answering(status("200 OK"))) as (url, heads):
        fields = (("X-One", "1"), ("User-Agent", "me"))
        good = target(
            BackendURL("http", "127.0.0.1", 1),
            "/a?b=c",
            port=url.port,
            method="HEAD",
            hostname="chat.example",
            headers=fields,
        )
        assert await probe(good) is None
    lines = heads[0].decode().split("\r\n")
    assert lines[0] == "HEAD /a?b=c HTTP/1.1"
    assert "Host: chat.example" in lines
    assert "X-One: 1" in lines
    assert [line for line in lines if line.lower().startswith("user-agent")] == ["User-Agent: me"]


async def test_redirects() -> None:
    there = status("302 Found", "Location: /elsewhere")
    async with serving(answering(there, status("500 Oh"))) as (url, heads):
        assert await probe(target(url)) == "answered 500"
        assert heads[1].startswith(b"GET /elsewhere ")
    async with serving(answering(there)) as (url, heads):
        assert await probe(target(url, follow_redirects=False)) is None
        assert await probe(target(url)) == "more than 5 redirects"
        assert len(heads) == 1 + 6


async def test_an_endless_body_is_not_read() -> None:
    async def endless(stream: trio.SocketStream, head: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            await stream.send_all(bytes(65536))

    async with serving(endless) as (url, _):
        assert await probe(target(url)) is None


async def test_silence() -> None:
    async def silent(stream: trio.SocketStream, head: bytes) -> None:
        await trio.sleep_forever()

    async with serving(silent) as (url, _):
        for mode in ("http", "websocket"):
            assert await probe(target(url, timeout=0.05, mode=mode)) == "no complete answer within 0.05 s"


@pytest.mark.parametrize("mode", ["http", "websocket"])
async def test_nobody_there(mode: str) -> None:
    async with serving(answering(b"")) as (url, _):
        pass
    assert await probe(target(url, mode=mode)) == "cannot connect: Connection refused"


async def test_nonsense() -> None:
    async with serving(answering(b"SSH-2.0-OpenSSH\r\n\r\n")) as (url, _):
        assert await probe(target(url)) == "no valid HTTP/1.1 answer"
    async with serving(answering(status("401 Unauthorized"))) as (url, _):
        assert await probe(target(url, mode="websocket")) == "answered 401 to the handshake"


@asynccontextmanager
async def demo_backend(**kwargs: Any) -> AsyncIterator[tuple[BackendURL, DemoBackend]]:
    backend = DemoBackend(Behaviour())
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[str]) -> None:
            await backend.serve(ListenAddress("127.0.0.1", 0), task_status=task_status, **kwargs)

        yield parse_backend_url(await nursery.start(serve)), backend
        nursery.cancel_scope.cancel()


async def test_a_websocket_that_answers_a_ping() -> None:
    async with demo_backend() as (url, backend):
        assert await probe(target(url, "/ws", mode="websocket")) is None
        assert backend.accepted == 1
        backend.behaviour.drop_after = 0.0
        backend.behaviour.refuse_status = 503
        assert await probe(target(url, "/ws", mode="websocket")) == "answered 503 to the handshake"


async def test_a_websocket_under_tls() -> None:
    authority = trustme.CA()
    import ssl

    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("backend.internal").configure_cert(server)
    authority.configure_trust(client)
    async with demo_backend(ssl_context=server) as (url, _):
        for mode in ("http", "websocket"):
            path = "/api/health"
            named = target(url, path, mode=mode, ssl_context=client, server_name="backend.internal")
            assert await probe(named) is None
            wrong = await probe(target(url, path, mode=mode, ssl_context=client))
            assert wrong is not None
            assert wrong.startswith("cannot connect: the certificate is not trusted")
