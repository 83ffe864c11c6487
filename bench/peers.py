"""What is measured: no proxy at all, nginx, and trio-wsb. Their configurations, and how they are started.

A new proxy is one more class with the interface of `Peer` and a line in `PEERS`. A configuration says what a
careful operator would say for WebSockets, and switches off what costs and is not compared (access logs).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version as distribution_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from attrs import frozen

import trio_wsb
from bench.processes import MissingToolError, Process, free_port, run_quietly, running

REPOSITORY = Path(__file__).parents[1]


@frozen
class Running:
    """A peer that accepts connections on `ports` of 127.0.0.1; `process` is None where there is no proxy."""

    ports: tuple[int, ...]
    process: Process | None = None


class Peer(Protocol):
    """Something to measure."""

    @property
    def name(self) -> str:
        """As in ``--peers`` and in the tables."""

    def version(self) -> str:
        """Name and version, for the report.

        Raises:
          MissingToolError: it is not installed.

        """

    def running(self, backends: Sequence[int], sessions: int) -> AbstractContextManager[Running]:
        """Start a fresh one over the backends' ports, with room for `sessions`; stopped when the block ends.

        Raises:
          MissingToolError: it is not installed.
          BenchError: it does not come up.

        """


@frozen
class Direct:
    """No proxy: the clients talk to the backends. What this reaches is the limit of the bench itself."""

    name: str = "direct"

    def version(self) -> str:
        """Return the name."""
        return self.name

    def running(self, backends: Sequence[int], sessions: int) -> AbstractContextManager[Running]:  # noqa: ARG002 - Peer
        """Nothing to start."""
        return nullcontext(Running(tuple(backends)))


@frozen
class Nginx:
    """nginx with one worker, by least connections, run in the foreground from a temporary directory."""

    name: str = "nginx"

    def version(self) -> str:
        """Such as ``nginx 1.22.1``."""
        _, output = run_quietly([self._program(), "-v"])
        return output.strip().rpartition(" ")[2].replace("/", " ")

    @contextmanager
    def running(self, backends: Sequence[int], sessions: int) -> Iterator[Running]:
        """See `Peer`."""
        program = self._program()
        with TemporaryDirectory(prefix="bench-nginx-") as name:
            directory, port = Path(name), free_port()
            configuration = directory / "nginx.conf"
            configuration.write_text(nginx_configuration(port, backends, sessions, directory))
            log = directory / "error.log"
            command: list[str | Path] = [program, "-p", directory, "-e", log, "-c", configuration]
            with running("nginx", command, directory / "output.log", port=port) as process:
                yield Running((port,), process)

    def _program(self) -> str:
        # Debian installs it where only root's PATH looks.
        path = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin")
        if path is None:
            raise MissingToolError("nginx is not installed (Debian: apt-get install nginx-light)")
        return path


def nginx_configuration(port: int, backends: Sequence[int], sessions: int, directory: Path) -> str:
    """Return the text of nginx.conf: every path in `directory`, room for `sessions` (two connections each)."""
    servers = "\n".join(f"        server 127.0.0.1:{backend};" for backend in backends)
    temporary = "\n".join(
        f"    {kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
worker_processes 1;
worker_rlimit_nofile {4 * sessions + 1024};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{
    worker_connections {2 * sessions + 512};
}}
http {{
    access_log off;
{temporary}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}
    upstream backends {{
        least_conn;
{servers}
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://backends;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""


@frozen
class TrioWsb:
    """This project's daemon, by least connections, with the Python that runs the bench.

    `routed` gives it ten routers with a Host and PathPrefix rule, a rate limit and headers: what that costs shows
    in handshakes alone, so it takes part in nothing else.
    """

    name: str = "trio-wsb"
    routed: bool = False

    def version(self) -> str:
        """Such as ``trio-wsb 0.1.0 (Python 3.11.7, trio 0.30.0)``."""
        ours = trio_wsb.__version__
        python = ".".join(map(str, sys.version_info[:3]))
        return f"trio-wsb {ours} (Python {python}, trio {distribution_version('trio')})"

    @contextmanager
    def running(self, backends: Sequence[int], sessions: int) -> Iterator[Running]:
        """See `Peer`."""
        with TemporaryDirectory(prefix="bench-trio-wsb-") as name:
            directory, port = Path(name), free_port()
            configuration = directory / "trio-wsb.yaml"
            configuration.write_text(
                (routed_configuration if self.routed else trio_wsb_configuration)(port, backends, sessions)
            )
            command: list[str | Path] = [sys.executable, "-m", "trio_wsb", "run", "--config", configuration]
            with running("trio-wsb", command, directory / "output.log", port=port, cwd=REPOSITORY) as process:
                yield Running((port,), process)


def trio_wsb_configuration(port: int, backends: Sequence[int], sessions: int) -> str:
    """Return the text of trio-wsb.yaml, in the short form."""
    pods = ", ".join(f'"http://127.0.0.1:{backend}"' for backend in backends)
    return f"""\
entryPoints:
  web: {{address: "127.0.0.1:{port}", maxConnections: {max(20000, sessions + 512)}}}
log: {{level: WARN}}
wsbalancer:
  metricPath: "/metric"
  pods: [{pods}]
"""


def routed_configuration(port: int, backends: Sequence[int], sessions: int) -> str:
    """Return the text of trio-wsb.yaml with ten routers, of which the load generator's requests take the last."""
    servers = ", ".join(f'{{url: "http://127.0.0.1:{backend}"}}' for backend in backends)
    hosts = [*(f"host{number}.example.com" for number in range(9)), "127.0.0.1"]
    routers = "".join(
        f'    r{number}: {{rule: "Host(`{host}`) && PathPrefix(`/chat`)", service: chat, middlewares: [limit, fields]}}\n'
        for number, host in enumerate(hosts)
    )
    return f"""\
entryPoints:
  web: {{address: "127.0.0.1:{port}", maxConnections: {max(20000, sessions + 512)}}}
log: {{level: WARN}}
http:
  routers:
{routers}  middlewares:
    limit: {{rateLimit: {{average: 1000000, burst: 1000000}}}}
    fields:
      headers:
        customRequestHeaders: {{X-Served-By: bench, X-Debug: ""}}
        customResponseHeaders: {{X-Content-Type-Options: nosniff}}
  services:
    chat: {{loadBalancer: {{servers: [{servers}], connectionCount: {{path: /metric}}}}}}
"""


PEERS: dict[str, Peer] = {
    peer.name: peer for peer in (Direct(), Nginx(), TrioWsb(), TrioWsb("trio-wsb-routed", routed=True))
}
"""In the order in which a round visits them."""
