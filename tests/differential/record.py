"""What a case asks, and what was seen of it: at the client and behind the proxy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from attrs import evolve, field, frozen

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="

View = dict[str, object]
"""What was seen, flat: ``status``, ``field NAME``, ``app.0.target`` and so on. A later request's keys begin with its number."""


@frozen
class Ask:
    """One request. `lines` are header lines beside Host; `hold` keeps the session open until the case is over."""

    method: str = "GET"
    target: str = "/"
    lines: tuple[str, ...] = ()
    body: bytes = b""
    host: str | None = None
    """Another Host than the router's; "" is an empty one."""
    version: str = "1.1"
    source: str = "127.0.0.1"
    answer: str = ""
    """Which answer the backend gives, by its name in `servers.ANSWERS`."""
    upgrade: bool = False
    hold: bool = False
    server_name: str | None = None
    """Over TLS, asking for this name; "" for none."""
    shows: str = ""
    """Which certificate the client shows."""
    tls_version: str = ""
    alpn: tuple[str, ...] = ()
    before: bytes = b""
    """What stands before the request: the header of a proxy."""

    def encoded(self, host: str, values: Mapping[str, str]) -> bytes:
        """Return the request for a router that wants `host`; names in braces in `lines` become their `values`."""
        lines = [
            f"{self.method} {self.target} HTTP/{self.version}",
            f"Host: {host if self.host is None else self.host.replace('{host}', host)}",
        ]
        if self.upgrade:
            lines += [
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                f"Sec-WebSocket-Key: {KEY}",
            ]
        if self.answer:
            lines.append(f"X-Answer: {self.answer}")
        if self.body and not any(line.lower().startswith("transfer-encoding") for line in self.lines):
            lines.append(f"Content-Length: {len(self.body)}")
        for line in self.lines:
            lines.append(re.sub(r"\{(\w+)\}", lambda match: values[match[1]], line))
        return self.before + "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def get(target: str = "/", *lines: str, answer: str = "", source: str = "127.0.0.1") -> Ask:
    """Return a plain request."""
    return Ask("GET", target, lines, answer=answer, source=source)


def ws(
    target: str = "/", *lines: str, answer: str = "", source: str = "127.0.0.1", hold: bool = False
) -> Ask:
    """Return a handshake."""
    return Ask("GET", target, lines, answer=answer, source=source, upgrade=True, hold=hold)


def post(body: bytes, *lines: str, target: str = "/", answer: str = "") -> Ask:
    """Return a request with a body."""
    return Ask("POST", target, lines, body, answer=answer)


def other(method: str, target: str = "/", *lines: str, answer: str = "") -> Ask:
    """Return a request without a body and with another method than GET."""
    return Ask(method, target, lines, answer=answer)


@frozen
class Difference:
    """An intended difference: its name in the documentation, and what each of the two shows."""

    name: str
    keys: str
    """Which parts of a view differ: a pattern in the manner of a shell."""
    traefik: object = ...
    """A value, None for nothing, ``...`` for anything."""
    ours: object = ...
    where: Mapping[str, object] = field(factory=dict)
    """Further parts of Traefik's view that must be as given here."""

    def explains(self, key: str, traefik: View, ours: View) -> bool:
        """Whether what differs at `key` is this difference."""
        number, colon, bare = key.rpartition(": ")
        if not fnmatchcase(bare, self.keys):
            return False
        fits = all(traefik.get(number + colon + other) == value for other, value in self.where.items())
        return fits and all(
            wanted is ... or view.get(key) == wanted
            for view, wanted in ((traefik, self.traefik), (ours, self.ours))
        )


@frozen
class Case:
    """Requests through one router, and where the two are to differ beside what differs everywhere.

    `through` names middlewares in order, `service` the router's. With `spread` it is chance which server answers
    which request, and only how often each did is compared. `rule` stands beside the Host that leads to the router.
    """

    name: str
    asks: tuple[Ask, ...]
    through: tuple[str, ...]
    service: str
    differs: tuple[Difference, ...]
    spread: bool
    rule: str
    tls: Mapping[str, Any] | None = None
    """The router's `tls`."""
    entry: str = "web"
    """The entry point."""
    arrivals: int = 0
    """Requests that servers must have got before the case is over; what a mirror gets comes when it likes."""


def case(
    name: str,
    *asks: Ask,
    through: str | Sequence[str] = (),
    service: str = "app",
    differs: Sequence[Difference] = (),
    spread: bool = False,
    rule: str = "",
    tls: Mapping[str, Any] | None = None,
    entry: str = "web",
    arrivals: int = 0,
) -> Case:
    """Return a case; `through` is one middleware or several."""
    names = (through,) if isinstance(through, str) else tuple(through)
    return Case(name, asks, names, service, tuple(differs), spread, rule, tls, entry, arrivals)


def times(number: int, ask: Ask) -> list[Ask]:
    """Return `ask` so many times."""
    return [evolve(ask) for _ in range(number)]
