"""Start a program as systemd would start the unit's: `launch.py SPECIFICATION PROGRAM ARGUMENT...`.

The specification is JSON: `descriptors` become 3, 4, ... under `names`; `calls` are the system calls that are let
through and `families` the address families, any other fails with EPERM; with `no_exec_memory`, memory that is
written to can never become code; with `journal`, standard error passes for the journal. This process becomes
the program, as systemd's does, so LISTEN_PID and WATCHDOG_PID are right.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import socket
import sys

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM
EQUAL = 4
PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN = 65, 1
LIBRARY = "libseccomp.so.2"


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("mask", ctypes.c_uint64),
    )


def hand_over(descriptors: list[int], names: list[str]) -> None:
    # Out of the way first: one of them may be where another one has to go.
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in descriptors]
    for number, descriptor in enumerate(moved, 3):
        os.dup2(descriptor, number, inheritable=True)
    os.closerange(3 + len(moved), 200)
    os.environ.update(LISTEN_FDS=str(len(moved)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=":".join(names))


def confine(calls: list[str], families: list[str]) -> None:
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(REFUSE))
    for name in calls:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            continue  # of another architecture
        if name != "socket":
            library.seccomp_rule_add_array(context, ALLOW, number, 0, None)
            continue
        for family in families:
            comparison = Comparison(0, EQUAL, getattr(socket, family), 0)
            library.seccomp_rule_add_array(context, ALLOW, number, 1, ctypes.byref(comparison))
    if library.seccomp_load(context):
        raise OSError("the kernel does not take the filter")


def main() -> None:
    specification, *command = sys.argv[1:]
    given = json.loads(specification)
    if "WATCHDOG_USEC" in os.environ:
        os.environ["WATCHDOG_PID"] = str(os.getpid())
    if given.get("journal"):
        status = os.fstat(2)
        os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    if given.get("no_exec_memory"):
        ctypes.CDLL(None).prctl(
            PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0
        )  # before Linux 6.3 without effect
    if given.get("descriptors"):
        hand_over(given["descriptors"], given["names"])
    if given.get("calls"):
        confine(given["calls"], given["families"])
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
