"""Descriptors: a session costs two, and the usual soft limit of 1,024 is gone in no time."""

from __future__ import annotations

import resource

RESERVED = 128
"""Descriptors for what is not a client connection: listeners, count requests, the log, the interpreter."""


def raise_descriptor_limit() -> tuple[int, int]:
    """Raise the soft limit of open files to the hard one; return the soft limit before and after."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft, soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # RLIM_INFINITY is more than the kernel's fs.nr_open allows some processes.
        return soft, soft
    return soft, hard


def sessions_possible(descriptors: int) -> int:
    """Return how many sessions at once that many descriptors allow."""
    return max(0, (descriptors - RESERVED) // 2)
