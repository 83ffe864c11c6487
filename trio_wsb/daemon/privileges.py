"""Capabilities: what loading a program into the kernel takes, and nothing after it needs (capabilities(7))."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Final

import structlog

log = structlog.stdlib.get_logger("trio_wsb.kernel")

CAP_NET_ADMIN: Final = 12
CAP_SYS_ADMIN: Final = 21
CAP_PERFMON: Final = 38
CAP_BPF: Final = 39

_LOADING: Final = (CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF)

_VERSION_3: Final = 0x20080522
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_LOWER: Final = 3

_libc = ctypes.CDLL(None, use_errno=True)


def drop_capabilities() -> None:
    """Give up what only loading needs, for this thread and those that it starts.

    To be called before there are other threads: each has capabilities of its own. Those who run the daemon as root
    keep the rest, to listen on low ports after a reload.
    """
    if not _effective() & sum(1 << number for number in _LOADING):
        return
    for number in _LOADING:
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_LOWER, number, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    data = ctypes.create_string_buffer(24)
    if _libc.capget(header, data):
        log.warning("capabilities not given up", reason="capget failed")
        return
    words = list(
        struct.unpack("=6I", data.raw)
    )  # effective, permitted, inheritable; low words, then high ones
    for number in _LOADING:
        for index in range(3):
            words[number // 32 * 3 + index] &= ~(1 << number % 32)
    if _libc.capset(header, struct.pack("=6I", *words)):
        log.warning("capabilities not given up", reason="capset failed")


def missing_capabilities() -> list[str]:
    """Return the names of those that loading a program for sockets needs and this thread does not have."""
    have = _effective()
    if have & 1 << CAP_SYS_ADMIN:
        return []  # it stands for both, as it did before there was CAP_BPF
    needed = {"CAP_BPF": CAP_BPF, "CAP_NET_ADMIN": CAP_NET_ADMIN}
    return [name for name, number in needed.items() if not have & 1 << number]


def _effective() -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    except (OSError, ValueError):
        pass
    return 0
