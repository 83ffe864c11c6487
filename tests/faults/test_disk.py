"""A disk that is full under the access log stops the log and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.harness import Running, backend, echo
from tests.daemon.waiting import eventually
from tests.faults.stage import RELAYS, World, balancers, world

pytestmark = pytest.mark.daemon

SESSIONS = 4


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Mount a disk of 64 KiB at `path`."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    tried = subprocess.run(mount, capture_output=True, text=True) if os.geteuid() == 0 else None
    if tried is None or tried.returncode:
        pytest.skip("a small tmpfs cannot be mounted here: it takes CAP_SYS_ADMIN")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


async def talk(found: World) -> None:
    """Open and end sessions under both relays."""
    for index in range(SESSIONS):
        connection = await found.connect(f"/chat-{RELAYS[index % 2]}")
        await echo(connection, "hello")
        await connection.aclose()


async def troubled(found: World) -> bool:
    return bool((await found.status())["accessLog"]["problem"])


async def test_a_device_that_is_always_full(tmp_path: Path) -> None:
    async with (
        backend() as other,
        world(tmp_path, balancers("chat", [other.url]), accessLog={"filePath": "/dev/full"}) as found,
    ):
        await talk(found)
        line = await found.daemon.logged("access log cannot be written")
        assert line["reason"] == "no space left on device"
        await talk(found)
        assert len(found.logged("access log cannot be written")) == 1
        shown = (await found.status())["accessLog"]
        assert (shown["file"], shown["problem"]) == ("/dev/full", "no space left on device")
        assert shown["linesWaiting"] + shown["linesLost"] >= 2 * SESSIONS
        async with Running.start("status", "--socket", str(tmp_path / "control.sock")) as screen:
            await screen.line("no space left on device")


async def test_a_disk_that_fills_up_and_is_cleared(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        filler, log = disk / "filler", disk / "access.log"
        settings = {"filePath": str(log), "format": "json"}
        async with (
            backend() as other,
            world(tmp_path, balancers("chat", [other.url]), accessLog=settings) as found,
        ):
            await talk(found)

            async def all_there() -> bool:
                return len(lines(log)) >= 2 * SESSIONS

            await eventually(all_there, what="lines are written")
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(b"x" * 2**20)
            # What is left of the last page takes some lines still.
            while not await troubled(found):
                await talk(found)
            assert len(found.logged("access log cannot be written")) == 1
            filler.unlink()
            line = await found.daemon.logged("access log is written again")
            assert line["linesLost"] == 0
            await eventually(lambda: fine(found), what="status says so too")
            sessions = len(found.logged("session ended"))

            async def every_one() -> bool:
                ended = [json.loads(text) for text in lines(log)]
                return [each["event"] for each in ended].count("session_ended") == sessions

            await eventually(every_one, what="no line is lost, and none is torn")


async def fine(found: World) -> bool:
    return not await troubled(found)


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines()
