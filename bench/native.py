"""The two C programs of the benchmarks: building them, and running them with their results as values."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import field, frozen

from bench.processes import BenchError, MissingToolError, run_quietly

SOURCES = Path(__file__).parent
BUILD = SOURCES / "build"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")

QUIET_TIMEOUT = 10.0
"""Seconds until the backends must have no session left after a measurement."""

Figures = dict[str, float]
"""What one run of the load generator measured, by the names of its JSON output."""


def compiler() -> str:
    """Return the path of the C compiler: ``$CC``, or ``cc``.

    Raises:
      MissingToolError: there is none.

    """
    name = os.environ.get("CC") or "cc"
    path = shutil.which(name)
    if path is None:
        raise MissingToolError(
            f"{name}: no C compiler is installed, and load generator and backends are built with it"
        )
    return path


def build(name: str) -> Path:
    """Compile ``bench/NAME.c`` unless what is built is newer than its sources, and return the program.

    Raises:
      MissingToolError: there is no C compiler.
      BenchError: it does not compile; the message holds the compiler's.

    """
    program, source = BUILD / name, SOURCES / f"{name}.c"
    newest = max(path.stat().st_mtime_ns for path in (source, SOURCES / "wire.h"))
    if program.exists() and program.stat().st_mtime_ns > newest:
        return program
    BUILD.mkdir(exist_ok=True)
    # Renamed when complete, so that a build that was interrupted is never taken for a program.
    partial = BUILD / f".{name}.{os.getpid()}"
    status, output = run_quietly([compiler(), *FLAGS, source, "-o", partial])
    if status:
        raise BenchError(f"{source.name} does not compile:\n{output}")
    return partial.rename(program)


@frozen
class LoadGenerator:
    """The clients, against ``ports`` of 127.0.0.1, taken in turn."""

    program: Path = field(factory=lambda: build("loadgen"))

    def echo(self, ports: Sequence[int], *, sessions: int, size: int, seconds: float) -> Figures:
        """Messages of `size` bytes on `sessions` sessions in closed loop, for `seconds`.

        Raises:
          BenchError: a byte was wrong, or a session was refused, lost or stalled.

        """
        return self._run("echo", ports, sessions, "--size", str(size), "--seconds", str(seconds))

    def handshakes(self, ports: Sequence[int], *, clients: int, seconds: float) -> Figures:
        """`clients` at a time connect, upgrade and drop the connection, for `seconds`.

        Raises:
          BenchError: a handshake was refused, went wrong or stalled.

        """
        return self._run("handshakes", ports, clients, "--seconds", str(seconds))

    def rate(
        self,
        ports: Sequence[int],
        *,
        sessions: int,
        size: int,
        seconds: float,
        rate: float,
        mark: Callable[[], None] = lambda: None,
    ) -> Figures:
        """`rate` messages a second of `size` bytes over `sessions` sessions, for `seconds`, as far as they are kept up with.

        `mark` is called when the sessions are open and warm and measuring begins, and when it has ended.

        Raises:
          BenchError: as with `echo`.

        """
        options = ["--size", str(size), "--seconds", str(seconds), "--rate", str(rate)]
        popen = _started([*self._command("rate", ports, sessions), *options])
        try:
            assert popen.stdout is not None
            if popen.stdout.readline() == "measuring\n":
                mark()
            figures = popen.stdout.readline()
            mark()
            error = popen.communicate()[1]
            if popen.returncode:
                raise BenchError(f"loadgen rate: {error.strip() or f'ended with {popen.returncode}'}")
            return parse_figures(figures)
        finally:
            popen.kill()
            popen.communicate()

    def storm(self, ports: Sequence[int], *, sessions: int) -> Figures:
        """`sessions` clients connect at once and exchange one message each; who is answered 502 or 503 comes back.

        Raises:
          BenchError: a session was refused otherwise, lost or stalled.

        """
        return self._run("storm", ports, sessions)

    @contextmanager
    def idle(self, ports: Sequence[int], *, sessions: int) -> Iterator[None]:
        """Hold `sessions` sessions open, each after one echoed message, and at the end check that all live.

        Raises:
          BenchError: a session was refused, or lost in between.

        """
        popen = _started(self._command("idle", ports, sessions))
        try:
            assert popen.stdout is not None
            if popen.stdout.readline() != "ready\n":
                raise BenchError(f"loadgen idle: {popen.communicate()[1].strip()}")
            yield
            output, error = popen.communicate()
            if popen.returncode:
                raise BenchError(f"loadgen idle: {error.strip()}")
            alive = parse_figures(output)["alive"]
            if alive != sessions:
                raise BenchError(f"only {alive:.0f} of {sessions} idle sessions were alive at the end")
        finally:
            popen.kill()
            popen.communicate()

    def _run(self, mode: str, ports: Sequence[int], sessions: int, *options: str) -> Figures:
        done = subprocess.run(
            [*self._command(mode, ports, sessions), *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"loadgen {mode}: {done.stderr.strip() or f'ended with {done.returncode}'}")
        return parse_figures(done.stdout)

    def _command(self, mode: str, ports: Sequence[int], sessions: int) -> list[str]:
        return [str(self.program), mode, "--ports", ",".join(map(str, ports)), "--sessions", str(sessions)]


def _started(command: Sequence[str | Path]) -> subprocess.Popen[str]:
    """Start a program of the bench, with a pipe for each of its streams; whoever asked for it ends it."""
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def parse_figures(output: str) -> Figures:
    """Return the numbers of the JSON object in the load generator's output.

    Raises:
      BenchError: there is no such object.

    """
    try:
        values = json.loads(output)
        return {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
    except (ValueError, AttributeError):
        raise BenchError(f"the load generator printed {output!r} rather than its figures") from None


@frozen
class Backends:
    """The echo servers that every proxy balances over."""

    ports: tuple[int, ...]

    def sessions(self) -> list[int]:
        """How many sessions each backend has now, as its ``/metric`` reports."""
        return [_agents_connections(port) for port in self.ports]

    def wait_until_quiet(self) -> None:
        """Return when no backend has a session left: one measurement must not burden the next.

        Raises:
          BenchError: some are left after `QUIET_TIMEOUT`.

        """
        deadline = time.monotonic() + QUIET_TIMEOUT
        while any(left := self.sessions()):
            if time.monotonic() > deadline:
                raise BenchError(
                    f"the backends still have {left} sessions, {QUIET_TIMEOUT:g} s after the clients left"
                )
            time.sleep(0.05)


@contextmanager
def backends(count: int) -> Iterator[Backends]:
    """Run `count` echo backends on free ports until the block ends (or this process: their input ends then).

    Raises:
      BenchError: they cannot be built or do not start.

    """
    program = build("echo_backend")
    popen = _started([program, str(count)])
    try:
        assert popen.stdout is not None
        word, *ports = popen.stdout.readline().split() or [""]
        if word != "listening" or len(ports) != count:
            raise BenchError(f"echo_backend does not start: {popen.communicate()[1].strip()}")
        yield Backends(tuple(map(int, ports)))
    finally:
        popen.kill()
        popen.communicate()


def _agents_connections(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metric")
        return int(json.loads(connection.getresponse().read())["agentsConnections"])
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise BenchError(f"the backend on port {port} does not answer /metric: {error}") from error
    finally:
        connection.close()
