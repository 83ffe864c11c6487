"""What operators write, and small texts of peers: rules, expressions, configuration, values, reports.

The promises: an error of ours or a value, never a traceback; every problem has a place and can be printed; a rule that is
accepted can be asked about any request.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.config.helpers import document
from trio_wsb.addresses import (
    parse_backend_url,
    parse_entry_address,
    parse_ip,
    parse_listen,
    parse_network,
)
from trio_wsb.balancing.report import ReportError, parse_report
from trio_wsb.config.effective import to_yaml
from trio_wsb.config.labels import read_labels
from trio_wsb.daemon.api.queries import parse_query
from trio_wsb.errors import HTTPError
from trio_wsb.http.head import split_authority
from trio_wsb.middleware.expression import ExpressionError, parse_expression
from trio_wsb.middleware.htpasswd import parse_users
from trio_wsb.middleware.origin import parse_origin
from trio_wsb.routing.request import RequestView, normal_host, normal_path
from trio_wsb.routing.rules import RuleError, parse_rule
from trio_wsb.units import parse_duration, parse_percent, parse_rate, parse_size

REQUESTS = [
    RequestView.of("a.example", "/ws/b?c=d", client=parse_ip("192.0.2.7")),
    RequestView.of("[::1]:80", "//x/../%2e%2e?%&=&a", method="PUT"),
]


class _Figures:
    def network_error_ratio(self) -> float:
        return 0.5

    def response_code_ratio(self, low: int, high: int, divisor_low: int, divisor_high: int) -> float:
        return (low - high) / (1 + abs(divisor_low - divisor_high))

    def latency_at_quantile(self, quantile: float) -> float:
        return quantile


def rule(data: bytes) -> None:
    """A rule of a router."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = parse_rule(text)
    except RuleError as error:
        assert str(error)
        return
    for request in REQUESTS:
        assert found.matches(request) in {True, False}
    assert found.default_priority > 0
    assert parse_rule(text) == found


def expression(data: bytes) -> None:
    """An expression of a circuit breaker."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = parse_expression(text)
    except ExpressionError as error:
        assert str(error)
        return
    assert found.holds(_Figures()) in {True, False}


def configuration(data: bytes) -> None:
    """A configuration file."""
    read = document(data)
    for problem in read.problems:
        assert str(problem).isprintable(), "a problem that cannot be printed"
        assert problem.line >= 1
        assert problem.column >= 1
    if not read.problems:
        assert read.config is not None
        again = document(to_yaml(read.config))
        assert again.problems == []
        assert again.config == read.config, "it reads back otherwise"


def labels(data: bytes) -> None:
    """Labels of a container, one a line as NAME=VALUE."""
    lines = (line.partition("=") for line in data.decode("utf-8", "surrogateescape").split("\n"))
    found = read_labels({name: value for name, _, value in lines})
    for finding in found.findings:
        assert finding.message


_VALUES: tuple[Callable[[str], object], ...] = (
    parse_duration, parse_size, parse_rate, parse_percent, parse_listen, parse_entry_address, parse_backend_url, parse_network,
    parse_ip, parse_origin, parse_users, parse_query, split_authority, normal_host, normal_path,
)  # fmt: skip


def values(data: bytes) -> None:
    """A single value; the first byte says of which kind."""
    if not data:
        return
    text = data[1:].decode("utf-8", "surrogateescape")
    try:
        _VALUES[data[0] % len(_VALUES)](text)
    except (ValueError, HTTPError):
        pass


def report(data: bytes) -> None:
    """A backend's report."""
    try:
        found = parse_report(data, "n")
    except ReportError as error:
        assert error.reason.isprintable()
        return
    assert found.connections >= 0
    for name in (found.pod_name, found.pod_ip, found.node_name):
        assert name is None or (name.isprintable() and len(name) <= 1024)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "rule": rule,
    "expression": expression,
    "configuration": configuration,
    "labels": labels,
    "values": values,
    "report": report,
}
