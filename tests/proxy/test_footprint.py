"""What an idle session holds: thousands of them live for hours, so a word more in each is megabytes."""

from __future__ import annotations

import gc
import socket
import sys
import tracemalloc

import pytest
import trio
import trio.testing

from tests.proxy.stage import echo, handshake, staged
from trio_wsb.daemon.arrival import arrive
from trio_wsb.http.head import RequestHead, ResponseHead
from trio_wsb.http.reader import HeadReader
from trio_wsb.net.sockets import SocketChannel
from trio_wsb.proxy.connection import Connection
from trio_wsb.proxy.crowd import Visit
from trio_wsb.proxy.record import RequestRecord
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.proxy.request import ProxiedRequest

OF_THE_HANDSHAKE = (Connection, ProxiedRequest, RequestHead, ResponseHead, HeadReader, RequestRecord, Visit)

MOST = 8500
"""Bytes that Python allocates for a relay between two sockets, both waiting; 7,500 were seen."""

SESSIONS = 100


def of_the_handshake() -> list[object]:
    """Return every object that is part of a handshake."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, OF_THE_HANDSHAKE)]


async def test_a_session_keeps_nothing_of_its_handshake() -> None:
    # Other tests may have left some, in the traceback of one that failed.
    others = {id(each) for each in of_the_handshake()}
    client, accepted = socket.socketpair()
    client.setblocking(False)
    accepted.setblocking(False)
    async with staged(echo) as stage:

        async def serve() -> None:
            session = await arrive(stage.proxy, "web", accepted, ("192.0.2.7", 50000))
            assert session is not None
            await stage.proxy.sessions.run(session)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            client.send(handshake())
            await trio.lowlevel.wait_readable(client)
            await trio.testing.wait_all_tasks_blocked()
            assert len(stage.proxy.sessions) == 1
            kept = [type(each).__name__ for each in of_the_handshake() if id(each) not in others]
            client.close()
    assert kept == []


async def test_a_session_keeps_its_share_of_its_address_until_it_ends() -> None:
    client, accepted = socket.socketpair()
    client.setblocking(False)
    accepted.setblocking(False)
    async with staged(echo) as stage:
        stage.reload(connections_per_address=1)
        crowd = stage.proxy.crowd

        async def serve() -> None:
            session = await arrive(stage.proxy, "web", accepted, ("192.0.2.7", 50000))
            assert session is not None
            await stage.proxy.sessions.run(session)
            assert len(crowd) == 0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            client.send(handshake())
            await trio.lowlevel.wait_readable(client)
            await trio.testing.wait_all_tasks_blocked()
            assert len(crowd) == 1
            client.close()


async def test_memory_of_an_idle_relay() -> None:
    if sys.gettrace() is not None:
        pytest.skip("what traces the lines of a program keeps notes with each frame")
    scratch = memoryview(bytearray(SCRATCH_SIZE))
    ends = [socket.socketpair() for _ in range(2 * SESSIONS)]
    for pair in ends:
        for end in pair:
            end.setblocking(False)

    def relay(number: int) -> Relay:
        client, backend = SocketChannel(ends[2 * number][0]), SocketChannel(ends[2 * number + 1][0])
        return Relay(client, backend, scratch=scratch, write_timeout=0, watch=lambda _: None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay(0).run)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(1, SESSIONS):
                nursery.start_soon(relay(number).run)
            # A byte each, so that all have moved something before they wait.
            for _, end in ends[2::2]:
                end.send(b"\x82")
            for _, end in ends[3::2]:
                end.send(b"\x82")
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        nursery.cancel_scope.cancel()
    for _, end in ends:
        end.close()
    assert (after - before) / (SESSIONS - 1) < MOST
