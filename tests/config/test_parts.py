"""Small parts of the model that know something of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.helpers import config, lines
from trio_wsb.config.accesslog import StatusRange
from trio_wsb.config.docker import parse_engine_url
from trio_wsb.config.entrypoints import UnixSocket
from trio_wsb.config.offered import redirection_port
from trio_wsb.config.problems import printable
from trio_wsb.middleware.retry import RetryOptions

ROOT = Path(__file__).parents[2]


def test_a_range_of_statuses() -> None:
    errors = StatusRange(500, 599)
    assert [status in errors for status in (499, 500, 599, 600, "500", None)] == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(("permissions", "mode"), [(None, None), ("0660", 0o660), ("600", 0o600)])
def test_the_mode_of_a_socket(permissions: str | None, mode: int | None) -> None:
    assert UnixSocket(permissions=permissions).mode == mode


@pytest.mark.parametrize(("to", "port"), [("secure", 8443), (":444", 444)])
def test_where_a_redirection_leads(to: str, port: int) -> None:
    read = config(
        f"entryPoints: {{web: {{address: ':80', http: {{redirections: {{entryPoint: {{to: '{to}'}}}}}}}}, "
        "secure: {address: ':8443'}}\n"
    )
    target = read.entry_points["web"].http.redirections.entry_point
    assert target is not None
    assert redirection_port(read, target) == port


def test_the_options_of_a_middleware_are_those_of_its_kind() -> None:
    read = config("http: {middlewares: {again: {retry: {attempts: 3}}}}\n")
    options = read.http.middlewares["again"].options
    assert isinstance(options, RetryOptions)
    assert options.attempts == 3


def test_the_certificate_for_names_that_no_other_one_has() -> None:
    assert config("http: {}\n").tls.default_certificate is None
    certificate = config(
        "tls: {stores: {default: {defaultCertificate: {certFile: /a, keyFile: /b}}}}\n"
    ).tls.default_certificate
    assert certificate is not None
    assert (certificate.cert_file, certificate.key_file) == ("/a", "/b")


def test_what_is_long_is_shown_short_and_on_one_line() -> None:
    shown = printable("a\n" * 10_000)
    assert shown.startswith("a\\na\\n")
    assert shown.endswith("...")
    assert len(shown) < 1000


@pytest.mark.parametrize(
    "text", ["unix:///run/docker sock", "tcp://eng\nine", "tcp://engine\\x", "tcp://ëngine"]
)
def test_characters_that_no_url_has(text: str) -> None:
    with pytest.raises(ValueError, match="has a character that no URL may have"):
        parse_engine_url(text)


def test_a_service_without_servers_that_may_be_empty() -> None:
    text = (
        "http: {services: {chat: {failover: {service: main, fallback: spare}}, "
        "main: {loadBalancer: {servers: []}}, spare: {loadBalancer: {servers: [{url: http://a}]}}}}\n"
    )
    assert lines(text) == [
        "f.yaml:1:102 http.services.main.loadBalancer.servers: is empty (write at least one server)"
    ]


def test_the_command_that_the_reference_is_made_with() -> None:
    command = [sys.executable, "-m", "trio_wsb.config.reference"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert made.stdout == (ROOT / "docs" / "reference" / "configuration.md").read_text()
