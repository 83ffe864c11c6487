"""The writer of lines: order, batches, rotation, and disks that are full, gone or slow. Virtual time, a file of our own."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.observe import linewriter
from trio_wsb.observe.linewriter import FINISH_TIMEOUT, FLUSH_INTERVAL, GATHER, LineWriter

Log = Sequence[MutableMapping[str, Any]]


@define(eq=False)
class Disk:
    """A file and what may happen to it."""

    content: bytearray = field(factory=bytearray)
    opened: int = 0
    closed: int = 0
    writes: int = 0
    room: int = 1 << 40
    """Bytes that still fit."""
    broken: OSError | None = None
    openable: bool = True
    vanished: bool = False
    gate: trio.Event | None = None
    """Writes wait for it."""

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        """Stand for the thread, which is in no virtual time."""
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        return work()

    def open(self) -> Disk:
        if not self.openable:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        self.opened += 1
        self.vanished = False
        return self

    def write(self, data: bytes | memoryview) -> int:
        self.writes += 1
        if self.broken is not None:
            raise self.broken
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = data[: self.room]
        self.room -= len(taken)
        self.content += taken
        return len(taken)

    def close(self) -> None:
        self.closed += 1

    @property
    def lines(self) -> list[str]:
        return self.content.decode().splitlines()


@pytest.fixture
def logs() -> Log:
    return []


@asynccontextmanager
async def writing(
    disk: Disk, *, buffering: int = 0, open_file: Callable[[], Disk] | None = None
) -> AsyncIterator[tuple[LineWriter, Log]]:
    writer = LineWriter("a.log", open_file or disk.open, buffering=buffering, in_thread=disk.in_thread)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            yield writer, logs
            nursery.cancel_scope.cancel()


async def some_time(seconds: float = 3 * FLUSH_INTERVAL) -> None:
    await trio.sleep(seconds)


def events(logs: Log) -> list[str]:
    return [each["event"] for each in logs]


async def test_lines_are_written_in_order_and_in_batches(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk()
    async with writing(disk) as (writer, logs):
        for round_ in range(20):
            for number in range(50):
                writer.put(f"{round_}.{number}\n")
            await some_time(GATHER / 4)
        await some_time()
        assert disk.lines == [f"{round_}.{number}" for round_ in range(20) for number in range(50)]
        assert disk.writes <= 10
        assert writer.queued == 0
    assert (disk.opened, disk.closed, list(logs), writer.lost) == (1, 1, [], 0)


async def test_what_is_queued_before_it_runs_and_at_the_end_is_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk()
    writer = LineWriter("a.log", disk.open, buffering=1000, in_thread=disk.in_thread)
    writer.put("early\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await some_time()
        assert disk.lines == ["early"]
        writer.put("late\n")
        nursery.cancel_scope.cancel()
    assert disk.lines == ["early", "late"]
    assert disk.closed == 1


async def test_buffered_lines_wait_for_company_or_a_second(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk()
    async with writing(disk, buffering=3) as (writer, _):
        await some_time()
        start = trio.current_time()
        writer.put("1\n")
        writer.put("2\n")
        while not disk.lines:
            await trio.sleep(0.01)
        assert trio.current_time() - start <= FLUSH_INTERVAL + 2 * GATHER
        await some_time()
        writes = disk.writes
        for _ in range(3):
            writer.put("x\n")
        await some_time(2 * GATHER)
        assert disk.writes == writes + 1


async def test_the_file_is_opened_at_once(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk(openable=False)
    async with writing(disk) as (_, logs):
        await some_time()
        assert events(logs) == ["access log cannot be written"]
        assert (logs[0]["file"], logs[0]["reason"]) == ("a.log", "permission denied")


async def test_a_full_disk(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk(room=10)
    async with writing(disk) as (writer, logs):
        for number in range(100):
            writer.put(f"line {number}\n")
            await some_time(0.2)
        assert events(logs) == ["access log cannot be written"]
        assert logs[0]["reason"] == "no space left on device"
        assert logs[0]["log_level"] == "error"
        disk.room = 1 << 30
        await some_time()
        assert events(logs)[1:] == ["access log is written again"]
        assert logs[1]["linesLost"] == 0
    # The line that was torn when the disk was full is whole.
    assert disk.lines == [f"line {number}" for number in range(100)]


async def test_what_does_not_fit_is_lost_and_counted(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linewriter, "MAX_QUEUED", 100)
    disk = Disk(room=0)
    async with writing(disk) as (writer, logs):
        await some_time()
        for number in range(10, 60):
            writer.put(f"line {number}\n")
        assert writer.lost == 38
        await some_time()
        disk.room = 1 << 30
        await some_time()
        assert events(logs) == ["access log cannot be written", "access log is written again"]
        assert logs[1]["linesLost"] == 38
        assert disk.lines == [f"line {number}" for number in range(10, 22)]
        # And from the beginning again.
        disk.room = 0
        writer.put("kept\n")
        await some_time()
        disk.room = 1 << 30
        await some_time()
        assert events(logs)[2:] == ["access log cannot be written", "access log is written again"]
        assert logs[3]["linesLost"] == 0
        assert disk.lines[-1] == "kept"


async def test_a_slow_disk_stops_nobody(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linewriter, "MAX_QUEUED", 1000)
    disk = Disk(gate=trio.Event())
    assert disk.gate is not None
    async with writing(disk) as (writer, logs):
        for _ in range(1000):
            writer.put("123456789\n")
        assert writer.lost == 900
        assert events(logs) == ["access log cannot be written"]
        assert logs[0]["reason"] == "it takes too long"
        disk.gate.set()
        await some_time()
        assert events(logs)[1:] == ["access log is written again"]
        assert logs[1]["linesLost"] == 900
    assert len(disk.lines) == 100


async def test_a_disk_that_hangs_does_not_hold_the_end_up(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk(gate=trio.Event())
    assert disk.gate is not None
    start = trio.current_time()
    async with writing(disk) as (writer, logs):
        writer.put("stuck\n")
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() - start <= FINISH_TIMEOUT + 1
    assert events(logs) == ["access log ends, lines lost"]
    assert (logs[0]["linesLost"], writer.lost) == (1, 1)
    assert disk.closed == 0  # a thread may still use it


async def test_at_the_end_a_full_disk_is_tried_once_more(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk(room=0)
    async with writing(disk) as (writer, logs):
        writer.put("a\n")
        writer.put("b\n")
        await some_time()
    assert events(logs) == ["access log cannot be written", "access log ends, lines lost"]
    assert logs[1]["linesLost"] == 2

    disk = Disk(room=0)
    async with writing(disk) as (writer, logs):
        writer.put("a\n")
        await some_time()
        disk.room = 100
    assert disk.lines == ["a"]
    assert events(logs)[1:] == ["access log is written again"]


async def test_rotation(autojump_clock: trio.testing.MockClock) -> None:
    old, new = Disk(), Disk()
    files = [old, new]
    async with writing(old, open_file=lambda: files.pop(0).open()) as (writer, logs):
        writer.put("before\n")
        await some_time()
        writer.put("while it is moved\n")
        writer.reopen()
        writer.put("after\n")
        await some_time()
    # What was queued goes to the new file: the old one may be compressed by now.
    assert (old.lines, new.lines) == (["before"], ["while it is moved", "after"])
    assert (old.closed, new.closed, list(logs)) == (1, 1, [])


async def test_a_new_file_that_cannot_be_opened_leaves_the_old_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = Disk()
    async with writing(disk) as (writer, logs):
        await some_time()
        disk.openable = False
        writer.reopen()
        writer.put("a\n")
        await some_time()
        assert disk.lines == ["a"]
        assert events(logs) == ["access log cannot be written"]
        disk.openable = True
        await some_time()
        assert disk.opened == 2
        assert events(logs)[1:] == ["access log is written again"]


async def test_a_file_that_was_removed_is_made_again(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk()
    async with writing(disk) as (writer, logs):
        await some_time()
        disk.vanished, disk.openable = True, False
        writer.put("a\n")
        await some_time()
        assert disk.lines == []
        assert events(logs) == ["access log cannot be written"]
        disk.openable = True
        await some_time()
        assert disk.lines == ["a"]


async def test_a_torn_line_is_not_continued_in_another_file(autojump_clock: trio.testing.MockClock) -> None:
    old, new = Disk(room=4), Disk()
    files = [old, new]
    async with writing(old, open_file=lambda: files.pop(0).open()) as (writer, logs):
        writer.put("first\n")
        writer.put("second\n")
        await some_time()
        writer.reopen()
        await some_time()
    assert (old.lines, new.lines) == (["firs"], ["second"])
    assert logs[1]["linesLost"] == 1


@given(
    st.lists(st.one_of(st.integers(1, 30), st.just("full"), st.just("room"), st.just("wait")), max_size=40),
    st.integers(0, 5),
)
def test_nothing_is_lost_or_torn_whatever_the_disk_does(steps: list[int | str], buffering: int) -> None:
    async def main() -> None:
        disk, wanted = Disk(), list[str]()
        async with writing(disk, buffering=buffering) as (writer, _):
            for step in steps:
                match step:
                    case int(size):
                        wanted.append(f"{len(wanted)}:" + "x" * size)
                        writer.put(wanted[-1] + "\n")
                    case "full":
                        disk.room = len(wanted) % 7
                    case "room":
                        disk.room = 1 << 30
                    case _:
                        await some_time(0.3)
            disk.room = 1 << 30
        assert disk.lines == wanted
        assert writer.lost == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
