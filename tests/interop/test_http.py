"""Plain requests of `httpx` through the balancer to the standard library's server."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from tests.daemon.harness import PATIENCE, Daemon, daemon, http_client
from tests.interop.peers.httpserver import digest_of, http_server, large
from tests.interop.stage import services

pytestmark = pytest.mark.daemon

LARGE = 64 * 2**20
ROOM = 8 * 2**20
"""Bytes by which the balancer may grow while something much larger passes."""


@pytest.fixture
async def balancer(tmp_path: Path) -> AsyncIterator[Daemon]:
    with http_server() as url:
        async with daemon(tmp_path, [], http=services({"/": [url]})) as running:
            yield running


@pytest.fixture
async def client(balancer: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(base_url=balancer.url) as client:
        yield client


def peak_memory(running: Daemon) -> int:
    """Return the largest resident set so far, in bytes."""
    status = Path(f"/proc/{running.running.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def connection_of(answer: httpx.Response) -> tuple[str, int]:
    address: tuple[str, int] = answer.extensions["network_stream"].get_extra_info("client_addr")
    return address


async def body(size: int) -> AsyncIterator[bytes]:
    for piece in large(size):
        yield piece


async def test_one_connection_serves_request_after_request(client: httpx.AsyncClient) -> None:
    answers = [
        await client.get("/hello"),
        await client.head("/hello"),
        await client.get("/hello", headers={"If-None-Match": '"1"'}),
        await client.get("/status/204"),
        await client.get("/chunked/100000"),
        await client.head("/chunked/100000"),
        await client.get("/status/404"),
        await client.get("/status/500"),
        await client.get("/large/0"),
        await client.get("/hello"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 304, 204, 200, 200, 404, 500, 200, 200]
    sizes = [len(answer.content) for answer in answers]
    assert sizes == [6, 0, 0, 0, 100_000, 0, 12, 12, 0, 6]
    assert len({connection_of(answer) for answer in answers}) == 1
    assert answers[1].headers["Content-Length"] == "6"
    assert answers[2].headers["ETag"] == '"1"'
    assert "Content-Length" not in answers[3].headers
    assert answers[4].headers["Transfer-Encoding"] == "chunked"
    assert answers[6].text == "this is 404\n"
    assert answers[7].headers["X-Reason"] == "asked for"
    assert answers[0].headers["X-Host"] == client.base_url.netloc.decode()


async def test_bodies_with_and_without_a_length(client: httpx.AsyncClient) -> None:
    for size in (0, 1, 70_000):
        for chunked in (False, True):
            content = body(size) if chunked else b"".join(large(size))
            seen = (await client.put("/digest", content=content)).json()
            assert (seen["size"], seen["digest"]) == (size, digest_of(size))
            assert (seen["method"], seen["chunked"]) == ("PUT", chunked)
            assert seen["version"] == "HTTP/1.1"


async def test_large_bodies_pass_in_constant_memory(balancer: Daemon, client: httpx.AsyncClient) -> None:
    await client.get("/hello")
    before = peak_memory(balancer)
    expected = digest_of(LARGE)
    for content, headers in ((body(LARGE), {}), (body(LARGE), {"Content-Length": str(LARGE)})):
        seen = (await client.post("/digest", content=content, headers=headers)).json()
        assert (seen["size"], seen["digest"], seen["chunked"]) == (LARGE, expected, not headers)
    for kind in ("large", "chunked", "unframed"):
        digest = hashlib.sha256()
        async with client.stream("GET", f"/{kind}/{LARGE}") as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_raw():
                digest.update(piece)
        assert digest.hexdigest() == expected
    assert peak_memory(balancer) - before < ROOM


async def test_a_client_that_reads_nothing_does_not_fill_the_balancer(
    balancer: Daemon, client: httpx.AsyncClient
) -> None:
    await client.get("/hello")
    before = peak_memory(balancer)
    async with await trio.open_tcp_stream("127.0.0.1", balancer.port) as stream:
        await stream.send_all(f"GET /large/{4 * LARGE} HTTP/1.1\r\nHost: example\r\n\r\n".encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 OK\r\n")
        # Others are served meanwhile, for long enough to read far more than there is room for.
        for _ in range(20):
            assert (await client.get("/large/1000000")).status_code == 200
    assert peak_memory(balancer) - before < ROOM
    # It has left in the middle of its answer, which is nobody's fault.
    assert (await client.get("/hello")).status_code == 200
    assert balancer.log("backend failed") == []


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(
    balancer: Daemon, client: httpx.AsyncClient
) -> None:
    for path in ("/cut-off", "/cut-off-chunked"):
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await client.get(path)
    await balancer.logged("backend failed", reason="the response broke off")
    assert (await client.get("/hello")).text == "hello\n"


async def test_many_requests_at_once(client: httpx.AsyncClient) -> None:
    sizes = range(0, 200_000, 5_000)

    async def ask(size: int) -> None:
        answer = await client.get(f"/chunked/{size}")
        assert answer.content == b"".join(large(size))
        seen = (await client.post("/digest", content=body(size))).json()
        assert (seen["size"], seen["digest"]) == (size, digest_of(size))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for size in sizes:
                nursery.start_soon(ask, size)
