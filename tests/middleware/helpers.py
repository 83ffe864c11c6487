"""Requests for middlewares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trio_wsb.addresses import parse_ip
from trio_wsb.http.framing import NO_BODY
from trio_wsb.http.head import RequestHead, ResponseHead, parse_request_head
from trio_wsb.http.headers import Field, Headers
from trio_wsb.middleware.exchange import Request
from trio_wsb.middleware.options import OptionProblem


def request(
    target: str = "/",
    fields: Iterable[Field] = (),
    *,
    method: str = "GET",
    host: str = "example.com",
    peer: str | None = "192.0.2.1",
    secure: bool = False,
    upgrade: bool = False,
) -> Request:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
    head = parse_request_head("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))
    return Request(head, None if peer is None else parse_ip(peer), secure=secure, upgrade=upgrade)


def old_client(target: str = "/") -> Request:
    """A request of an HTTP/1.0 client that sends no Host."""
    return Request(RequestHead("GET", target, (1, 0), Headers(), target, "", "", "", NO_BODY))


def response(status: int = 200, fields: Iterable[Field] = ()) -> ResponseHead:
    return ResponseHead(status, "", (1, 1), Headers(list(fields)))


def summary(problems: Iterable[OptionProblem]) -> list[tuple[Sequence[str | int], str]]:
    """What the problems are about, and how bad it is."""
    return [(problem.path, problem.severity) for problem in problems]
