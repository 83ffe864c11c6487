"""Starting and stopping what is measured, and reading what the kernel says about it (Linux, ``/proc``)."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 15.0
"""Seconds that a proxy may take until it listens."""

STOP_TIMEOUT = 5.0
"""Seconds between SIGTERM and SIGKILL."""

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A measurement that cannot be made or went wrong; the message is for the person who started it."""


class MissingToolError(BenchError):
    """A program that has to be installed first; the message names it and what brings it."""


class Process:
    """A child process, in a session of its own so that its workers can be ended with it.

    Whoever makes it owns it and calls `stop`; `running` does both. Making it raises BenchError where it cannot be started.
    """

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, *, cwd: Path | None = None
    ) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            try:
                self._popen = subprocess.Popen(
                    [str(word) for word in command],
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise BenchError(f"{name} cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        """Of the process itself; its workers are its descendants."""
        return self._popen.pid

    def wait_until_listening(self, port: int) -> None:
        """Return as soon as 127.0.0.1:`port` accepts connections.

        Raises:
          BenchError: the process has ended, or does not listen within `START_TIMEOUT`.

        """
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if self._ended():
                raise BenchError(f"{self.name} ended at once{self._last_words()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(
                        f"{self.name} does not listen after {START_TIMEOUT:g} s{self._last_words()}"
                    ) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM, and after `STOP_TIMEOUT` SIGKILL; then SIGKILL to workers that outlived it."""
        # Popen.send_signal would reap a process that has ended, and with it the right to its group's number.
        os.kill(self._popen.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        while not self._ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def _ended(self) -> bool:
        """Whether it has ended; it stays a zombie until `stop` reaps it."""
        return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-8:]
        return ":\n  " + "\n  ".join(lines) if lines else ""


@contextmanager
def running(
    name: str, command: Sequence[str | Path], log: Path, *, port: int, cwd: Path | None = None
) -> Iterator[Process]:
    """Start `command`, wait until it listens on `port`, and stop it at the end.

    Raises:
      BenchError: it does not come up; its last lines of output are in the message.

    """
    process = Process(name, command, log, cwd=cwd)
    try:
        process.wait_until_listening(port)
        yield process
    finally:
        process.stop()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses now. Someone else may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_descriptor_limit(needed: int) -> None:
    """Make the soft limit of open files at least `needed`; children inherit it.

    Raises:
      BenchError: the hard limit is lower.

    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchError(
            f"{needed} open files are needed, and the hard limit is {hard}: raise it (ulimit -H -n), or use fewer sessions"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def process_tree(pid: int) -> list[int]:
    """`pid` and its descendants that are alive; [] when it is gone."""
    found, queue = [], [pid]
    while queue:
        current = queue.pop()
        try:
            tasks = list(Path(f"/proc/{current}/task").iterdir())
            queue.extend(int(child) for task in tasks for child in (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(current)
    return found


def parse_rollup(text: str) -> int:
    """Return the resident set in bytes from ``/proc/PID/smaps_rollup``.

    Raises:
      ValueError: `text` has no ``Rss:`` line.

    """
    for line in text.splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("there is no Rss: line")


def resident_bytes(pid: int) -> int:
    """RSS of `pid` and its descendants, in bytes.

    From smaps_rollup, which walks the page tables: the counters behind VmRSS lag by up to 64 pages a thread.
    Pages that workers share are counted for each; in a difference they cancel out.
    """
    return sum(parse_rollup(Path(f"/proc/{each}/smaps_rollup").read_text()) for each in process_tree(pid))


def parse_cpu_seconds(stat: str) -> float:
    """User and system time in seconds from ``/proc/PID/stat`` (proc(5): fields 14 and 15)."""
    # Field 2 is the program's name in parentheses and may hold blanks and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def cpu_seconds(pid: int) -> float:
    """CPU time that `pid` and its living descendants have used, in seconds."""
    return sum(parse_cpu_seconds(Path(f"/proc/{each}/stat").read_text()) for each in process_tree(pid))


def run_quietly(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a short command and return its exit status and everything it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
        env=env,
    )
    return done.returncode, done.stdout
