"""Draining for real: ``python -m bench.drain``. A daemon, three backends and clients that reconnect, each a process.

Checks what docs/how-to/take-a-backend-away.md promises: every client at the drained backend sees the Close code and nobody 1006,
the pace is within 10 % of the rate, and the other backends end within 2 % of each other.

Exit status: 0 all of it held, 1 something did not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bench.processes import BenchError, Process, free_port, running

PROGRAM = (sys.executable, "-m", "trio_wsb")
PATIENCE = 60.0
"""Seconds for the sessions to open, and to be back."""


def main() -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.drain", description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=200.0, help="sessions per second")
    parser.add_argument("--code", type=int, default=1001)
    options = parser.parse_args()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        try:
            return _measure(Path(folder), stack, options)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1


def _measure(folder: Path, stack: ExitStack, options: argparse.Namespace) -> int:
    ports = [free_port() for _ in range(4)]
    for port in ports[1:]:
        command = (*PROGRAM, "demo-backend", "--listen", f"127.0.0.1:{port}")
        stack.enter_context(running(f"backend {port}", command, folder / f"{port}.log", port=port))
    pods = [f"http://127.0.0.1:{port}" for port in ports[1:]]
    socket, log = str(folder / "control.sock"), folder / "daemon.log"
    document = {
        "entryPoints": {"web": {"address": f"127.0.0.1:{ports[0]}"}},
        "control": {"socket": socket},
        "log": {"format": "json"},
        "wsbalancer": {"pods": pods},
    }
    (folder / "daemon.yaml").write_text(yaml.safe_dump(document))
    command = (*PROGRAM, "run", "--config", str(folder / "daemon.yaml"))
    stack.enter_context(running("daemon", command, log, port=ports[0]))
    url = f"ws://127.0.0.1:{ports[0]}"
    wanted = ("--clients", str(options.sessions), "--rate", "500", "--message-interval", "10s")
    clients = Process(
        "clients",
        (*PROGRAM, "demo-client", "--url", url, *wanted, "--reconnect", "--json"),
        folder / "clients.log",
    )
    try:
        before = _wait(socket, options.sessions)
        began = time.monotonic()
        drain = ("drain", pods[0], "--rate", f"{options.rate:g}/s", "--code", str(options.code))
        outcome = json.loads(_ask(socket, *drain, "--json").splitlines()[-1])
        took = time.monotonic() - began
        after = _wait(socket, options.sessions)
    finally:
        clients.stop()
    lost = json.loads((folder / "clients.log").read_text().splitlines()[-1])["lost"]
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    ends = sorted(
        datetime.fromisoformat(line["time"]).timestamp() for line in lines if line.get("cause") == "drain"
    )
    pace = (len(ends) - 1) / (ends[-1] - ends[0])
    others = after[1:]
    apart = (max(others) - min(others)) / max(others)
    print(f"sessions    {before} before, {after} after")
    print(
        f"drained     {outcome['ended']} ended, {outcome['cut']} cut, {outcome['left']} left, in {took:.1f} s"
    )
    print(f"codes       {lost}")
    print(f"pace        {pace:.1f}/s where {options.rate:g}/s were wanted")
    print(f"apart       {apart:.2%}")
    held = {
        "every client saw the code, nobody 1006": lost == {str(options.code): before[0]},
        "pace within 10 %": abs(pace / options.rate - 1) <= 0.1,
        "the others within 2 %": apart <= 0.02,
        "nothing cut or left": outcome["cut"] == outcome["left"] == after[0] == 0,
    }
    for promise, kept in held.items():
        print(f"{'held' if kept else 'NOT HELD':<12}{promise}")
    return 0 if all(held.values()) else 1


def _wait(socket: str, sessions: int) -> list[int]:
    """Return the sessions of each backend as soon as all are open."""
    deadline = time.monotonic() + PATIENCE
    while True:
        status: dict[str, Any] = json.loads(_ask(socket, "status", "--json"))
        if status["sessions"]["open"] == sessions:
            return [each["live"] for each in status["backends"]]
        if time.monotonic() > deadline:
            raise BenchError(f"{status['sessions']['open']} of {sessions} sessions are open")
        time.sleep(0.2)


def _ask(socket: str, *arguments: str) -> str:
    done = subprocess.run(
        (*PROGRAM, *arguments, "--socket", socket), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"{arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
