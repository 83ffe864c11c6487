"""What the configuration says of the Docker Engine as a source of backends: `providers.docker`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from trio_wsb.addresses import format_host, is_host
from trio_wsb.config.checks import FILE_PATH, NOT_EMPTY
from trio_wsb.config.constraints import Constraints
from trio_wsb.config.options import option
from trio_wsb.config.problems import Finding, KeyPath
from trio_wsb.config.template import RuleTemplate, parse_template
from trio_wsb.units import Duration

DEFAULT_SOCKET: Final = "/var/run/docker.sock"

DEFAULT_RULE: Final = parse_template("Host(`{{ normalize .Name }}`)")

_PORT: Final = 2375
_TLS_PORT: Final = 2376
_HINT: Final = 'write "unix:///var/run/docker.sock", "tcp://HOST:2376" or "https://HOST:2376"'


@frozen
class EngineURL:
    """Where an Engine listens: at the Unix socket `path`, or at `host` and `port`; `scheme` is unix, tcp, http or https.

    `port` is 0 where the URL has none.
    """

    scheme: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        return f"{self.scheme}://{format_host(self.host)}" + (f":{self.port}" if self.port else "")

    def base(self, *, tls: bool) -> str:
        """Return what request URLs begin with; the host of a Unix socket stands for nothing."""
        if self.scheme == "unix":
            return "http://docker"
        secure = self.scheme == "https" or (self.scheme == "tcp" and tls)
        default = {"http": 80, "https": 443}.get(self.scheme, _TLS_PORT if secure else _PORT)
        return f"{'https' if secure else 'http'}://{format_host(self.host)}:{self.port or default}"


def parse_engine_url(text: str) -> EngineURL:
    """Return the Engine that `text` names.

    Raises:
      ValueError: it names none; the message says what would be right.

    """
    if not text.isascii() or re.search(r"[\x00-\x20\x7f\\]", text):
        raise ValueError(f"has a character that no URL may have; {_HINT}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"is not a URL; {_HINT}") from None
    if parts.scheme in {"ssh", "npipe", "fd"}:
        raise ValueError(f"has a scheme that is not supported; {_HINT}")
    if parts.scheme not in {"unix", "tcp", "http", "https"} or "//" not in text:
        raise ValueError(f"has no scheme that is known here; {_HINT}")
    if "@" in parts.netloc:
        raise ValueError("has a user name or password; write them in username and password")
    if parts.query or parts.fragment:
        raise ValueError(f"has a query or a fragment; {_HINT}")
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/"):
            raise ValueError('has no absolute path; write "unix:///var/run/docker.sock"')
        return EngineURL("unix", path=parts.path)
    if parts.path not in {"", "/"} or not is_host(parts.hostname or "") or port == 0:
        raise ValueError(f"is no host and port; {_HINT}")
    return EngineURL(parts.scheme, host=parts.hostname or "", port=port or 0)


DEFAULT_ENDPOINT: Final = EngineURL("unix", path=DEFAULT_SOCKET)


@frozen
class EngineTLS:
    """How an Engine that listens with TLS is known, and how it knows us."""

    ca: str | None = option(
        "PEM file with the authorities to trust instead of the system's.", None, check=FILE_PATH
    )
    cert: str | None = option("PEM file with our certificate.", None, check=FILE_PATH)
    key: str | None = option("PEM file with its key.", None, check=FILE_PATH)
    insecure_skip_verify: bool = option("Do not verify the Engine's certificate.", default=False)


@frozen
class DockerProvider:
    """Containers: their labels say what they give, and the Engine tells when they come and go."""

    endpoint: EngineURL = option(
        "Where the Engine listens: `unix:///PATH`, `tcp://HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`. With `tls`, tcp "
        "means https.",
        DEFAULT_ENDPOINT,
    )
    tls: EngineTLS | None = option("TLS towards the Engine.", None)
    username: str | None = option(
        "User name for an Engine behind basic authentication.", None, check=NOT_EMPTY
    )
    password: str | None = option("Its password.", None, secret=True)
    exposed_by_default: bool = option(
        "Whether containers count that do not say `traefik.enable`; else those alone that say `true`.",
        default=True,
    )
    network: str | None = option(
        "Name of the network at whose addresses containers are reached; the label `traefik.docker.network` says it for one "
        "container. Else the first of its networks, by name.",
        None,
        check=NOT_EMPTY,
    )
    constraints: Constraints | None = option(
        "Only containers count whose labels fit: ``Label(`KEY`, `VALUE`)`` and ``LabelRegex(`KEY`, `PATTERN`)`` with `&&`, `||`, "
        "`!` and parentheses.",
        None,
    )
    default_rule: RuleTemplate = option(
        'The rule of routers that have none, with `{{ .Name }}`, `{{ .ContainerName }}` and `{{ index .Labels "KEY" }}` filled in.',
        DEFAULT_RULE,
    )
    use_bind_port_ip: bool = option(
        "Reach a container at the address and port of the host that its port is bound to, where it is bound to one.",
        default=False,
        key="useBindPortIP",
    )
    watch: bool = option(
        "Apply changes as they happen; else a reload asks for the containers again.", default=True
    )
    http_client_timeout: Duration = option(
        "Time for one answer of the Engine, the stream of events excepted. 0 is no limit.",
        Duration(15.0),
        key="httpClientTimeout",
    )
    allow_empty_services: bool = option(
        "Keep routers and services while none of their containers is well: 503 instead of 404.", default=False
    )


def docker_findings(docker: DockerProvider | None, path: KeyPath) -> Iterator[Finding]:
    """Yield what is wrong with `docker`, which stands at `path`."""
    if docker is None:
        return
    tls = docker.tls
    if tls is not None and docker.endpoint.scheme in {"unix", "http"}:
        message = f"has no effect: {docker.endpoint} is spoken to without TLS"
        hint = "write the endpoint as https://HOST:PORT or tcp://HOST:PORT, or leave tls out"
        yield Finding((*path, "tls"), message, hint, "warning", "effect", at="key")
    if tls is not None and (tls.cert is None) != (tls.key is None):
        given, missing = ("cert", "key") if tls.key is None else ("key", "cert")
        yield Finding(
            (*path, "tls", given), f"stands without {missing}", f"write {missing} too, or neither", at="key"
        )
    if (docker.username is None) != (docker.password is None):
        given, missing = ("username", "password") if docker.password is None else ("password", "username")
        yield Finding(
            (*path, given), f"stands without {missing}", f"write {missing} too, or neither", at="key"
        )
