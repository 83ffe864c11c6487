"""The daemon under everything at once, for as long as wanted: ``python -m bench.soak --minutes 20``.

Clients come, talk, and go in good order or not; meanwhile the configuration is reloaded (and broken), backends are drained
and taken back, killed, stopped and started again. Before and after that, with no client there, the daemon is measured: memory,
descriptors, tasks, sessions in the kernel. What it has not given back is a leak.

Exit status: 0 nothing is left over, 1 something is, or an echo was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import trio
import trio_websocket
import yaml
from attrs import define, field, frozen

from bench.processes import BenchError, Process, free_port, raise_descriptor_limit

PROGRAM: Final = (sys.executable, "-m", "trio_wsb")
BACKENDS: Final = 4
WARM_UP: Final = 0.2
"""The part of the time that passes before the first measurement: memory that is taken once and kept is no leak."""

SETTLE: Final = 15.0
"""Seconds of rest before a measurement: closing handshakes, cool-downs and caches of connections are over by then."""

MEMORY_SLACK: Final = 6.0
"""MiB by which resident memory may differ: the allocator's, and logs and histograms that fill up to their bounds."""

SPARE_DESCRIPTORS: Final = 4
SPARE_TASKS: Final = 4
"""What may differ at any moment: a count request or a check that is under way, this program's own questions."""

GO_AWAY: Final = 10.0
"""Seconds that a client gives its handshake, an echo and its closing handshake."""


@frozen
class Measured:
    """The daemon at rest."""

    memory: float
    """Resident, in MiB."""
    descriptors: int
    tasks: int
    sessions: int
    in_kernel: int
    in_map: int
    """Sockets in the kernel's map."""

    def leaks(self, before: Measured) -> list[str]:
        """Return what is more than it was `before`, beyond what may differ."""
        found = []
        if self.memory - before.memory > MEMORY_SLACK:
            found.append(f"memory: {before.memory:.1f} MiB before, {self.memory:.1f} MiB after")
        for name, spare in (("descriptors", SPARE_DESCRIPTORS), ("tasks", SPARE_TASKS)):
            if getattr(self, name) - getattr(before, name) > spare:
                found.append(f"{name}: {getattr(before, name)} before, {getattr(self, name)} after")
        found += [
            f"{name}: {count} left"
            for name in ("sessions", "in_kernel", "in_map")
            if (count := getattr(self, name))
        ]
        return found


@define(eq=False)
class Soak:
    """One run."""

    folder: Path
    rng: random.Random
    clients: int
    relay: str
    daemon: Process = field(init=False)
    backends: dict[int, Process] = field(factory=dict)
    happened: Counter[str] = field(factory=Counter)
    wrong: list[str] = field(factory=list)
    ports: list[int] = field(init=False)

    @ports.default
    def _(self) -> list[int]:
        return [free_port() for _ in range(BACKENDS + 2)]

    # Processes.

    def start(self, stack: ExitStack) -> None:
        """Start everything; `stack` ends it."""
        for port in self.ports[2:]:
            self.start_backend(port)
        stack.callback(self.stop_backends)
        self.write()
        command = (*PROGRAM, "run", "--config", self.folder / "daemon.yaml")
        self.daemon = Process("daemon", command, self.folder / "daemon.log")
        stack.callback(self.daemon.stop)
        self.daemon.wait_until_listening(self.ports[0])

    def stop_backends(self) -> None:
        """Stop those that run now."""
        for process in self.backends.values():
            process.stop()

    def start_backend(self, port: int) -> None:
        """Start the backend that listens on `port`."""
        command = (*PROGRAM, "demo-backend", "--listen", f"127.0.0.1:{port}")
        self.backends[port] = Process(f"backend {port}", command, self.folder / f"{port}.log")

    def write(self, **balancer: Any) -> None:
        """Write a configuration over all backends; `balancer` are keys of its load balancer."""
        document = {
            "entryPoints": {
                "web": {"address": f"127.0.0.1:{self.ports[0]}"},
                "admin": {"address": f"127.0.0.1:{self.ports[1]}"},
            },
            "control": {"socket": str(self.folder / "control.sock")},
            "log": {"format": "json"},
            "metrics": {"prometheus": {"entryPoint": "admin"}},
            "http": {
                "routers": {"all": {"rule": "PathPrefix(`/`)", "entryPoints": ["web"], "service": "chat"}},
                "services": {"chat": {"loadBalancer": self._balancer(balancer)}},
            },
        }
        if self.relay == "kernel":
            document["kernelRelay"] = {"enabled": True}
        (self.folder / "daemon.yaml").write_text(yaml.safe_dump(document))

    def _balancer(self, changes: dict[str, Any]) -> dict[str, Any]:
        return {
            "servers": [{"url": f"http://127.0.0.1:{port}"} for port in self.ports[2:]],
            "connectionCount": {"path": "/metric", "interval": "1s"},
            "healthCheck": {"path": "/api/health", "interval": "1s", "timeout": "1s"},
            "session": {"pingInterval": "5s", "pongTimeout": "5s"},
            "rebalance": {"enabled": True, "minAge": "2s", "rate": "50/s"},
            "drain": {"rate": "50/s", "timeout": "10s"},
            "relay": self.relay,
            **changes,
        }

    # Asking the daemon.

    async def ask(self, path: str, document: dict[str, Any] | None = None) -> Any:
        """Return what its control socket answers."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.folder / "control.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
            method = "GET" if document is None else "POST"
            answer = await client.request(method, path, json=document)
            return answer.json()

    async def measure(self) -> Measured:
        """Measure the daemon after a rest."""
        await trio.sleep(SETTLE)
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            page = (await client.get(f"http://127.0.0.1:{self.ports[1]}/metrics")).text
        status = await self.ask("/status")
        found = re.search(r"^trio_wsb_tasks (\S+)", page, re.MULTILINE)
        if found is None:
            raise BenchError(f"no figure for the tasks on the page of metrics:\n{page[:300]}")
        process = Path("/proc") / str(self.daemon.pid)
        resident = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return Measured(
            resident / 2**20,
            len(list((process / "fd").iterdir())),
            int(float(found[1])),
            int(status["sessions"]["open"]),
            int(status["kernelRelay"]["sessions"]),
            int(status["kernelRelay"]["strays"] or 2 * status["kernelRelay"]["sessions"]),
        )

    # Clients.

    async def client(self) -> None:
        """Come, talk and go again and again until cancelled."""
        while True:
            await trio.sleep(self.rng.uniform(0, 0.5))
            try:
                with trio.fail_after(60):
                    await self._session()
            except* (OSError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                self.happened["connection lost"] += 1
            except* trio_websocket.HandshakeError:
                self.happened["handshake refused"] += 1
            except* trio_websocket.ConnectionClosed as group:
                reason = group.exceptions[0]
                code = (
                    reason.reason.code
                    if isinstance(reason, trio_websocket.ConnectionClosed) and reason.reason
                    else 1006
                )
                self.happened[f"closed with {code}"] += 1

    async def _session(self) -> None:
        rng, url = self.rng, f"ws://127.0.0.1:{self.ports[0]}/soak"
        async with trio.open_nursery() as nursery:
            with trio.fail_after(GO_AWAY):
                connection = await trio_websocket.connect_websocket_url(nursery, url)
            self.happened["sessions"] += 1
            try:
                for _ in range(rng.randrange(12)):
                    await trio.sleep(rng.expovariate(2.0))
                    sent = rng.randbytes(rng.choice((0, 10, 300, 70_000)))
                    with trio.fail_after(GO_AWAY):
                        await connection.send_message(sent)
                        received = await connection.get_message()
                    self.happened["echoes"] += 1
                    if received != sent:
                        self.wrong.append(f"{len(sent)} bytes came back as {len(received)} others")
                if rng.random() < 0.7:
                    with trio.move_on_after(GO_AWAY):
                        await connection.aclose()
                    self.happened["ended in good order"] += 1
                else:
                    self.happened["broken off by the client"] += 1
            finally:
                await trio.aclose_forcefully(connection._stream)  # noqa: SLF001 - it leaves it to the garbage collector
                nursery.cancel_scope.cancel()

    # Faults.

    async def disturb(self) -> None:
        """Do something to it every second or so until cancelled."""
        deeds = (
            self._reload,
            self._reload,
            self._reload_badly,
            self._drain,
            self._drain,
            self._kill,
            self._halt,
            self._rebalance,
        )
        while True:
            await trio.sleep(self.rng.uniform(0.2, 2.0))
            deed = self.rng.choice(deeds)
            self.happened[deed.__name__.strip("_").replace("_", " ")] += 1
            await deed()

    async def _reload(self) -> None:
        servers = [
            {"url": f"http://127.0.0.1:{port}"}
            for port in self.rng.sample(self.ports[2:], self.rng.randint(2, BACKENDS))
        ]
        self.write(servers=servers, onRemove=self.rng.choice(("keep", "drain")))
        for _ in range(self.rng.choice((1, 1, 10))):
            os.kill(self.daemon.pid, signal.SIGHUP)

    async def _reload_badly(self) -> None:
        (self.folder / "daemon.yaml").write_text("http: [not: what, was: expected")
        os.kill(self.daemon.pid, signal.SIGHUP)
        await trio.sleep(0.3)
        self.write()

    async def _drain(self) -> None:
        backend = f"127.0.0.1:{self.rng.choice(self.ports[2:])}"
        await self.ask("/drain", {"backend": backend})
        await trio.sleep(self.rng.uniform(0, 4))
        await self.ask("/ready", {"backend": backend})

    async def _rebalance(self) -> None:
        await self.ask("/rebalance", {})

    async def _kill(self) -> None:
        port = self.rng.choice(self.ports[2:])
        process = self.backends[port]
        os.kill(process.pid, signal.SIGKILL)
        await trio.sleep(self.rng.uniform(0, 2))
        await trio.to_thread.run_sync(process.stop)
        self.start_backend(port)

    async def _halt(self) -> None:
        process = self.backends[self.rng.choice(self.ports[2:])]
        os.kill(process.pid, signal.SIGSTOP)
        await trio.sleep(self.rng.uniform(0.5, 8))
        os.kill(process.pid, signal.SIGCONT)

    # The whole.

    async def churn(self, seconds: float) -> None:
        """Let clients come and everything happen for so long; then bring all back to where it was."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(self.clients):
                    nursery.start_soon(self.client)
                nursery.start_soon(self.disturb)
        for process in self.backends.values():
            os.kill(process.pid, signal.SIGCONT)
        for port in self.ports[2:]:
            await self._until_listening(port)
        self.write()
        await self.ask("/reload", {})
        for port in self.ports[2:]:
            await self.ask("/ready", {"backend": f"127.0.0.1:{port}"})

    async def _until_listening(self, port: int) -> None:
        try:
            await trio.to_thread.run_sync(self.backends[port].wait_until_listening, port)
        except BenchError:  # a stop of the churn came between its end and its new beginning
            await trio.to_thread.run_sync(self.backends[port].stop)
            self.start_backend(port)
            await trio.to_thread.run_sync(self.backends[port].wait_until_listening, port)

    async def run(self, seconds: float) -> list[str]:
        """Run it and return what is wrong."""
        await self.churn(seconds * WARM_UP)
        before = await self.measure()
        await self.churn(seconds * (1 - WARM_UP))
        after = await self.measure()
        print(f"\n{'':14}{'before':>12}{'after':>12}")
        for name in ("memory", "descriptors", "tasks", "sessions", "in_kernel", "in_map"):
            one, two = getattr(before, name), getattr(after, name)
            form = ".1f" if name == "memory" else "d"
            print(
                f"{name.replace('_', ' '):14}{one:>12{form}}{two:>12{form}}{'  MiB' if name == 'memory' else ''}"
            )
        for line in self._lines():
            if line.get("msg") == "session opened":
                self.happened[f"relayed by {line['relay']}"] += 1
        print("\nwhat happened:")
        for name, count in sorted(self.happened.items()):
            print(f"  {name:28}{count:>8}")
        return [*self.wrong[:5], *self._faults(), *after.leaks(before)]

    def _lines(self) -> list[dict[str, Any]]:
        """Return what the daemon has logged."""
        lines = (self.folder / "daemon.log").read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def _faults(self) -> list[str]:
        """Return what the log says of faults of the daemon's own, and what is no log line at all."""
        lines = (self.folder / "daemon.log").read_text(errors="replace").splitlines()
        strange = [line for line in lines if line and not line.startswith("{")]
        return [
            *(str(line)[:500] for line in self._lines() if "internal error" in line.get("msg", "")),
            *strange[:5],
        ]


def main() -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=60, help="at a time")
    parser.add_argument("--relay", choices=("stream", "kernel"), default="stream")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun = time.monotonic()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        soak = Soak(Path(folder), random.Random(options.seed), options.clients, options.relay)
        try:
            raise_descriptor_limit(4 * options.clients + 200)
            soak.start(stack)
            problems = trio.run(soak.run, options.minutes * 60)
        except BenchError as error:
            print(f"soak: {error}", file=sys.stderr)
            return 1
    print(
        f"\n{time.monotonic() - begun:.0f} s, relay {options.relay}:",
        "nothing is left over" if not problems else "",
    )
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
