"""Start a program that dies with its parent: ``python -m trio_wsb.demo.leash PARENT_PID PROGRAM [ARGUMENT...]``.

The kernel kills the program when the parent is gone, however it went (PR_SET_PDEATHSIG, prctl(2)). The
setting survives execve(2), so this small process sets it for itself and becomes the program; the usual way,
a ``preexec_fn``, runs Python between fork and exec, where another thread's lock may be held for ever.

The kernel means the parent's *thread*: start it from the main thread. `trio.lowlevel.open_process` would
start it from a worker thread, and the program would die ten seconds later together with that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def leashed(command: list[str]) -> list[str]:
    """Return the command line that runs `command` as a child of this process and on its leash."""
    return [sys.executable, "-m", "trio_wsb.demo.leash", str(os.getpid()), *command]


def main(arguments: list[str]) -> None:
    """Set the leash and become the program; returns only by an error."""
    parent, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(error)}")
    # A parent that died before the call above kills nobody any more.
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
    os.execv(command[0], command)  # noqa: S606 - the command comes from `leashed`


if __name__ == "__main__":
    main(sys.argv[1:])
