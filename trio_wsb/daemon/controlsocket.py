"""Where the control socket is, and what is done when it cannot be there."""

from __future__ import annotations

from pathlib import Path

import structlog

from trio_wsb.addresses import DEFAULT_CONTROL_SOCKET
from trio_wsb.config.model import Control
from trio_wsb.daemon.unixsocket import group_id, reason
from trio_wsb.errors import ConfigurationError
from trio_wsb.net.unix import GroupNotOursError, UnixListener

log = structlog.stdlib.get_logger("trio_wsb.control")


def open_control_socket(
    control: Control, *, default: Path = Path(DEFAULT_CONTROL_SOCKET)
) -> UnixListener | None:
    """Return the listening control socket, which the caller owns.

    A path that the configuration names must work. The default one is a convenience: without its directory (as when
    the daemon is started by hand), or beside another daemon, there is a warning and no control socket.

    Raises:
      ConfigurationError: the configured path or group cannot be used.

    """
    group = None if control.group is None else group_id(control.group, "control.group")
    path = default if control.socket is None else Path(control.socket)
    try:
        return UnixListener(path, group=group)
    except OSError as error:
        why = reason(error)
        if control.socket is not None:
            key = "control.group" if isinstance(error, GroupNotOursError) else "control.socket"
            raise ConfigurationError([f"{key}: cannot listen at {path}: {why}"]) from error
        log.warning(
            "no control socket", path=str(path), reason=why, hint="name another path in control.socket"
        )
        return None
