"""One client address cannot take a whole entry point: the real daemon behind a proxy that says whose connection it is."""

from __future__ import annotations

import select
import socket
from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE, Daemon, backend, daemon, free_port
from tests.opening import opening

pytestmark = pytest.mark.daemon


def connect(running: Daemon, client: str, data: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE)
    sock.sendall(f"PROXY TCP4 {client} 192.0.2.1 5678 80\r\n".encode() + data)
    return sock


async def read(sock: socket.socket) -> bytes:
    return await trio.to_thread.run_sync(sock.recv, 4096)


async def test_a_slowloris_has_its_share_and_others_are_served(tmp_path: Path) -> None:
    port = free_port()
    entry = {
        "address": f"127.0.0.1:{port}",
        "proxyProtocol": {"trustedIPs": ["127.0.0.1"]},
        "maxPendingPerAddress": 3,
        "maxConnectionsPerAddress": 5,
    }
    async with (
        backend() as behind,
        daemon(tmp_path, [behind.url], port=port, entryPoints={"web": entry}) as running,
    ):
        slow = [connect(running, "203.0.113.7", b"GET / HT") for _ in range(4)]
        # Whichever of them was looked at last; the others get no answer before readTimeout.
        [refused], _, _ = await trio.to_thread.run_sync(select.select, slow, [], [], PATIENCE / 2)
        answer = await read(refused)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"Retry-After: 5\r\n" in answer
        line = await running.logged("too many connections of one address, refusing more")
        assert line["client"] == "203.0.113.7:5678"
        # Somebody else, and the proxy itself, are served meanwhile.
        with connect(running, "203.0.113.8", opening()) as other:
            assert (await read(other)).startswith(b"HTTP/1.1 101 ")
        for sock in slow:
            sock.close()
        sessions: list[socket.socket] = []
        while len(sessions) < 5:  # the places come back as the daemon notices
            sock = connect(running, "203.0.113.7", opening())
            if (await read(sock)).startswith(b"HTTP/1.1 101 "):
                sessions.append(sock)
            else:
                sock.close()
        with connect(running, "203.0.113.7", opening()) as sixth:
            assert (await read(sixth)).startswith(b"HTTP/1.1 429 ")
        for sock in sessions:
            sock.close()
