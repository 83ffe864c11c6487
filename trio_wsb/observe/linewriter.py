"""Writes lines to a file from a thread, so that no disk ever stops traffic.

Lines are queued on the event loop and written in batches. What cannot be written is kept, within bounds, and tried again
each second; what is over the bound is lost, and counted. An operator is told once when that begins and once when it is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import structlog
import trio
from attrs import frozen

from trio_wsb.observe.linefile import LineFile

log = structlog.stdlib.get_logger("trio_wsb.accesslog")

MAX_QUEUED: Final = 16 * 2**20
"""Characters that wait to be written, about as many bytes; some forty thousand lines."""

GATHER: Final = 0.05
"""Seconds between two batches: a thread for each line would cost more than the line."""

FLUSH_INTERVAL: Final = 1.0
"""Seconds that a line waits at most for others to be written with, and between two tries when writing fails."""

FINISH_TIMEOUT: Final = 2.0
"""Seconds for what is left when the writer ends."""

BATCH: Final = 2**20
"""Characters written at once: the thread holds the interpreter while it encodes them."""


@frozen
class _Attempt:
    """What came of an attempt to write: bytes that are dealt with, lines of them that were torn and given up."""

    written: int
    torn: int
    opened: bool
    error: OSError | None


InThread: TypeAlias = Callable[[Callable[[], _Attempt]], Awaitable[_Attempt]]


async def _in_thread(work: Callable[[], _Attempt]) -> _Attempt:
    # One that hangs in a disk is left behind at the end.
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


class LineWriter:
    """Writes the lines that it is given to one file, in their order.

    Args:
      name: what the file is called in the log.
      open_file: opens the file to append to; may block and raise OSError. The file is the writer's.
      buffering: lines to collect before they are written.
      in_thread: runs what may block; another one keeps tests in virtual time.

    Nothing is written before `run` runs; lines are queued meanwhile.
    """

    def __init__(
        self,
        name: str,
        open_file: Callable[[], LineFile],
        *,
        buffering: int = 0,
        in_thread: InThread | None = None,
    ) -> None:
        self.name = name
        self.buffering = buffering
        self.lost = 0
        """Lines that were never written, since the start."""
        self.problem: str | None = None
        """Why lines are not written, as long as that lasts."""
        self._open_file = open_file
        self._file: LineFile | None = None
        self._lines: list[str] = []
        self._size = 0
        self._rest = b""  # of the batch that could not be written as a whole
        self._torn = False  # the file ends amid a line, whose other part is at the beginning of the rest
        self._reopen = False
        self._wanted = trio.Event()
        self._finishing = trio.Event()
        self._lost_before = 0
        self._in_thread = in_thread or _in_thread

    @property
    def queued(self) -> int:
        """Lines that wait to be written."""
        return len(self._lines) + self._rest.count(b"\n")

    def put(self, line: str) -> None:
        """Queue a line, with its end, or count it as lost when too much waits already."""
        size = len(line)
        if self._size + size > MAX_QUEUED:
            self._begin_trouble("it takes too long")
            self.lost += 1
            return
        self._lines.append(line)
        self._size += size
        if len(self._lines) >= self.buffering:
            self._wanted.set()

    def reopen(self) -> None:
        """Open the file anew before the next line is written: what had its name has another one now."""
        self._reopen = True
        self._wanted.set()

    async def run(self) -> None:
        """Write until cancelled, and then what is left as far as that is possible in `FINISH_TIMEOUT` seconds."""
        # A write that was cut short would have lost its position, so a cancellation only bounds the time that is left.
        scope = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work, scope)
            try:
                await trio.sleep_forever()
            finally:
                scope.deadline = trio.current_time() + FINISH_TIMEOUT
                self._finishing.set()
                self._wanted.set()

    async def _work(self, scope: trio.CancelScope) -> None:
        with scope:
            written = await self._write()  # opens the file, so that one that cannot be is known at once
            while not self._finishing.is_set() or (written and self.queued):
                await self._pause(GATHER if written else FLUSH_INTERVAL)
                if written:
                    await self._wait()
                written = await self._write()
        if self.queued:
            self.lost += self.queued
            log.error("access log ends, lines lost", file=self.name, linesLost=self.queued)
        self._lines, self._rest, self._size = [], b"", 0
        if self._file is not None and not scope.cancelled_caught:  # else a thread still uses it
            self._file.close()
            self._file = None

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._finishing.wait()

    async def _wait(self) -> None:
        """Wait until there is something to do: enough lines, or any for a second, or another file."""
        while not self._finishing.is_set():
            with trio.move_on_after(FLUSH_INTERVAL):
                await self._wanted.wait()
                return
            if self._lines:
                return

    async def _write(self) -> bool:
        """Write a batch; whether that worked. What could not be written is the beginning of the next one."""
        self._wanted = trio.Event()
        reopen, self._reopen = self._reopen, False
        if not self._rest:
            self._take()
        data = self._rest
        attempt = await self._in_thread(partial(self._attempt, data, reopen))
        self._rest = data[attempt.written :]
        self._size -= attempt.written
        self.lost += attempt.torn
        self._torn = self._rest != b"" and (
            (attempt.written == 0 and self._torn) or _ends_amid_line(data, attempt.written)
        )
        if self._lines or self._reopen:
            self._wanted.set()
        if attempt.error is not None:
            self._reopen = self._reopen or (reopen and not attempt.opened)
            self._begin_trouble(attempt.error.strerror or str(attempt.error))
            return False
        self._end_trouble()
        return True

    def _take(self) -> None:
        """Make the next batch of what is queued."""
        taken, size = 0, 0
        for line in self._lines:
            if size >= BATCH:
                break
            size += len(line)
            taken += 1
        self._rest = "".join(self._lines[:taken]).encode("ascii", "backslashreplace")
        # Lines are ASCII; one that is not takes more room than it was counted for.
        self._size += len(self._rest) - size
        del self._lines[:taken]

    def _attempt(self, data: bytes, reopen: bool) -> _Attempt:
        """Write what can be written of `data`. Runs in a thread, and has the file to itself meanwhile."""
        opened, torn, written, failure = False, 0, 0, None
        try:
            if self._file is None or reopen or self._file.vanished:
                try:
                    self._change_file(self._open_file())
                    opened = True
                except OSError as error:
                    if self._file is None or self._file.vanished:
                        raise
                    failure = error  # that it has still does
            if opened and self._torn:
                written, torn = data.index(b"\n") + 1, 1
            assert self._file is not None
            view = memoryview(data)
            while written < len(data):
                written += self._file.write(view[written:])
        except OSError as error:
            failure = error
        return _Attempt(written, torn, opened, failure)

    def _change_file(self, fresh: LineFile) -> None:
        old, self._file = self._file, fresh
        if old is not None:
            old.close()

    def _begin_trouble(self, reason: str) -> None:
        if self.problem is not None:
            return
        self.problem, self._lost_before = reason.lower(), self.lost
        log.error(
            "access log cannot be written", file=self.name, reason=self.problem, linesWaiting=self.queued
        )

    def _end_trouble(self) -> None:
        # With much still waiting the next line may be lost again, and that would be told again.
        if self.problem is not None and self._size <= MAX_QUEUED // 2:
            self.problem = None
            log.warning(
                "access log is written again", file=self.name, linesLost=self.lost - self._lost_before
            )


def _ends_amid_line(data: bytes, position: int) -> bool:
    return position > 0 and data[position - 1] != 0x0A
