"""The refresher over real sockets on loopback."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from trio_wsb.addresses import BackendURL
from trio_wsb.background.counts import CountRefresher, CountTarget
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountKey, CountTable, Sample


@asynccontextmanager
async def server(
    handler: Callable[[trio.SocketStream | trio.SSLStream[trio.SocketStream], bytes], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[BackendURL]:
    """Serve each request head with `handler` on loopback."""

    async def serve(raw: trio.SocketStream) -> None:
        stream = (
            raw if context is None else trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        )
        async with stream:
            try:
                while head := await read_head(stream):
                    await handler(stream, head)
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            chunk = await stream.receive_some()
            if not chunk:
                return b""
            head += chunk
        return head

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            lambda task_status: trio.serve_tcp(serve, 0, host="127.0.0.1", task_status=task_status)
        )
        port = listener.socket.getsockname()[1]
        yield BackendURL("http" if context is None else "https", "127.0.0.1", port)
        nursery.cancel_scope.cancel()


class Told(CountTable):
    """A count table that says when it has learnt what came of a request."""

    def __init__(self) -> None:
        super().__init__()
        self.told = trio.Event()

    def finish(self, sample: Sample, reported: int, own_live: int, own_pending: int, now: float) -> bool:
        self.told.set()
        return super().finish(sample, reported, own_live, own_pending, now)

    def fail(self, key: CountKey, reason: str, now: float) -> bool:
        self.told.set()
        return super().fail(key, reason, now)


async def ask_once(url: BackendURL, *, timeout: float = 5.0, **settings: Any) -> CountTable:
    """Return the table after one answer or failure from `url`."""
    table = Told()
    refresher = CountRefresher(table, BackendTable())
    refresher.configure([CountTarget(url, "/metric", "agentsConnections", 60.0, timeout, **settings)])
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(refresher.run)
            await table.told.wait()
            nursery.cancel_scope.cancel()
    return table


def http_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


REPORT = b'{"agentsConnections": 7}'


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (http_answer(REPORT), 7),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n18\r\n" + REPORT + b"\r\n0\r\n\r\n", 7),
        (http_answer(b"<html>"), "the report is HTML or XML, not JSON"),
        (http_answer(b"", "500 Internal Server Error"), "answered 500"),
        (http_answer(b"", "302 Found", "Location: /other"), "answered 302"),
        (http_answer(b" " * 70 * 1024 + REPORT), "the report is over 64 KiB"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"400\r\n" + b" " * 1024 + b"\r\n") * 70,
            "the report is over 64 KiB",
        ),
        (http_answer(b"{nonsense"), "the report is not JSON"),
        (http_answer(b'{"agentsConnections": -1}'), "agentsConnections is negative"),
        (http_answer(b'{"agentsConnections": true}'), "agentsConnections is not an integer"),
        (http_answer(b'{"agentsConnections": 1%s}' % (b"0" * 30)), "agentsConnections is over 1000000000"),
        (
            http_answer(b"x", "200 OK", "Content-Encoding: gzip"),
            "the report is compressed, which was not asked for",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no valid HTTP/1.1 answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 30_000 + b"\r\n", "no valid HTTP/1.1 answer"),
    ],
)
async def test_answers_over_a_socket(answer: bytes, outcome: int | str, log: list[Any]) -> None:
    async def handler(stream: trio.abc.Stream, head: bytes) -> None:
        assert head.startswith(b"GET /metric HTTP/1.1\r\n")
        await stream.send_all(answer)

    async with server(handler) as url:
        [entry] = await ask_once(url)
    assert entry.reported == outcome if isinstance(outcome, int) else entry.reason == outcome


@pytest.mark.parametrize("drips", [b"HTTP/1.1 200 OK\r\nX-Long: ", http_answer(b" " * 60_000)[:60]])
async def test_a_server_that_drips_is_given_up(drips: bytes, log: list[Any]) -> None:
    async def handler(stream: trio.abc.Stream, head: bytes) -> None:
        await stream.send_all(drips)
        while True:
            await stream.send_all(b" ")
            await trio.sleep(0.01)  # that it takes its time is what is tested; nothing waits for it

    async with server(handler) as url:
        [entry] = await ask_once(url, timeout=0.2)
    assert entry.reason == "no complete answer within 0.2 s"


async def test_a_connection_is_kept(log: list[Any]) -> None:
    peers: set[Any] = set()
    asked, enough = 0, trio.Event()

    async def handler(stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], head: bytes) -> None:
        nonlocal asked
        assert isinstance(stream, trio.SocketStream)
        asked += 1
        peers.add(stream.socket.getpeername())
        await stream.send_all(http_answer(REPORT))
        if asked == 3:
            await stream.aclose()
        if asked == 6:
            enough.set()

    async with server(handler) as url, trio.open_nursery() as nursery:
        table = CountTable()
        refresher = CountRefresher(table, BackendTable())
        refresher.configure([CountTarget(url, "/metric", "agentsConnections", 0.1, 5.0)])
        await nursery.start(refresher.run)
        with trio.fail_after(10):
            await enough.wait()
        nursery.cancel_scope.cancel()
    assert len(peers) == 2
    assert not log


async def test_nobody_listens(log: list[Any]) -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        [entry] = await ask_once(BackendURL("http", "127.0.0.1", unused.getsockname()[1]))
    assert entry.reason == "cannot connect: Connection refused"


async def test_a_name_that_does_not_resolve(log: list[Any]) -> None:
    [entry] = await ask_once(BackendURL("http", "x" * 64 + ".invalid", 80))
    assert entry.reason is not None
    assert entry.reason.startswith(("cannot connect: ", "the request failed ("))


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch, log: list[Any]) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    async def handler(stream: trio.abc.Stream, head: bytes) -> None:
        await stream.send_all(http_answer(REPORT))

    async with server(handler) as url:
        [entry] = await ask_once(url)
    assert entry.reported == 7


async def test_tls(log: list[Any]) -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("backend.example").configure_cert(server_context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    careless = ssl.create_default_context()
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE

    async def handler(stream: trio.abc.Stream, head: bytes) -> None:
        await stream.send_all(http_answer(REPORT))

    outcomes = []
    async with server(handler, server_context) as url:
        for context, name in (
            (trusting, "backend.example"),
            (careless, None),
            (trusting, None),
            (None, None),
        ):
            [entry] = await ask_once(url, ssl_context=context, server_name=name)
            outcomes.append(entry.reason or entry.reported)
    assert outcomes[:2] == [7, 7]
    assert str(outcomes[2]).startswith("cannot connect: the certificate is not trusted (")
    assert "mismatch" in str(outcomes[2])
    assert str(outcomes[3]).startswith("cannot connect: the certificate is not trusted (")


async def test_plain_http_where_tls_is_expected(log: list[Any]) -> None:
    async def handler(stream: trio.abc.Stream, head: bytes) -> None:
        raise AssertionError

    async def garbage(raw: trio.SocketStream) -> None:
        async with raw:
            await raw.receive_some()
            await raw.send_all(http_answer(b"", "400 Bad Request"))

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            lambda task_status: trio.serve_tcp(garbage, 0, host="127.0.0.1", task_status=task_status)
        )
        [entry] = await ask_once(BackendURL("https", "127.0.0.1", listener.socket.getsockname()[1]))
        nursery.cancel_scope.cancel()
    assert entry.reason is not None
    assert entry.reason.startswith("cannot connect: TLS failed (")
