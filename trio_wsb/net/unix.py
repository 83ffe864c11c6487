"""Unix sockets: listening at a path that nobody else is to have, and who is at the other end."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from pathlib import Path

from attrs import frozen

BACKLOG = 32
"""Connections that wait to be accepted."""

_CREDENTIALS = struct.Struct("3i")


class SocketInUseError(OSError):
    """Another process listens at the path."""


class GroupNotOursError(OSError):
    """The group cannot be given to a file: this process is neither root nor a member."""


@frozen
class PeerCredentials:
    """The process that connected, as the kernel vouches for it: SO_PEERCRED in unix(7)."""

    pid: int
    uid: int
    gid: int


class UnixListener:
    """A listening Unix socket and its name in the file system.

    Resource handling: `close` closes the socket and removes the name, unless another process has replaced it.
    """

    def __init__(
        self, path: Path, *, group: int | None = None, mode: int | None = None, backlog: int = BACKLOG
    ) -> None:
        """Listen at `path`; a socket that a dead process has left there is replaced.

        It is made under another name, gets its owner and mode, and is renamed into place, so that it is there with
        the right permissions or not at all.

        Args:
          path: where; at most 99 bytes.
          group: whose members may connect beside the user of this process; None lets nobody.
          mode: other permissions of the socket than 0600, or 0660 with a group; who may write to it may connect.
          backlog: connections that wait to be accepted.

        Raises:
          SocketInUseError: a living process listens there.
          GroupNotOursError: the group cannot be given.
          OSError: the directory is not there or not ours to write, or something else has the name.

        """
        self.path = path
        _check_free(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        draft = f"{path}.{os.getpid()}"
        try:
            _remove(draft)
            self.sock.bind(draft)
            # Nobody can connect to it before it listens, whatever the umask was.
            if group is not None:
                _give(draft, group)
            Path(draft).chmod((0o600 if group is None else 0o660) if mode is None else mode)
            self.sock.listen(backlog)
            self._identity = _identity(draft)
            Path(draft).rename(path)
        except BaseException:
            self.sock.close()
            _remove(draft)
            raise

    def close(self) -> None:
        """Stop listening and remove the name."""
        if self.sock.fileno() == -1:
            return
        self.sock.close()
        try:
            # A successor may have taken the place; its name is not ours to remove.
            if _identity(self.path) == self._identity:
                _remove(self.path)
        except OSError:
            pass


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Return who is at the other end of a connected Unix socket."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return PeerCredentials(*_CREDENTIALS.unpack(data))


def _check_free(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "something that is no socket has this name")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        code = probe.connect_ex(str(path))
    if code in {0, errno.EAGAIN}:  # EAGAIN: its queue is full
        raise SocketInUseError(errno.EADDRINUSE, "another daemon listens there")
    if code not in {errno.ECONNREFUSED, errno.ENOENT}:
        raise OSError(code, os.strerror(code))


def _give(path: str, group: int) -> None:
    try:
        os.chown(path, -1, group)
    except PermissionError as error:
        reason = "this process is neither root nor a member of the group"
        raise GroupNotOursError(errno.EPERM, reason) from error


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove(path: str | Path) -> None:
    Path(path).unlink(missing_ok=True)
