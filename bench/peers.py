"""What is measured: no proxy at all, the proxies of others, and trio-wsb in its variants.

A new proxy is one more class with the interface of `Peer` and a line in `PEERS`.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version as distribution_version
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen

import trio_wsb
from bench.others import Caddy, HAProxy, Nginx, Traefik
from bench.peer import Direct, Peer, Running
from bench.processes import START_TIMEOUT, MissingToolError, free_port, running
from trio_wsb.proxy.relaying import RelayMode

REPOSITORY = Path(__file__).parents[1]
CLANG = "clang-14"


@frozen
class TrioWsb:
    """This project's daemon, by least connections, with the Python that runs the bench.

    `routed` gives it ten routers with a Host and PathPrefix rule, a rate limit and headers: what that costs shows
    in handshakes alone, so it takes part in nothing else. `blind` has a kernel relay that does not look at frames, built
    by the bench: what the look costs shows in echoes.
    """

    name: str
    relay: RelayMode = "stream"
    routed: bool = False
    blind: bool = False

    def version(self) -> str:
        """Such as ``trio-wsb 0.1.0 (Python 3.11.7, trio 0.30.0)``.

        Raises:
          MissingToolError: it cannot relay in the kernel here, and is to.

        """
        if self.relay == "kernel":
            _require_kernel_relay()
        if self.blind and shutil.which(CLANG) is None:
            raise MissingToolError(f"{CLANG} is not installed")
        ours = trio_wsb.__version__
        python = ".".join(map(str, sys.version_info[:3]))
        return f"trio-wsb {ours} (Python {python}, trio {distribution_version('trio')})"

    @contextmanager
    def running(self, backends: Sequence[int], sessions: int) -> Iterator[Running]:
        """See `Peer`."""
        make: Callable[..., str] = routed_configuration if self.routed else trio_wsb_configuration
        with TemporaryDirectory(prefix="bench-trio-wsb-") as name:
            home = blind_copy(Path(name)) if self.blind else REPOSITORY
            with _daemon(
                Path(name), lambda port: make(port, backends, sessions, relay=self.relay), home
            ) as target:
                yield target


@contextmanager
def _daemon(
    directory: Path, configuration: Callable[[int], str], home: Path = REPOSITORY
) -> Iterator[Running]:
    port, file = free_port(), directory / "trio-wsb.yaml"
    file.write_text(configuration(port))
    command: list[str | Path] = [sys.executable, "-m", "trio_wsb", "run", "--config", file]
    with running("trio-wsb", command, directory / "output.log", port=port, cwd=home) as process:
        yield Running((port,), process, lambda: os.kill(process.pid, signal.SIGHUP))


def blind_copy(directory: Path) -> Path:
    """Return the directory of a copy of the package whose kernel relay does not look at frames. Raises CalledProcessError."""
    home = directory / "blind"
    shutil.copytree(
        Path(trio_wsb.__file__).parent, home / "trio_wsb", ignore=shutil.ignore_patterns("__pycache__")
    )
    # Its self-test would say, rightly, that frames are not counted.
    start = home / "trio_wsb" / "daemon" / "kernelrelay.py"
    start.write_text(start.read_text().replace("await self_test(table)", "await trio.lowlevel.checkpoint()"))
    program = home / "trio_wsb" / "net" / "kernel" / "relay.bpf.c"
    include = f"/usr/include/{platform.machine()}-linux-gnu"
    flags = ["-O2", "-g0", "-mcpu=v3", "-target", "bpf", "-DBLIND", "-Wno-unused-function", "-I", include]
    subprocess.run([CLANG, *flags, "-c", program, "-o", program.with_suffix(".o")], check=True)
    return home


def _require_kernel_relay() -> None:
    """Ask a daemon.

    Raises:
      MissingToolError: it says that it has none, and why.

    """
    with TemporaryDirectory(prefix="bench-trio-wsb-") as name:
        directory, deadline = Path(name), time.monotonic() + START_TIMEOUT
        with _daemon(
            directory,
            lambda port: trio_wsb_configuration(port, [free_port()], 1, relay="kernel", level="INFO"),
        ):
            # It listens before it has tried.
            while (found := kernel_relay_said((directory / "output.log").read_text())) is None:
                if time.monotonic() > deadline:
                    found = "the daemon says nothing of it"
                    break
                time.sleep(0.05)
    if found:
        raise MissingToolError(f"no relay in the kernel ({found})")


def kernel_relay_said(log: str) -> str | None:
    """Return why there is no relay in the kernel, "" if there is one, None if `log` does not say yet."""
    if "kernel relay ready" in log:
        return ""
    found = re.search(r"no kernel relay.*reason=(.*)", log)
    return None if found is None else found[1].strip()


def trio_wsb_configuration(
    port: int, backends: Sequence[int], sessions: int, *, relay: RelayMode = "stream", level: str = "WARN"
) -> str:
    """Return the text of trio-wsb.yaml: one router for everything, one service."""
    return _configuration(
        port,
        backends,
        sessions,
        relay,
        level,
        '    all: {rule: "PathPrefix(`/`)", service: chat}\n',
    )


def routed_configuration(
    port: int, backends: Sequence[int], sessions: int, *, relay: RelayMode = "stream", level: str = "WARN"
) -> str:
    """Return the text of trio-wsb.yaml with ten routers, of which the load generator's requests take the last."""
    hosts = [*(f"host{number}.example.com" for number in range(9)), "127.0.0.1"]
    routers = "".join(
        f'    r{number}: {{rule: "Host(`{host}`) && PathPrefix(`/chat`)", service: chat, middlewares: [limit, fields]}}\n'
        for number, host in enumerate(hosts)
    )
    middlewares = """\
  middlewares:
    limit: {rateLimit: {average: 1000000, burst: 1000000}}
    fields:
      headers:
        customRequestHeaders: {X-Served-By: bench, X-Debug: ""}
        customResponseHeaders: {X-Content-Type-Options: nosniff}
"""
    return _configuration(port, backends, sessions, relay, level, routers + middlewares)


def _configuration(
    port: int, backends: Sequence[int], sessions: int, relay: RelayMode, level: str, routers: str
) -> str:
    servers = ", ".join(f'{{url: "http://127.0.0.1:{backend}"}}' for backend in backends)
    return f"""\
entryPoints:
  web: {{address: "127.0.0.1:{port}", maxConnections: {max(20000, sessions + 512)}}}
log: {{level: {level}}}
kernelRelay: {{enabled: {str(relay != "stream").lower()}}}
http:
  routers:
{routers}  services:
    chat:
      loadBalancer:
        relay: {relay}
        servers: [{servers}]
        connectionCount: {{path: /metric}}
"""


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Direct(),
        Nginx(),
        Nginx("nginx-auto", workers="auto"),
        HAProxy(),
        Traefik(),
        Caddy(),
        TrioWsb("trio-wsb-kernel", relay="kernel"),
        TrioWsb("trio-wsb-blind", relay="kernel", blind=True),
        TrioWsb("trio-wsb-stream"),
        TrioWsb("trio-wsb-routed", routed=True),
    )
}
"""In the order in which a round visits them."""
