"""A file that lines are appended to, as the access log needs it: it may be rotated, removed, full or a pipe."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final, Protocol

_OWN: Final = {"/dev/stdout": 1, "/dev/stderr": 2}
"""Opening these fails where the descriptor is a socket, as the journal's is."""

_MODE: Final = 0o640
"""A log of requests names people: it is not for everybody on the machine."""


class LineFile(Protocol):
    """What a writer of lines needs of its file. Every method may block, and may raise OSError but for `close`."""

    def write(self, data: bytes | memoryview) -> int:
        """Append what can be appended of `data`, and return how many bytes that was."""
        ...

    @property
    def vanished(self) -> bool:
        """Whether the file has been removed, so that nobody will read what is written to it."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class AppendedFile:
    """The file behind a descriptor; `named` says that it was opened by a name, which it may lose.

    Resource handling: owns the descriptor.
    """

    def __init__(self, descriptor: int, *, named: bool) -> None:
        self._descriptor = descriptor
        self._named = named and stat.S_ISREG(os.fstat(descriptor).st_mode)

    def write(self, data: bytes | memoryview) -> int:
        """Append what can be appended of `data`, and return how many bytes that was."""
        return os.write(self._descriptor, data)

    @property
    def vanished(self) -> bool:
        """Whether its last name is gone. One that was moved, as logrotate does it, is not: it is written until SIGUSR1."""
        return self._named and os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        """Close the descriptor."""
        try:
            os.close(self._descriptor)
        except OSError:
            pass  # what a network file system has to say by now helps nobody


def open_to_append(path: str | None) -> AppendedFile:
    """Open the file at `path`, standard output for None; its directory is created when there is none. May block.

    Raises:
      OSError: it cannot be opened.

    """
    own = 1 if path is None else _OWN.get(path)
    if own is not None:
        return AppendedFile(os.dup(own), named=False)
    assert path is not None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Non-blocking, because a FIFO that nobody reads would wait for ever.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, _MODE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "nobody reads the FIFO") from error
        raise
    try:
        os.set_blocking(descriptor, True)
        return AppendedFile(descriptor, named=True)
    except BaseException:
        os.close(descriptor)
        raise
