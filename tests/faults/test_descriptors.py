"""No descriptors left: accepting waits without spinning, nobody healthy pays, and it goes on when there are some again."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.daemon.harness import PATIENCE, Running, backend, echo
from tests.daemon.waiting import eventually
from tests.faults.stage import balancers, world
from tests.opening import opening

pytestmark = pytest.mark.daemon

LIMIT = 96
"""Descriptors of the daemon, of which the six healthy sessions have twelve; the reserve is an eighth."""

HEALTHY = 7
CROWD = 90
CHECK = {"path": "/api/health", "interval": "200ms", "timeout": "2s", "fall": 1}


async def test_descriptors_run_out(tmp_path: Path) -> None:
    limited = ("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh")
    async with (
        backend(name="other") as other,
        world(tmp_path, balancers("chat", [other.url], healthCheck=CHECK), under=limited) as found,
    ):
        # A session from before, which must not be asked to pay either.
        session = await found.connect("/chat-stream")
        crowd = [await trio.open_tcp_stream("127.0.0.1", found.daemon.port) for _ in range(CROWD)]
        line = await found.daemon.logged("cannot accept connections, waiting", entryPoint="web")
        assert line["error"] == "Too many open files"
        await echo(session, "still here")
        await found.bystanders.go_on()
        # The control socket answers, and says what is the matter.
        [entry] = [each for each in (await found.status())["entryPoints"] if each["name"] == "web"]
        assert entry["waiting"] is True
        async with Running.start("status", "--socket", str(tmp_path / "control.sock")) as shown:
            await shown.line("clients wait: no descriptors left")
        # It waits instead of spinning: a loop around accept would take all of a processor.
        before, now = found.cpu_seconds(), trio.current_time()
        await trio.sleep(1.0)
        assert found.cpu_seconds() - before < 0.6 * (trio.current_time() - now)
        # All who were let in ask for a session at once: there are not enough descriptors to dial for all of them.
        for stream in crowd:
            await stream.send_all(opening("/chat-kernel"))
        first = [await answer(stream) for stream in crowd[:5]]
        assert {head[9:12] for head in first} <= {b"101", b"503"}
        await found.daemon.logged("cannot dial", reason="too many open files")
        # No backend is blamed for it, by its sessions or its checks.
        view = await found.backend(other.url)
        assert (view["failures"], view["state"], view["health"]["up"]) == (0, "ready", True)
        # Somebody who has waited since then is served when others leave.
        late = await trio.open_tcp_stream("127.0.0.1", found.daemon.port)
        for stream in crowd:
            await stream.aclose()
        await found.daemon.logged("accepting connections again", entryPoint="web")

        async def they_have_left() -> bool:
            [entry] = [each for each in (await found.status())["entryPoints"] if each["name"] == "web"]
            return bool(entry["connections"] <= HEALTHY + 1)

        await eventually(they_have_left, what="who has gone gives back what was taken for it")
        await late.send_all(opening("/chat-stream"))
        assert (await answer(late)).startswith(b"HTTP/1.1 101 ")
        await late.aclose()
        await echo(session, "and still")
        assert found.logged("backend down") == []
        assert found.logged("backend failed") == []

        async def one_line_each() -> bool:
            begun, over = (
                len(found.logged(msg, entryPoint="web"))
                for msg in ("cannot accept connections, waiting", "accepting connections again")
            )
            return begun == over

        await eventually(one_line_each, what="each wait has an end")
        assert len(found.logged("cannot accept connections, waiting")) <= 3


async def answer(stream: trio.SocketStream) -> bytes:
    """Return the first bytes of the answer."""
    with trio.fail_after(PATIENCE):
        return bytes(await stream.receive_some(4096))
