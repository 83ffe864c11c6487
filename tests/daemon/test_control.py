"""The control socket's server: real Unix sockets, a table of handlers, and every way to ask wrongly."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from tests.daemon.harness import http_client
from trio_wsb.daemon.control import (
    HANDLING_TIMEOUT,
    MAX_BODY,
    MAX_CONNECTIONS,
    REQUEST_TIMEOUT,
    ControlAnswer,
    ControlRequest,
    ControlServer,
    Handler,
)
from trio_wsb.errors import HTTPError
from trio_wsb.net.unix import UnixListener


async def echo(request: ControlRequest) -> ControlAnswer:
    return ControlAnswer(200, {"query": dict(request.query), "document": dict(request.document)})


async def refuse(_: ControlRequest) -> ControlAnswer:
    raise HTTPError(422, "not like this", (("Retry-After", "7"),))


async def fail(_: ControlRequest) -> ControlAnswer:
    raise ZeroDivisionError


async def hang(_: ControlRequest) -> ControlAnswer:
    await trio.sleep_forever()
    raise AssertionError


async def not_json(_: ControlRequest) -> ControlAnswer:
    return ControlAnswer(200, {"figure": float("nan")})


async def large(_: ControlRequest) -> ControlAnswer:
    return ControlAnswer(200, "x" * 4_000_000)


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/echo"): echo,
    ("POST", "/echo"): echo,
    ("POST", "/refuse"): refuse,
    ("GET", "/fail"): fail,
    ("GET", "/not-json"): not_json,
    ("GET", "/large"): large,
    ("POST", "/hang"): hang,
}


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Path]:
    listener = UnixListener(tmp_path / "control.sock")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ControlServer(ROUTES).serve, listener)
        yield listener.path
        nursery.cancel_scope.cancel()
    assert not listener.path.exists()


@asynccontextmanager
async def client(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(uds=str(path), base_url="http://localhost", timeout=30) as made:
        yield made


async def raw(path: Path, data: bytes) -> bytes:
    """Send `data` and return everything that comes."""
    received = b""
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(data)
        async for chunk in stream:
            received += chunk
    return received


async def test_get_and_post(tmp_path: Path) -> None:
    async with serving(tmp_path) as path, client(path) as http:
        answer = await http.get("/echo", params={"backend": "http://10.0.0.1:80/ ü&"})
        assert answer.status_code == 200
        assert answer.json() == {"query": {"backend": "http://10.0.0.1:80/ ü&"}, "document": {}}
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Connection"] == "close"
        assert answer.text.endswith("}\n")
        answer = await http.post("/echo", json={"rate": 50})
        assert answer.json() == {"query": {}, "document": {"rate": 50}}


async def test_head_has_no_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        answer = await raw(path, b"HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n")
        assert b"Content-Length: 30\r\n" in answer


async def test_a_chunked_body_and_one_that_waits_to_be_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await raw(path, head + b'5\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n')
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["document"] == {"a": 1}
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(
                b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            )
            assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(b"{}")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("request_line", "fields", "body", "status", "reason"),
    [
        ("GET /nowhere HTTP/1.1", "", b"", 404, "there is no such path; there are /echo, /fail"),
        ("DELETE /echo HTTP/1.1", "", b"", 405, "the method must be GET, POST"),
        ("GET /refuse HTTP/1.1", "", b"", 405, "the method must be POST"),
        ("POST /refuse HTTP/1.1", "", b"", 422, "not like this"),
        ("GET /fail HTTP/1.1", "", b"", 500, "internal error; the log has more"),
        ("GET /not-json HTTP/1.1", "", b"", 500, "internal error; the log has more"),
        ("GET /echo?a=1&a=2 HTTP/1.1", "", b"", 400, "a parameter is there twice"),
        ("GET /echo?a HTTP/1.1", "", b"", 400, "the query is malformed"),
        ("GET /echo?a=%ff HTTP/1.1", "", b"", 400, "the query is malformed"),
        ("GET /echo?" + "&".join(f"a{n}=" for n in range(30)) + " HTTP/1.1", "", b"", 400, "the query is"),
        ("GET /echo HTTP/2.0", "", b"", 505, "only HTTP/1.0 and HTTP/1.1"),
        ("GET\t/echo HTTP/1.1", "", b"", 400, ""),
        ("POST /echo HTTP/1.1", "Content-Length: 4\r\n", b"{}{}", 400, "the body is no JSON"),
        ("POST /echo HTTP/1.1", "Content-Length: 2\r\n", b"[]", 400, "the body is no JSON object"),
        ("POST /echo HTTP/1.1", "Content-Length: 65537\r\n", b"", 413, "the request's body is over 64 KiB"),
        ("POST /echo HTTP/1.1", "Content-Length: 1\r\nContent-Length: 1\r\n", b"x", 400, ""),
    ],
)
async def test_wrong_requests(
    tmp_path: Path, request_line: str, fields: str, body: bytes, status: int, reason: str
) -> None:
    async with serving(tmp_path) as path:
        answer = await raw(path, f"{request_line}\r\nHost: x\r\n{fields}\r\n".encode() + body)
        head, _, document = answer.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert json.loads(document)["error"].startswith(reason)


async def test_an_answer_says_what_is_allowed_and_passes_fields_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as path, client(path) as http:
        assert (await http.put("/echo")).headers["Allow"] == "GET, POST"
        assert (await http.post("/refuse")).headers["Retry-After"] == "7"


async def test_a_body_without_an_end_is_refused_when_it_gets_too_large(tmp_path: Path) -> None:
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    async with serving(tmp_path) as path:
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await raw(path, head + chunk * (MAX_BODY // 0x8000) + chunk)
        assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_request_that_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}")
            stream.socket.shutdown(socket.SHUT_WR)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b"GET /ec")
            stream.socket.shutdown(socket.SHUT_WR)
            assert await stream.receive_some() == b""


async def test_a_large_answer_arrives_whole(tmp_path: Path) -> None:
    async with serving(tmp_path) as path, client(path) as http:
        assert len((await http.get("/large")).json()) == 4_000_000


async def answer_after(path: Path, request: bytes, clock: trio.testing.MockClock, seconds: float) -> bytes:
    """Send `request`, let that much time pass once everybody waits for it, and return the answer."""
    answers: list[bytes] = []

    async def ask() -> None:
        answers.append(await raw(path, request))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.05)
        clock.jump(seconds)
    return answers[0]


async def test_a_slow_request_is_answered_408(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with serving(tmp_path) as path:
        request = b"GET /echo HTTP/1.1\r\nHost: x\r\n"
        answer = await answer_after(path, request, mock_clock, REQUEST_TIMEOUT + 0.1)
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_handler_that_hangs_is_given_up(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with serving(tmp_path) as path:
        request = b"POST /hang HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await answer_after(path, request, mock_clock, HANDLING_TIMEOUT + 0.1)
        assert answer.startswith(b"HTTP/1.1 504 ")


async def test_a_client_that_takes_no_answer_is_given_up(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with serving(tmp_path) as path, await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.05)
        mock_clock.jump(REQUEST_TIMEOUT + 0.1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        mock_clock.jump(10)
        received = 0
        while chunk := await stream.receive_some():
            received += len(chunk)
        assert received < 4_000_000


async def test_too_many_connections(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        held = [await trio.open_unix_socket(path) for _ in range(MAX_CONNECTIONS)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with await trio.open_unix_socket(path) as stream:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 503 ")
        await held.pop().aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with client(path) as http:
            assert (await http.get("/echo")).status_code == 200
        for stream in held:
            await stream.aclose()


async def test_a_fault_is_logged_and_serving_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as path, client(path) as http:
        with capture_logs() as logged:
            await http.get("/fail")
        (line,) = logged
        assert (line["event"], line["log_level"], line["path"]) == ("internal error", "error", "/fail")
        assert (await http.get("/echo")).status_code == 200


async def test_what_changes_something_is_logged_with_who_did_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as path, client(path) as http:
        with capture_logs() as logged:
            await http.get("/echo")
            await http.post("/echo")
        expected: dict[str, Any] = {"method": "POST", "path": "/echo", "uid": os.getuid(), "pid": os.getpid()}
        assert logged == [{"event": "control request", "log_level": "info", **expected}]
