"""The access log of a daemon: which file is written, across reloads and rotations, without losing a line."""

from __future__ import annotations

from functools import partial

import trio

from trio_wsb.config import accesslog as options
from trio_wsb.observe.accesslog import AccessLog
from trio_wsb.observe.linefile import open_to_append
from trio_wsb.observe.linewriter import LineWriter
from trio_wsb.proxy.record import Observers

STANDARD_OUTPUT = "standard output"


class AccessLogging:
    """Owns the access log and its writer. There is none until `configure` asks for one, and `run` must run by then."""

    def __init__(self) -> None:
        self._log: AccessLog | None = None
        self._writer: LineWriter | None = None
        self._path: str | None = None
        self._end_writer = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    @property
    def observers(self) -> Observers:
        """What the proxy has to tell of requests and sessions; nobody without an access log."""
        return () if self._log is None else (self._log,)

    @property
    def lost(self) -> int:
        """Lines that the present writer has lost."""
        return 0 if self._writer is None else self._writer.lost

    @property
    def writer(self) -> LineWriter | None:
        """Who writes the present file; None without an access log."""
        return self._writer

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled, and then what is left."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def configure(self, settings: options.AccessLog | None) -> None:
        """Do as `settings` say from now on; the file is opened anew even if it stays the same one.

        What is queued for another file is still written there.
        """
        if settings is None:
            self._retire()
            self._log = None
            return
        if self._writer is None or settings.file_path != self._path:
            self._retire()
            self._start(settings.file_path)
        else:
            self._writer.reopen()
        assert self._writer is not None
        self._writer.buffering = settings.buffering_size
        if self._log is None:
            self._log = AccessLog(settings, self._writer)
        else:
            self._log.configure(settings, self._writer)

    def reopen(self) -> None:
        """Open the file anew: it was moved away, and its name is another's now."""
        if self._writer is not None:
            self._writer.reopen()

    def _start(self, path: str | None) -> None:
        assert self._nursery is not None
        self._path = path
        self._writer = LineWriter(path or STANDARD_OUTPUT, partial(open_to_append, path))
        self._end_writer = trio.CancelScope()
        self._nursery.start_soon(self._write, self._writer, self._end_writer)

    @staticmethod
    async def _write(writer: LineWriter, scope: trio.CancelScope) -> None:
        with scope:
            await writer.run()

    def _retire(self) -> None:
        """Let the writer write what it has, and end."""
        self._writer = None
        self._end_writer.cancel()
