"""Both proxies with the same dynamic file, and asking them."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from attrs import frozen

from tests.daemon.harness import PATIENCE, free_port
from tests.differential.record import Ask, Case, View
from tests.differential.servers import Seen, Servers
from tests.traefik.harness import traefik_program

TRUSTED: Final = "127.0.0.2"
"""The client whose X-Forwarded-* fields are believed."""

APPS: Final = ("app1", "app2", "app3")

_RETRY_IN: Final = re.compile(r"(\d+)\.\d+(m?s)$")

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

    def see(self, case: Case, port: int) -> View:
        """Make the requests of `case` and return what was seen."""
        self.servers.take()
        view: View = {}
        chosen: Counter[str] = Counter()
        with ExitStack() as held:
            for number, ask in enumerate(case.asks):
                prefix = f"{number}: " if number else ""
                found = exchange(port, ask.encoded(self.hosts[case.name], self.cookies), ask, held)
                found |= _behind(self.servers.take(), chosen, spread=case.spread)
                view |= {prefix + key: value for key, value in found.items()}
        if case.spread:
            view["servers"] = tuple(sorted(chosen.items()))
        return view


def exchange(port: int, request: bytes, ask: Ask, held: ExitStack) -> View:
    """Send `request`, which is `ask`, on a connection of its own; return what the client saw."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (ask.source, 0))
    with ExitStack() as closing:
        closing.enter_context(sock)
        sock.sendall(request)
        response = closing.enter_context(HTTPResponse(sock, method=ask.method))
        try:
            response.begin()
            body = response.read()
        except (HTTPException, OSError) as error:
            return {"cut off": type(error).__name__}
        view: View = {"status": response.status, "body": body}
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
            "entryPoints": ["web"],
            **({"middlewares": list(each.through)} if each.through else {}),
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


@contextmanager
def running(
    directory: Path, cases: Sequence[Case], dynamic: dict[str, Any], servers: Servers
) -> Iterator[World]:
    """Run both with the same dynamic file until the block ends."""
    program = traefik_program()
    assert program is not None
    entry = {"forwardedHeaders": {"trustedIPs": [f"{TRUSTED}/32"]}}
    theirs, ours = free_port(), free_port()
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {"web": {"address": f"127.0.0.1:{theirs}", **entry}},
        "providers": {"file": {"filename": str(directory / "dynamic.yml"), "watch": False}},
    }
    own = {
        "entryPoints": {"web": {"address": f"127.0.0.1:{ours}", **entry}},
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
        yield World(servers, theirs, ours, hosts, cookies)
