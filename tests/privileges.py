"""Tests that run as root look at the world as somebody else for a moment; others are somebody else already."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give root's privileges up for the block; nothing happens to anybody else."""
    if os.geteuid():
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that everybody may enter and write to; pytest's own are for one user alone."""
    with tempfile.TemporaryDirectory(prefix="trio-wsb-test-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
