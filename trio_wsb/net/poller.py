"""Waiting for many sockets, again and again, for less than a call of the system each.

Trio arms its epoll anew for each wait (EPOLLONESHOT), and learns from an error which sockets that does not know yet. The
sockets of sessions are always waited for in the same way, so they are known once here: in an epoll of their own,
edge-triggered (epoll(7)), for which Trio waits as for any other descriptor. A wait is then a note of who waits: messages need
a call of the system less, and an idle session is smaller by a tenth.

An edge says that something has come since the last one. Rules without which a wait would never end:

- An edge for which nobody waits is kept, and the next wait returns at once.
- Who has read less than it asked for may wait, since what comes later is another edge. Only the end of the stream may have
  come together with the last bytes; so it is kept for good, and from then on no wait is one.
- Resets and errors are ends too: the next receive says what happened.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable
from typing import Final

import outcome
import trio

AT_ONCE: Final = 256
"""Sockets whose edges are taken in one pass of the event loop; what is left is taken in the next one."""

_EDGES: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Watched:
    """A socket that is waited for; made by `watch`.

    Resource handling: whoever made it calls `forget` before the socket is closed or given away.
    """

    __slots__ = ("_edge", "_ended", "_number", "_poller", "_task")

    def __init__(self, poller: Poller, number: int) -> None:
        self._poller = poller
        self._number = number
        self._edge = False  # something came for which nobody has waited
        self._ended = False  # there is an end to be read
        self._task: trio.lowlevel.Task | None = None

    def wait(self) -> Awaitable[None]:
        """Wait until there is something to read, or may be; to be awaited at once. A checkpoint.

        Raises:
          trio.BusyResourceError: another task waits.
          trio.ClosedResourceError: `forget` was called meanwhile.

        """
        # No coroutine of its own: each session has two of them for as long as it lives.
        if self._edge or self._ended:
            self._edge = False
            return trio.lowlevel.checkpoint()
        if self._task is not None:
            raise trio.BusyResourceError("another task waits for this socket")
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def note(self, *, ended: bool) -> None:
        """Note an edge."""
        if ended:
            self._ended = True
        if self._task is None:
            self._edge = True
        else:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def forget(self) -> None:
        """Wait no more: the socket is about to be closed."""
        self._poller.forget(self._number)
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, outcome.Error(trio.ClosedResourceError()))

    def give_up(self) -> None:
        """Forget a socket that stays open: it is somebody else's from now on."""
        self._poller.unregister(self._number)
        self.forget()


def watch(sock: socket.socket) -> Watched:
    """Know `sock` from now on; what is there already is its first edge.

    Raises:
      OSError: it is closed or known already, or the system has no room for more.

    """
    try:
        poller = _POLLER.get()
    except LookupError:
        poller = Poller()
        _POLLER.set(poller)
        trio.lowlevel.spawn_system_task(poller.run)
    return poller.register(sock.fileno())


class Poller:
    """The sockets of one run of Trio; it ends with that."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}

    def register(self, number: int) -> Watched:
        """Know the socket with this descriptor. Raises as `watch` does."""
        self._epoll.register(number, _EDGES)
        watched = self._watched[number] = Watched(self, number)
        return watched

    def forget(self, number: int) -> None:
        """Know it no more. The kernel forgets it when it is closed."""
        self._watched.pop(number, None)

    def unregister(self, number: int) -> None:
        """Let the kernel forget it now."""
        self._epoll.unregister(number)

    async def run(self) -> None:
        """Tell those who wait, until cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                # No task runs between the two, so that no number can be another socket's by now.
                for number, events in self._epoll.poll(0, AT_ONCE):
                    watched = self._watched.get(number)
                    if watched is not None:
                        watched.note(ended=bool(events & _ENDS))
        finally:
            self._epoll.close()


_POLLER: Final = trio.lowlevel.RunVar[Poller]("poller")
