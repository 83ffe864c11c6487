"""Unix sockets as a configuration asks for them: a path, who may connect, and the key to blame."""

from __future__ import annotations

import errno
import grp
from pathlib import Path

from trio_wsb.config.entrypoints import UnixSocket
from trio_wsb.errors import ConfigurationError
from trio_wsb.net.listener import BACKLOG
from trio_wsb.net.unix import GroupNotOursError, UnixListener


def group_id(name: str, key: str) -> int:
    """Return the number of the group that `name` is or names.

    Raises:
      ConfigurationError: there is no such group; it names `key`.

    """
    try:
        return int(name) if name.isascii() and name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigurationError([f'{key}: there is no group "{name}"']) from None


def listen_unix(path: str, options: UnixSocket, entry_point: str) -> UnixListener:
    """Return the listening socket of an entry point, which the caller owns.

    Raises:
      ConfigurationError: it cannot be listened at the path, or the group cannot be given to it.

    """
    key = f"entryPoints.{entry_point}"
    group = None if options.group is None else group_id(options.group, f"{key}.unixSocket.group")
    try:
        return UnixListener(Path(path), group=group, mode=options.mode, backlog=BACKLOG)
    except OSError as error:
        blamed = "unixSocket.group" if isinstance(error, GroupNotOursError) else "address"
        raise ConfigurationError(
            [f"{key}.{blamed}: cannot listen at unix:{path}: {reason(error)}"]
        ) from error


def reason(error: OSError) -> str:
    """Return why a socket cannot be at its path, for people."""
    text = "its directory is not there" if error.errno == errno.ENOENT else (error.strerror or str(error))
    return text.lower()
