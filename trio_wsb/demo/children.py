"""The demo's child processes: each in a process group of its own, watched, and never left behind.

Ctrl-C in a terminal reaches the demo alone, so that it can end its children in the right order. When the
demo itself is killed, the kernel kills them (`trio_wsb.demo.leash`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from trio_wsb.demo.leash import leashed
from trio_wsb.errors import Error

TAIL_LINES = 12
LINE_LIMIT = 64 * 1024


class ChildDiedError(Error):
    """A child ended before its time; the message has the end of its log."""


class Child:
    """A running process, owned by its `Children`.

    `name` is what people call it, `log` the file that has its standard error (and its standard output,
    unless that is read here).
    """

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self.expected_to_end = False
        """Set before it is told to stop, so that its end is no surprise."""
        self._popen = popen
        self._pidfd = os.pidfd_open(popen.pid)
        self._output = popen.stdout
        if self._output is not None:
            os.set_blocking(self._output.fileno(), False)
        self._pending = b""
        self._ended = trio.Event()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        return self._popen.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process; nothing happens when it has ended."""
        if number in {signal.SIGTERM, signal.SIGKILL}:
            self.expected_to_end = True
        self._popen.send_signal(number)

    async def wait(self) -> None:
        """Wait for its end, which `watch` has to notice."""
        await self._ended.wait()

    async def watch(self) -> None:
        """Wait for its end; to be run by one task, once.

        Raises:
          ChildDiedError: nobody had told it to end.

        """
        while self._popen.poll() is None:
            await trio.lowlevel.wait_readable(self._pidfd)
        self._ended.set()
        if not self.expected_to_end:
            raise self.death()

    async def read_line(self) -> str | None:
        """Return the next line of its standard output without its end, or None after the last one."""
        assert self._output is not None
        while b"\n" not in self._pending and len(self._pending) < LINE_LIMIT:
            await trio.lowlevel.wait_readable(self._output.fileno())
            data = os.read(self._output.fileno(), LINE_LIMIT)
            if not data:
                break
            self._pending += data
        line, newline, self._pending = self._pending.partition(b"\n")
        return line.decode("utf-8", "replace") if line or newline else None

    def tail(self) -> str:
        """Return the last lines of its log, indented."""
        try:
            with self.log.open(encoding="utf-8", errors="replace") as file:
                lines = list(deque(file, TAIL_LINES))
        except OSError:
            return ""
        return "".join(f"\n    {line.rstrip()}" for line in lines)

    def death(self) -> ChildDiedError:
        """Return the error that says how it ended."""
        status = self._popen.returncode
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return ChildDiedError(f"{self.name} {how} before its time{self.tail() or ' (its log is empty)'}")

    def close(self) -> None:
        """Kill what is left of it and of its process group, reap it and release its descriptors."""
        self.expected_to_end = True
        # Once it is reaped its number may belong to others.
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        os.close(self._pidfd)
        if self._output is not None:
            self._output.close()


class Children:
    """All of the demo's processes; leaving its context kills and reaps what is left of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.all: list[Child] = []

    def start(self, name: str, command: Sequence[str], *, read_output: bool = False) -> Child:
        """Start `command`; its log is ``NAME.log`` in the directory. Call it in the main thread.

        Raises:
          OSError: the system cannot start it.

        """
        log = self.directory / f"{name}.log"
        with log.open("ab") as file:
            popen = subprocess.Popen(  # noqa: S603 - our own programs
                leashed(list(command)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if read_output else file,
                stderr=file,
                start_new_session=True,
            )
        child = Child(name, popen, log)
        self.all.append(child)
        return child

    async def stop(self, children: Sequence[Child], grace: float) -> None:
        """Ask each to end with SIGTERM; after `grace` seconds kill those that did not."""
        for child in children:
            child.send_signal(signal.SIGTERM)
        with trio.move_on_after(grace):
            for child in children:
                await child.wait()
            return
        for child in children:
            child.send_signal(signal.SIGKILL)
            await child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.all:
            child.close()
