"""Many clients of `websockets` at once, with its asyncio API and with its threaded one."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_in_thread

from tests.daemon.harness import PATIENCE, daemon
from tests.interop.peers.asynciothread import AsyncioThread
from tests.interop.stage import services
from trio_wsb.addresses import ListenAddress
from trio_wsb.demo.backend import DemoBackend

pytestmark = pytest.mark.daemon

CLIENTS = 300
THREADS = 8


async def converse(url: str, number: int, everybody: asyncio.Barrier) -> None:
    # With the compression that the library offers by itself and the backend does not know.
    async with connect(url, proxy=None, open_timeout=PATIENCE) as websocket:
        await everybody.wait()
        for text in (f"client {number}", "x" * number):
            await websocket.send(text)
            assert await websocket.recv() == text


async def all_of_them(url: str) -> None:
    everybody = asyncio.Barrier(CLIENTS)
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(converse(url, number, everybody))


def converse_in_thread(url: str) -> None:
    with connect_in_thread(url, proxy=None) as websocket:
        websocket.ping().wait(PATIENCE)
        for message in ("from a thread", b"\x00" * 100_000):
            websocket.send(message)
            assert websocket.recv(timeout=PATIENCE) == message


@pytest.mark.usefixtures("both_relays")
async def test_clients_of_websockets_share_three_backends(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        backends = [DemoBackend() for _ in range(3)]
        urls: list[str] = [
            await nursery.start(backend.serve, ListenAddress("127.0.0.1", 0)) for backend in backends
        ]
        running = await stack.enter_async_context(daemon(tmp_path, [], http=services({"/": urls})))
        thread = await stack.enter_async_context(AsyncioThread.start())
        with trio.fail_after(PATIENCE):
            await thread.call(all_of_them(running.ws))
            assert [backend.accepted for backend in backends] == [CLIENTS // 3] * 3
            async with trio.open_nursery() as threads:
                for _ in range(THREADS):
                    threads.start_soon(trio.to_thread.run_sync, converse_in_thread, running.ws)
            while len(running.log("session ended")) < CLIENTS + THREADS:
                await running.running.line("session ended", after=len(running.running.lines))
        ended = running.log("session ended")
        assert Counter((line["cause"], line["closeCode"]) for line in ended) == {
            ("client_closed", 1000): CLIENTS + THREADS
        }
        assert {(line["messagesIn"], line["messagesOut"]) for line in ended} == {(2, 2)}
        nursery.cancel_scope.cancel()
