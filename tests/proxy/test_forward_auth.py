"""forwardAuth with a real server on loopback: what goes wrong there is never a pass."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.daemon.harness import free_port
from tests.proxy.stage import echo, field_of, get, handshake, key_of, last, staged
from trio_wsb.middleware.forward_auth import ForwardAuth, ForwardAuthOptions, parse_auth_address
from trio_wsb.proxy.steps import AUTH_TIMEOUT, ForwardAuthStep

LIMIT = 1000

Server = Callable[[trio.SocketStream], Awaitable[None]]


def saying(answer: bytes) -> Server:
    """Return a server that reads a question, says `answer` and ends the connection."""

    async def serve(stream: trio.SocketStream) -> None:
        await head_of(stream)
        try:
            await stream.send_all(answer)
        except trio.BrokenResourceError:
            pass  # it was too much, and is not wanted

    return serve


async def head_of(stream: trio.SocketStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        received = await stream.receive_some()
        assert received
        head += received
    return head


async def never(stream: trio.SocketStream) -> None:
    """Answer nothing until the other side gives up."""
    while await stream.receive_some():
        pass


@asynccontextmanager
async def authentication(server: Server, **options: object) -> AsyncIterator[ForwardAuthStep]:
    """Run an authentication server and return the step that asks it."""
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(serve, server)
        port = listeners[0].socket.getsockname()[1]
        yield step(port, **options)
        nursery.cancel_scope.cancel()


async def serve(
    server: Server, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED
) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await server(stream)

    await trio.serve_tcp(handle, 0, host="127.0.0.1", task_status=task_status)


def step(port: int, **options: object) -> ForwardAuthStep:
    address = parse_auth_address(f"http://127.0.0.1:{port}/verify")
    made = ForwardAuthOptions(address, **options)  # type: ignore[arg-type]  # each test knows the types of its own
    return ForwardAuthStep("auth", ForwardAuth(made), verify=False, limit=LIMIT)


ALLOWED = b"HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 2\r\n\r\nok"

UNUSABLE = {
    "says nothing": b"",
    "garbage": b"this is no HTTP at all\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nX-User: ada\r\n",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf",
    "a body larger than allowed": b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + bytes(2000),
    "a body without end": b"HTTP/1.1 200 OK\r\n\r\n" + bytes(3_000_000),
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X-Filler: words\r\n" * 100_000,
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("answer", UNUSABLE.values(), ids=UNUSABLE.keys())
async def test_an_unusable_answer_is_no_pass(answer: bytes) -> None:
    async with authentication(saying(answer)) as auth, staged(echo, steps=[auth]) as stage:
        for asked in (handshake(), get()):
            assert (await stage.ask(last(asked))).startswith(b"HTTP/1.1 500 ")
        assert stage.dialled == []


async def test_a_server_that_nobody_reaches_is_no_pass() -> None:
    async with staged(echo, steps=[step(free_port())]) as stage:
        assert (await stage.ask(handshake())).startswith(b"HTTP/1.1 500 ")
        assert stage.dialled == []
        [line] = stage.events("authentication server failed")
        assert (line["middleware"], line["log_level"]) == ("auth", "warning")


async def test_a_server_that_never_answers_is_no_pass(autojump_clock: trio.testing.MockClock) -> None:
    # One that is never accepted from, so that virtual time cannot run ahead of a conversation.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with staged(echo, steps=[step(listener.getsockname()[1])]) as stage:
            begun = trio.current_time()
            assert (await stage.ask(handshake())).startswith(b"HTTP/1.1 500 ")
            assert trio.current_time() - begun == pytest.approx(AUTH_TIMEOUT, abs=1.0)
            assert stage.dialled == []
            [line] = stage.events("authentication server failed")
            assert line["reason"] == "no complete answer within 30 s"


async def test_a_session_that_is_allowed_gets_what_the_server_says() -> None:
    heads: list[bytes] = []

    async def allow(stream: trio.SocketStream) -> None:
        heads.append(await head_of(stream))
        await stream.send_all(ALLOWED)

    async with (
        authentication(allow, auth_response_headers=("X-User",)) as auth,
        staged(echo, steps=[auth]) as stage,
    ):
        client = await stage.open_session("X-User: mallory", "Cookie: a=1")
        client.close()
        await client.done.wait()
    [question] = heads
    assert question.startswith(b"GET /verify HTTP/1.1\r\n")
    assert field_of(question, "X-Forwarded-Uri") == ["/chat"]
    assert field_of(question, "Cookie") == ["a=1"]
    assert not field_of(question, "Upgrade")
    assert not field_of(question, "Sec-WebSocket-Key")


async def test_a_refusal_goes_to_the_client_as_it_is() -> None:
    denied = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 3\r\n\r\nno\n"
    async with authentication(saying(denied)) as auth, staged(echo, steps=[auth]) as stage:
        answer = await stage.ask(handshake())
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert field_of(answer, "WWW-Authenticate") == ["Basic"]
        assert answer.endswith(b"\r\n\r\nno\n")
        assert stage.dialled == []


async def test_a_refusal_in_chunks_is_framed_anew() -> None:
    denied = b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno\n\r\n0\r\n\r\n"
    async with authentication(saying(denied)) as auth, staged(echo, steps=[auth]) as stage:
        answer = await stage.ask(last(get()))
        assert field_of(answer, "Content-Length") == ["3"]
        assert not field_of(answer, "Transfer-Encoding")


async def test_the_backend_gets_the_fields_and_the_key_of_the_client() -> None:
    seen: list[bytes] = []

    async def record(end: object) -> None:
        head = await end.head()  # type: ignore[attr-defined]  # an End, as every script gets one
        seen.append(head)

    async with (
        authentication(saying(ALLOWED), auth_response_headers=("X-User",)) as auth,
        staged(record, steps=[auth]) as stage,
    ):
        await stage.ask(handshake("X-User: mallory"))
    assert field_of(seen[0], "X-User") == ["ada"]
    assert key_of(seen[0]) == "dGhlIHNhbXBsZSBub25jZQ=="
