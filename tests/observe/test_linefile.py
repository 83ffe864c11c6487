"""The file that lines are appended to: made, moved, removed, full, a FIFO, and the real writer's thread on top of it."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio

from trio_wsb.observe.linefile import open_to_append
from trio_wsb.observe.linewriter import LineWriter


def test_it_is_made_with_its_directory_for_its_group_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "access.log"
    before = os.umask(0o022)
    try:
        file = open_to_append(str(path))
    finally:
        os.umask(before)
    assert file.write(b"one\n") == 4
    file.close()
    again = open_to_append(str(path))
    again.write(b"two\n")
    again.close()
    again.close()  # no harm
    assert path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_moved_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    file = open_to_append(str(path))
    path.rename(tmp_path / "access.log.1")
    before = file.vanished
    (tmp_path / "access.log.1").unlink()
    assert (before, file.vanished) == (False, True)
    file.close()


@pytest.mark.parametrize("path", [None, "/dev/stdout", "/dev/stderr"])
def test_our_own_streams(path: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    file = open_to_append(path)
    file.write(b"line\n")
    assert not file.vanished
    file.close()
    captured = capfd.readouterr()
    assert (captured.err if path == "/dev/stderr" else captured.out) == "line\n"


def test_a_fifo_that_nobody_reads(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(OSError, match="nobody reads the FIFO") as caught:
        open_to_append(str(path))
    assert caught.value.errno == errno.ENXIO
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = open_to_append(str(path))
    file.write(b"line\n")
    assert os.read(reader, 100) == b"line\n"
    assert not file.vanished
    file.close()
    os.close(reader)


def test_a_full_device() -> None:
    file = open_to_append("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        file.write(b"line\n")
    assert caught.value.errno == errno.ENOSPC
    file.close()


async def test_the_writer_on_a_full_device() -> None:
    writer = LineWriter("/dev/full", partial(open_to_append, "/dev/full"))
    with structlog.testing.capture_logs() as logs, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            writer.put("line\n")
            while not logs:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    assert [each["event"] for each in logs] == ["access log cannot be written", "access log ends, lines lost"]
    assert logs[0]["reason"] == "no space left on device"


async def test_the_writer_with_files_that_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access.log"
    writer = LineWriter(str(path), partial(open_to_append, str(path)))

    async def written(file: Path, text: str) -> None:
        while not file.exists() or file.read_text() != text:
            await trio.sleep(0.001)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            writer.put("first\n")
            await written(path, "first\n")
            moved = path.with_name("access.log.1")
            path.rename(moved)
            writer.put("second\n")
            await written(moved, "first\nsecond\n")
            writer.reopen()
            writer.put("third\n")
            await written(path, "third\n")
            path.unlink()
            moved.unlink()
            path.parent.rmdir()
            writer.put("fourth\n")
            await written(path, "fourth\n")
            writer.put("fifth\n")
            nursery.cancel_scope.cancel()
    assert path.read_text() == "fourth\nfifth\n"
