"""A client of Node: its library `ws` where that is installed, its own WebSocket otherwise."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.harness import PATIENCE
from tests.interop.peers.endpoint import Deflate, End, Policy
from tests.interop.stage import stage

pytestmark = pytest.mark.daemon

SCRIPT = Path(__file__).parent / "peers" / "client.mjs"


@cache
def command() -> list[str]:
    """Return how to run the client, or nothing when there is none."""
    node = shutil.which("node")
    if node is None:
        return []
    # The flag is needed from version 20.10 to 21; earlier ones do not know it.
    for flags in ([], ["--experimental-websocket"]):
        done = subprocess.run([node, *flags, str(SCRIPT)], capture_output=True, timeout=PATIENCE)
        if done.returncode == 0 and json.loads(done.stdout)["library"] is not None:
            return [node, *flags, str(SCRIPT)]
    return []


async def echo(server: End) -> None:
    for _ in range(4):
        await server.send(await server.receive())


@pytest.mark.parametrize("server_name", ["websockets", "wsproto"])
async def test_a_client_of_node(tmp_path: Path, server_name: str) -> None:
    program = command()
    if not program:
        pytest.skip("node with ws or with a WebSocket of its own is not installed")
    policy = Policy(subprotocols=("chat.v1",), deflate=Deflate())
    async with stage(tmp_path, server_name, policy=policy) as on:
        said: dict[str, Any] = {}

        async def run() -> None:
            done = await trio.run_process([*program, f"{on.daemon.ws}/{server_name}/"], capture_stdout=True)
            said.update(json.loads(done.stdout))

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                server = await on.servers[server_name].accept()
                await echo(server)
                closing = await server.closed()
        assert (closing.code, closing.reason) == (4321, "node is done")
        assert said["echoed"] is True
        assert (said["code"], said["wasClean"], said["protocol"]) == (4321, True, "chat.v1")
        line = await on.daemon.logged("session ended")
        assert (line["cause"], line["closeCode"]) == ("client_closed", 4321)
        assert (line["messagesIn"], line["messagesOut"]) == (4, 4)
        assert server.sent.wire is not None
        assert server.received.wire is not None
        assert (line["bytesIn"], line["bytesOut"]) == (
            server.received.wire.bytes,
            server.sent.wire.bytes,
        )
