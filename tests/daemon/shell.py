"""Somebody with a shell on the daemon's machine: commands, curl, and a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.daemon.harness import PATIENCE, http_client


class Operator:
    """Runs commands that find the daemon by its socket."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.environment = {**os.environ, "TRIO_WSB_SOCKET": str(socket_path), "COLUMNS": "80"}

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command and return its exit status, its output and its complaints."""
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                [sys.executable, "-m", "trio_wsb", *arguments],
                env=self.environment,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    async def json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it prints."""
        status, out, err = await self.run(*arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    async def curl(self, method: str, path: str) -> httpx.Response:
        """Ask as ``curl --unix-socket`` does."""
        async with http_client(uds=str(self.socket_path)) as client:
            return await client.request(method, f"http://localhost{path}")


@asynccontextmanager
async def at_a_terminal(
    operator: Operator, *arguments: str
) -> AsyncIterator[tuple[trio.Process, Callable[[str], Awaitable[None]]]]:
    """Run a command in a terminal; what is yielded beside it waits until the terminal has shown a text."""
    control, terminal = pty.openpty()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "trio_wsb", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env=operator.environment | {"LINES": "24", "TERM": "xterm"},
    )
    shown = ""

    async def see(wanted: str) -> None:
        nonlocal shown
        with trio.fail_after(PATIENCE):
            while wanted not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown):
                await trio.lowlevel.wait_readable(control)
                shown += os.read(control, 65536).decode()

    try:
        yield process, see
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        os.close(terminal)
        os.close(control)
