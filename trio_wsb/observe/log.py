"""The daemon's log: structlog, as text for people or JSON for machines, on standard error or in a file.

A log that cannot be written never stops traffic: the lines are lost, nothing else.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import structlog

LogFormat = Literal["console", "json"]

LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}
"""Traefik's names for the levels."""


_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog(3) priorities by the names that the log has for its levels."""


class _Unbreakable:
    """A text stream that swallows what the system refuses to write (a full disk, a pipe that nobody reads)."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            pass


class LogOutput:
    """Where the log goes and how; `configure` may be called again at any time, as a reload does.

    Resource handling: owns the file that it opened; `close` closes it.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._again: Callable[[], None] = _nothing

    def configure(self, *, level: str, form: LogFormat, path: str | None) -> None:
        """Write lines of `level` and above as `form`, to the file at `path` or to standard error.

        The file is opened anew each time: a reload is how a rotated one is let go.

        Raises:
          OSError: the file cannot be opened; the log goes on as before.

        """
        opened = _open(Path(path)) if path is not None else None
        self.close()
        self._file = opened
        stream: IO[str] = self._file or sys.stderr
        structlog.configure(
            processors=_processors(form, None if path is not None else stream),
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
            logger_factory=structlog.WriteLoggerFactory(_Unbreakable(stream)),  # type: ignore[arg-type]
            cache_logger_on_first_use=False,  # the level may change with every reload
        )
        self._again = partial(self.configure, level=level, form=form, path=path)

    def reopen(self) -> None:
        """Open the file anew, if one is open: what had its name may have been moved away.

        Raises:
          OSError: as `configure` does.

        """
        if self._file is not None:
            self._again()

    def close(self) -> None:
        """Close the file, if one is open; the log goes to standard error again."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                pass
        self._file = None


def _nothing() -> None:
    pass


def _open(path: Path) -> IO[str]:
    """Open a log to append to; its directory is created when there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", encoding="utf-8", buffering=1)


def priority(stream: IO[str], level: str) -> str:
    """Return what has to stand before a line of `level` in `stream`: ``<N>`` where the journal reads it, else nothing.

    sd-daemon(3) has the numbers.
    """
    return f"<{_PRIORITIES[level]}>" if _is_journal(stream) else ""


def _processors(form: LogFormat, standard_error: IO[str] | None) -> list[Any]:
    if form == "json":
        return [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _time_level_message_first,
            structlog.processors.JSONRenderer(),
        ]
    renderer = structlog.dev.ConsoleRenderer(
        colors=standard_error is not None and _is_terminal(standard_error),
        pad_event_to=26,
        timestamp_key="time",
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
    if standard_error is not None and _is_journal(standard_error):
        # The journal has the time of every line.
        return [structlog.processors.add_log_level, renderer, _with_priority]
    time = structlog.processors.TimeStamper(fmt="iso", utc=False, key="time")
    return [structlog.processors.add_log_level, time, renderer]


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except (ValueError, io.UnsupportedOperation):
        return False


def _is_journal(stream: IO[str]) -> bool:
    """Whether `stream` goes to the journal, as systemd.exec(5) says about JOURNAL_STREAM.

    The variable alone says nothing: standard error may have been redirected since, by a shell for example.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _with_priority(_logger: object, method: str, text: str) -> str:
    """Put the priority before each line, since to the journal each line of a traceback is a message of its own."""
    prefix = f"<{_PRIORITIES.get(method, _PRIORITIES['info'])}>"
    return "\n".join(prefix + line for line in text.splitlines())


def _time_level_message_first(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Put what every line has in front, in one order, for people who read JSON lines as they go by."""
    return {"time": event.pop("time"), "level": event.pop("level"), "msg": event.pop("event"), **event}
