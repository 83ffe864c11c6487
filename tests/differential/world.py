"""Both proxies with the same dynamic file, and asking them."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from attrs import frozen
from cryptography import x509

from tests.daemon.harness import PATIENCE, free_port
from tests.differential.record import Ask, Case, View
from tests.differential.servers import Seen, Servers
from tests.traefik.harness import traefik_program

TRUSTED: Final = "127.0.0.2"
"""The client whose X-Forwarded-* fields are believed."""

APPS: Final = ("app1", "app2", "app3")

_RETRY_IN: Final = re.compile(r"(\d+)\.\d+(m?s)$")

Secure = Callable[[socket.socket], ssl.SSLSocket]
"""Makes a connection a TLS connection."""

_CLOSE_FRAME: Final = b"\x88\x82\x00\x00\x00\x00\x03\xe8"


@frozen
class World:
    """What the cases run in."""

    servers: Servers
    traefik: int
    """Port of its entry point."""
    ours: int
    hosts: Mapping[str, str]
    """The Host of each case, by its name."""
    cookies: Mapping[str, str]
    """The value of a sticky cookie for each server."""
    files: Path
    """Where clients' certificates are."""
    entries: Mapping[tuple[int, str], int]
    """The port of each other entry point, by that of the first one and its name."""

    def see(self, case: Case, port: int) -> View:
        """Make the requests of `case` and return what was seen."""
        self.servers.take()
        port = self.entries.get((port, case.entry), port)
        view: View = {}
        chosen: Counter[str] = Counter()
        with ExitStack() as held:
            for number, ask in enumerate(case.asks):
                prefix = f"{number}: " if number else ""
                host = self.hosts[case.name]
                found = exchange(port, ask.encoded(host, self.cookies), ask, held, self.secure(ask, host))
                found |= _behind(self.servers.take(case.arrivals), chosen, spread=case.spread)
                view |= {prefix + key: value for key, value in found.items()}
        if case.spread:
            view["servers"] = tuple(sorted(chosen.items()))
        return view

    def secure(self, ask: Ask, host: str) -> Secure | None:
        """Return what makes the connection for `ask` a TLS connection, if it is to be one."""
        if ask.server_name is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if ask.shows:
            context.load_cert_chain(self.files / f"{ask.shows}.pem", self.files / f"{ask.shows}.key")
        if ask.tls_version:
            only = ssl.TLSVersion[f"TLSv{ask.tls_version.replace('.', '_')}"]
            context.minimum_version = context.maximum_version = only
        if ask.alpn:
            context.set_alpn_protocols(ask.alpn)
        name = ask.server_name.replace("{host}", host) or None
        return lambda sock: context.wrap_socket(sock, server_hostname=name)


def _shown(secured: ssl.SSLSocket) -> View:
    """Return what a client sees of a TLS connection before it asks for anything."""
    data = secured.getpeercert(binary_form=True)
    assert data is not None
    certificate = x509.load_der_x509_certificate(data)
    common_names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    shown = [each.value for each in common_names] or names.get_values_for_type(x509.DNSName)
    return {"shown": tuple(shown), "version": secured.version(), "protocol": secured.selected_alpn_protocol()}


def exchange(port: int, request: bytes, ask: Ask, held: ExitStack, secure: Secure | None = None) -> View:
    """Send `request`, which is `ask`, on a connection of its own; return what the client saw."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (ask.source, 0))
    with ExitStack() as closing:
        closing.enter_context(sock)
        over_tls: View = {}
        if secure is not None:
            try:
                secured = secure(sock)
            except ssl.SSLError as error:
                return {"handshake": error.reason}
            sock = closing.enter_context(secured)
            over_tls = _shown(secured)
        sock.sendall(request)
        response = closing.enter_context(HTTPResponse(sock, method=ask.method))
        try:
            response.begin()
            body = response.read()
        except ssl.SSLError as error:  # in TLS 1.3 the client's certificate is judged after its handshake
            return {"handshake": error.reason, **over_tls}
        except (HTTPException, OSError) as error:
            return {"cut off": type(error).__name__}
        view: View = {"status": response.status, "body": body, **over_tls}
        fields = response.headers.items()
        view |= _fields("field", fields)
        if response.headers.get("content-encoding") == "gzip":
            view["body"] = gzip.decompress(body)
        if response.status != 101:
            return view
        if ask.hold:
            held.enter_context(closing.pop_all())
        else:
            sock.sendall(_CLOSE_FRAME)
            with suppress(OSError):
                view["end"] = _rest(sock)
    return view


def _rest(sock: socket.socket) -> bytes:
    rest = b""
    while data := sock.recv(4096):
        rest += data
    return rest


def _fields(kind: str, fields: Sequence[tuple[str, str]]) -> View:
    """Return header fields as they are compared: names in lower case, in no order but that of equal names.

    The order of cookies and of what is listed in Vary means nothing, and time decides about a few values.
    """
    view: dict[str, Any] = {}
    for name, value in fields:
        key = f"{kind} {name.lower()}"
        view[key] = (*view.get(key, ()), value)
    for key, found in view.items():
        lower = key.rpartition(" ")[2]
        if lower in {"vary", "set-cookie"}:
            view[key] = tuple(sorted(found))
        elif lower == "date":
            view[key] = tuple("now" if "1994" not in value else value for value in found)
        elif lower == "x-retry-in":
            view[key] = tuple(_RETRY_IN.sub(_whole, value) for value in found)
    return view


def _whole(match: re.Match[str]) -> str:
    """Return a duration in Go's notation in whole units, and milliseconds as one."""
    return match[2] if match[2] == "ms" else f"{int(match[1]) + 1}{match[2]}"


def _behind(seen: Sequence[Seen], chosen: Counter[str], *, spread: bool) -> View:
    """Return what the servers saw of one request."""
    view: View = {}
    numbers: Counter[str] = Counter()
    for each in seen:
        kind = "auth" if each.server == "auth" else "app"
        number, numbers[kind] = numbers[kind], numbers[kind] + 1
        prefix = f"{kind}.{number}" if number else kind
        if kind == "app":
            chosen[each.server] += 1
            if not spread:
                view[f"{prefix} server"] = each.server
        view[f"{prefix} method"] = each.method
        view[f"{prefix} target"] = each.target
        view[f"{prefix} body"] = each.body
        view |= _fields(f"{prefix} field", each.fields)
    return view


def documents(
    cases: Sequence[Case], middlewares: Mapping[str, Any], services: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """Return the dynamic file: a router for each case, found by its Host."""
    routers = {}
    for number, each in enumerate(cases):
        rule = f"Host(`c{number}.test`)"
        routers[f"c{number}"] = {
            "rule": f"{rule} && {each.rule}" if each.rule else rule,
            "service": each.service,
            "entryPoints": [each.entry],
            **({"middlewares": list(each.through)} if each.through else {}),
            **({} if each.tls is None else {"tls": dict(each.tls)}),
        }
    return {
        "http": {"routers": routers, "services": dict(services), "middlewares": dict(middlewares), **more}
    }


def _wait(port: int, process: subprocess.Popen[bytes], log: Path, host: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text("utf-8", "replace")[-4000:]
        with suppress(httpx.TransportError):
            if (
                httpx.get(f"http://127.0.0.1:{port}/", headers={"Host": host}, trust_env=False).status_code
                != 404
            ):
                return
        time.sleep(0.02)  # no event tells when a program that is not ours has read its files
    raise AssertionError(f"{process.args!r} does not answer: {log.read_text('utf-8', 'replace')[-4000:]}")


@contextmanager
def _program(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def quiet_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on, none of those that the kernel gives to clients."""
    found: list[int] = []
    for port in range(10_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("every port is taken")


@contextmanager
def running(
    directory: Path,
    cases: Sequence[Case],
    dynamic: dict[str, Any],
    servers: Servers,
    others: Mapping[str, Any],
) -> Iterator[World]:
    """Run both with the same dynamic file, and the same entry points beside the first, until the block ends."""
    program = traefik_program()
    assert program is not None
    entry = {"forwardedHeaders": {"trustedIPs": [f"{TRUSTED}/32"]}}
    theirs, ours = free_port(), free_port()
    quiet = quiet_ports(2 * len(others))
    entries = {(base, name): quiet.pop() for base in (theirs, ours) for name in others}

    def places(base: int) -> dict[str, Any]:
        return {
            name: {"address": f"127.0.0.1:{entries[base, name]}", **options}
            for name, options in others.items()
        }

    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {"web": {"address": f"127.0.0.1:{theirs}", **entry}, **places(theirs)},
        "providers": {"file": {"filename": str(directory / "dynamic.yml"), "watch": False}},
    }
    own = {
        "entryPoints": {"web": {"address": f"127.0.0.1:{ours}", **entry}, **places(ours)},
        "log": {"format": "json"},
        "control": {"socket": str(directory / "control.sock")},
        **dynamic,
    }
    (directory / "dynamic.yml").write_text(yaml.safe_dump(dynamic))
    (directory / "traefik.yml").write_text(json.dumps(static))
    (directory / "trio-wsb.yml").write_text(yaml.safe_dump(own))
    hosts = {each.name: f"c{number}.test" for number, each in enumerate(cases)}
    plain = next(hosts[each.name] for each in cases if not each.through and each.service == "app")
    with (
        _program(directory / "theirs", program, f"--configFile={directory / 'traefik.yml'}") as first,
        _program(
            directory / "ours",
            sys.executable,
            "-m",
            "trio_wsb",
            "run",
            "--config",
            str(directory / "trio-wsb.yml"),
        ) as second,
    ):
        _wait(theirs, first, directory / "theirs", plain)
        _wait(ours, second, directory / "ours", plain)
        cookies = {name: sha256(url.encode()).hexdigest()[:16] for name, url in servers.urls.items()}
        yield World(servers, theirs, ours, hosts, cookies, directory, entries)
