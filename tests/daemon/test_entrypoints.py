"""Entry points of the running daemon: Unix sockets, PROXY headers, redirections, middlewares of their own."""

from __future__ import annotations

import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import wrap_client_stream

from tests.daemon.harness import (
    PATIENCE,
    Backend,
    Running,
    backend,
    clients,
    daemon,
    echo,
    free_port,
    http_client,
)

LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 5678 443\r\n"


@pytest.fixture
async def one() -> AsyncIterator[Backend]:
    async with backend() as started:
        yield started


def http(pod: Backend, **middlewares: Any) -> dict[str, Any]:
    return {
        "services": {"chat": {"loadBalancer": {"servers": [{"url": pod.url}]}}},
        "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "chat"}},
        "middlewares": {"mark": {"headers": {"customResponseHeaders": {"X-Entry": "yes"}}}, **middlewares},
    }


async def ask(url: str, *, path: str | None = None, **options: Any) -> httpx.Response:
    async with http_client(uds=path) as client:
        return await client.get(url, **options)


@pytest.mark.daemon
async def test_a_unix_socket(one: Backend, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # what a daemon that was killed has left
    places = {
        "web": {
            "address": f"unix:{path}",
            "unixSocket": {"mode": "0666"},
            "forwardedHeaders": {"insecure": True},
        }
    }
    async with daemon(tmp_path, [], entryPoints=places, http=http(one)) as running, clients() as held:
        await running.logged("listening", address=f"unix:{path}")
        assert stat.S_IMODE(path.lstat().st_mode) == 0o666
        answer = await ask("http://chat.example/api/stats", path=str(path))
        assert answer.status_code == 200
        assert "date" in answer.headers
        stream = await trio.open_unix_socket(str(path))
        forwarded = [(b"X-Forwarded-For", b"203.0.113.7")]
        session = await wrap_client_stream(
            held._nursery, stream, "chat.example", "/ws", extra_headers=forwarded
        )
        await echo(session, "over a path")
        await running.logged("session opened", client="203.0.113.7")
        inode = path.lstat().st_ino
        await running.reload(count=1)
        assert path.lstat().st_ino == inode
        await echo(session, "and still")
        await session.aclose()
        running.document["entryPoints"] = {"web": {"address": f"127.0.0.1:{free_port()}"}}
        running.write()
        await running.reload(count=2)
        await running.logged("no longer listening", address=f"unix:{path}")
        assert not path.exists()
        running.document["entryPoints"] = places
        running.write()
        await running.reload(count=3)
        assert path.exists()
        running.running.signal(signal.SIGTERM)
        assert await running.running.exit() == 0
        assert not path.exists()


@pytest.mark.daemon
async def test_a_path_that_cannot_be_listened_at_keeps_what_is_in_force(one: Backend, tmp_path: Path) -> None:
    async with daemon(tmp_path, [], http=http(one)) as running:
        places = running.document["entryPoints"]
        places["local"] = {"address": f"unix:{tmp_path}/not/there.sock"}
        running.write()
        running.running.signal(signal.SIGHUP)
        line = await running.logged("configuration problem")
        assert line["problem"] == (
            f"entryPoints.local.address: cannot listen at unix:{tmp_path}/not/there.sock: its directory is not there"
        )
        assert (await ask(f"{running.url}/api/stats")).status_code == 200


@pytest.mark.daemon
async def test_the_client_is_who_the_proxy_says(one: Backend, tmp_path: Path) -> None:
    port = free_port()
    places = {"web": {"address": f"127.0.0.1:{port}", "proxyProtocol": {"trustedIPs": ["127.0.0.1"]}}}
    allow = {"ipAllowList": {"sourceRange": ["203.0.113.7"]}}
    document = http(one, allow=allow)
    document["routers"]["all"]["middlewares"] = ["allow"]
    async with (
        daemon(tmp_path, [], port=port, entryPoints=places, http=document) as running,
        clients() as held,
    ):
        assert (await ask(f"{running.url}/api/stats")).status_code == 403
        # What a header says makes nobody a program on this host.
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(LINE.replace(b"203.0.113.7", b"127.0.0.1"))
            sock.sendall(b"GET /balancer-metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b" 403 " in sock.recv(4096)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        for byte in LINE:
            await stream.send_all(bytes([byte]))
        session = await wrap_client_stream(held._nursery, stream, "chat.example", "/ws")
        held.connections.append(session)
        await echo(session, "behind a proxy")
        await running.logged("session opened", client="203.0.113.7:5678")


@pytest.mark.daemon
async def test_everything_is_sent_to_the_port_of_another_entry_point(one: Backend, tmp_path: Path) -> None:
    port, secure = free_port(), free_port()
    places = {
        "web": {
            "address": f"127.0.0.1:{port}",
            "http": {"redirections": {"entryPoint": {"to": "websecure"}}},
        },
        "websecure": {"address": f"127.0.0.1:{secure}", "http": {"middlewares": ["mark"]}},
    }
    async with daemon(tmp_path, [], port=port, entryPoints=places, http=http(one)) as running:
        answer = await ask(f"{running.url}/chat?room=1")
        assert answer.status_code == 301
        assert answer.headers["location"] == f"https://127.0.0.1:{secure}/chat?room=1"
        assert (await ask(f"{running.url}/ping")).status_code == 200
        answer = await ask(f"http://127.0.0.1:{secure}/api/stats")
        assert (answer.status_code, answer.headers["x-entry"]) == (200, "yes")
        socket_path: str = running.document["control"]["socket"]
        wide = {"COLUMNS": "120"}
        async with Running.start("status", "--socket", socket_path, environment=wide) as shown:
            await shown.line(
                f"sends requests to https, port {secure}, permanently (web-to-websecure@internal)"
            )
            assert await shown.exit() == 0


@pytest.mark.daemon
async def test_nothing_passes_where_a_middleware_is_missing(one: Backend, tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    places = {
        "web": {"address": f"127.0.0.1:{port}", "http": {"middlewares": ["mark"]}},
        "other": {"address": f"127.0.0.1:{other}"},
    }
    async with daemon(tmp_path, [], port=port, entryPoints=places, http=http(one)) as running:
        assert (await ask(f"{running.url}/api/stats")).headers["x-entry"] == "yes"
        running.document["entryPoints"]["web"]["http"]["middlewares"] = ["mark", "auth"]
        running.write()
        await running.reload(count=1)
        line = await running.logged("router disabled")
        assert (line["router"], line["entryPoints"]) == ("all", ["web"])
        assert 'no middleware "auth" is defined' in line["reason"]
        assert (await ask(f"{running.url}/api/stats")).status_code == 404
        assert (await ask(f"{running.url}/balancer-metrics")).status_code == 404
        assert (await ask(f"{running.url}/ping")).status_code == 200
        assert (await ask(f"http://127.0.0.1:{other}/api/stats")).status_code == 200


@pytest.mark.daemon
async def test_an_idle_connection_ends_with_its_entry_point(one: Backend, tmp_path: Path) -> None:
    async with daemon(tmp_path, [], http=http(one)) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await stream.send_all(b"GET /api/stats HTTP/1.1\r\nHost: chat.example\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            running.document["entryPoints"] = {"elsewhere": {"address": f"127.0.0.1:{free_port()}"}}
            running.write()
            await running.reload(count=1)
            with trio.fail_after(PATIENCE):
                while await stream.receive_some():
                    pass
