"""What the daemon tells its service manager, as sd_notify(3) describes it: datagrams of ``KEY=VALUE`` lines.

    start                READY=1, once every address is listened on
    reload               RELOADING=1, then READY=1, whatever came of it
    stop                 STOPPING=1, then EXTEND_TIMEOUT_USEC for as long as sessions are given their grace
    all the while        STATUS (one line for `systemctl status`), WATCHDOG=1 when the unit asks for it

Nothing here disturbs the daemon: a manager that is gone or busy costs a line in the log at most.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Self

import structlog
import trio

log = structlog.stdlib.get_logger("trio_wsb.notify")

STATUS_INTERVAL = 2.0
"""Seconds between two looks at the status; it is sent only when it has changed."""

STATUS_LIMIT = 1024
"""Bytes of a status; systemd drops a datagram of more than 4,096."""

RETRY_INTERVAL = 0.1
"""Seconds before a state change is offered again to a manager whose queue was full."""

MAX_WAITING = 16
"""State changes kept for a manager whose queue is full; the oldest are forgotten first."""

STOP_EXTENSION = 15.0
"""Seconds that each EXTEND_TIMEOUT_USEC asks for, from its arrival; longer than any stall of a healthy event loop."""

_BUSY = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.EINTR})


class Notifier:
    """Sends notifications; one without an address sends none, and all of its methods may be called all the same.

    Resource handling: owns its socket; `close` closes it.
    """

    def __init__(self, address: str | None = None, *, watchdog: float = 0.0) -> None:
        """Prepare to notify.

        Args:
          address: path of the manager's datagram socket, or an abstract one after ``@``; None notifies nobody.
          watchdog: seconds within which the manager wants a sign of life, 0 if it wants none.

        """
        self.watchdog = watchdog if address else 0.0
        self._address = None if not address else _socket_address(address)
        self._socket: socket.socket | None = None
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._status = ""
        self._stopping = False
        self._failed = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str], *, pid: int) -> Self:
        """Return the notifier that the variables of `environment` ask for, and remove them.

        They are meant for the process `pid` alone: one that it starts must not speak in its name.
        """
        address = environment.pop("NOTIFY_SOCKET", None)
        period = environment.pop("WATCHDOG_USEC", "")
        addressee = environment.pop("WATCHDOG_PID", str(pid))
        wanted = period.isascii() and period.isdigit() and addressee == str(pid)
        return cls(address, watchdog=int(period) / 1e6 if wanted else 0.0)

    def ready(self, status: str) -> None:
        """Tell that the daemon serves: after the start, and after each reload, failed ones included."""
        # A reload that ends after the stop has begun must not take the stop back.
        self._tell_state("" if self._stopping else "READY=1", status)

    def reloading(self) -> None:
        """Tell that a reload has begun; `ready` must follow."""
        if not self._stopping:
            # The time is what tells this reload from the one before it, where the manager cares (systemd 253).
            microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._send_state(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self, status: str) -> None:
        """Tell that the stop has begun; from now on `run` keeps the manager from losing its patience."""
        self._stopping = True
        self._tell_state(f"STOPPING=1\n{_extension()}", status)

    def failed(self, reason: str) -> None:
        """Tell why the daemon is not going to serve; the exit status says the rest."""
        self._send_now(_status(reason))

    async def run(self, describe: Callable[[], str]) -> None:
        """Keep the manager informed until cancelled.

        The watchdog is fed by a task of the event loop, at twice the rate asked for, so it starves when, and
        only when, sessions would starve too.

        Args:
          describe: returns the status, one line.

        """
        if self._address is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_informed, describe)
            if self.watchdog:
                nursery.start_soon(self._feed_watchdog)

    def close(self) -> None:
        """Send no more."""
        self._address = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _keep_informed(self, describe: Callable[[], str]) -> None:
        while True:
            if self._flush():
                status = describe()
                changed = status != self._status
                lines = [_extension()] * self._stopping + [_status(status)] * changed
                if lines and self._send_now("\n".join(lines)):
                    self._status = status
            await trio.sleep(RETRY_INTERVAL if self._waiting else STATUS_INTERVAL)

    async def _feed_watchdog(self) -> None:
        while True:
            self._send_now("WATCHDOG=1")
            await trio.sleep(self.watchdog / 2)

    def _tell_state(self, state: str, status: str) -> None:
        self._status = status
        self._send_state("\n".join(filter(None, (state, _status(status)))))

    def _send_state(self, message: str) -> None:
        """Send a message that must arrive, and in order; kept when the manager's queue is full."""
        data = message.encode("utf-8", "replace")
        if not self._flush() or not self._offer(data):
            self._waiting.append(data)

    def _send_now(self, message: str) -> bool:
        """Send a message that is worth nothing later; whether the manager's queue took it."""
        return self._flush() and self._offer(message.encode("utf-8", "replace"))

    def _flush(self) -> bool:
        """Send what waits; whether nothing does any more."""
        while self._waiting:
            if not self._offer(self._waiting[0]):
                return False
            self._waiting.popleft()
        return True

    def _offer(self, data: bytes) -> bool:
        """Send a datagram; False only if another attempt could succeed."""
        if self._address is None:
            return True
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            # Not connected, so that a manager that was restarted and made its socket anew is found again.
            self._socket.sendto(data, self._address)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            if not self._failed:
                log.warning("cannot notify the service manager", error=error.strerror or str(error))
            self._failed = True
        else:
            self._failed = False
        return True


def _socket_address(address: str) -> bytes:
    # The name of an abstract socket begins with a NUL, which no environment variable can have.
    return os.fsencode("\0" + address[1:] if address.startswith("@") else address)


def _extension() -> str:
    return f"EXTEND_TIMEOUT_USEC={int(STOP_EXTENSION * 1e6)}"


def _status(text: str) -> str:
    """Return `text` as one line that no reader can take for another key, cut to what a datagram may have."""
    line = " ".join(text.split())
    return "STATUS=" + line.encode("utf-8", "replace")[:STATUS_LIMIT].decode("utf-8", "ignore")
