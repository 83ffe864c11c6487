"""Processes in tests: started for a test, ended with it, and looked up by who their parent is."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = (sys.executable, "-m", "trio_wsb")


@contextmanager
def process(*arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """Run the command with `arguments`; it is killed at the end of the context if it still runs."""
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as popen:
        try:
            yield popen
        finally:
            popen.kill()


@contextmanager
def demo_backend(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a demo backend on a free port; gives the process and its URL."""
    with process("demo-backend", "--listen", "127.0.0.1:0", *arguments) as popen:
        assert popen.stdout is not None
        line = popen.stdout.readline()
        assert line.startswith("listening on http"), popen.stderr and popen.stderr.read()
        yield popen, line.split()[-1]


def descendants(pid: int) -> dict[int, int]:
    """Return the descendants of a process, each with a pidfd that the caller has to close."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The second field, the name, may have blanks and parentheses.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return {child: os.pidfd_open(child) for child in found - {pid}}


def wait_for_ends(pidfds: dict[int, int], timeout: float) -> set[int]:
    """Wait until all processes have ended, close the pidfds and return those that have not."""
    alive = dict(pidfds)
    poller = select.poll()
    for pidfd in pidfds.values():
        poller.register(pidfd, select.POLLIN)
    while alive and (ended := poller.poll(timeout * 1000)):
        for pidfd, _ in ended:
            poller.unregister(pidfd)
            alive = {pid: fd for pid, fd in alive.items() if fd != pidfd}
    for pid, pidfd in pidfds.items():
        if pid in alive:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    return set(alive)
