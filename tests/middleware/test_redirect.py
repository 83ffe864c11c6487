from __future__ import annotations

import pytest

from tests.middleware.helpers import old_client, request, summary
from trio_wsb.http.headers import Field, serialise_fields
from trio_wsb.middleware.exchange import Answer
from trio_wsb.middleware.redirect import (
    Port,
    RedirectRegex,
    RedirectRegexOptions,
    RedirectScheme,
    RedirectSchemeOptions,
    parse_port,
)
from trio_wsb.routing.regex import Regex

HTTPS = RedirectSchemeOptions("https")


def location(answer: Answer | None) -> str:
    assert answer is not None
    return dict(answer.headers)["Location"]


@pytest.mark.parametrize(
    ("host", "target", "fields", "expected"),
    [
        ("rs.test", "/", [], "https://rs.test/"),
        ("rs.test", "/a?b", [], "https://rs.test/a?b"),
        ("rs.test:8080", "/x", [], "https://rs.test/x"),
        ("rs.test:80", "/x", [], "https://rs.test/x"),
        ("[::1]:8080", "/x", [], "https://[::1]/x"),
        ("rs.test", "/x", [("X-Forwarded-Proto", "https")], None),
        ("rs.test:443", "/x", [("X-Forwarded-Proto", "https")], None),
        ("rs.test", "/x", [("X-Forwarded-Proto", "wss")], None),
        ("rs.test:8080", "/x", [("X-Forwarded-Proto", "wss")], "https://rs.test/x"),
    ],
)
def test_to_another_scheme(host: str, target: str, fields: list[Field], expected: str | None) -> None:
    answer = RedirectScheme(HTTPS).on_request(request(target, fields, host=host))
    assert (None if answer is None else location(answer)) == expected


def test_tls_is_https() -> None:
    assert RedirectScheme(HTTPS).on_request(request(secure=True)) is None


@pytest.mark.parametrize(("port", "expected"), [(8443, "https://x.test:8443/"), (443, "https://x.test/")])
def test_to_a_port(port: int, expected: str) -> None:
    scheme = RedirectScheme(RedirectSchemeOptions("https", Port(port)))
    assert location(scheme.on_request(request(host="x.test:8080"))) == expected


def test_a_port_that_is_right_already() -> None:
    scheme = RedirectScheme(RedirectSchemeOptions("https", Port(8443)))
    assert scheme.on_request(request(host="x.test:8443", secure=True)) is None
    assert location(scheme.on_request(request(host="x.test", secure=True))) == "https://x.test:8443/"


@pytest.mark.parametrize(
    ("method", "permanent", "status"),
    [("GET", False, 302), ("GET", True, 301), ("POST", False, 307), ("POST", True, 308), ("HEAD", True, 308)],
)
def test_status(method: str, permanent: bool, status: int) -> None:
    answer = RedirectScheme(RedirectSchemeOptions("https", permanent=permanent)).on_request(
        request(method=method)
    )
    assert answer is not None
    assert answer.status == status
    assert answer.body


def test_nowhere_to_go_without_a_host() -> None:
    answer = RedirectScheme(HTTPS).on_request(old_client())
    assert answer is not None
    assert answer.status == 400


OLD = RedirectRegexOptions(Regex("^http://([^/]*)/old/(.*)"), "https://${1}/new/${2}")


@pytest.mark.parametrize(
    ("target", "expected"),
    [("/old/a%2Fb?q", "https://rr.test:81/new/a%2Fb?q"), ("/new", None), ("/x/old/", None)],
)
def test_by_a_pattern(target: str, expected: str | None) -> None:
    answer = RedirectRegex(OLD).on_request(request(target, host="rr.test:81"))
    assert (None if answer is None else location(answer)) == expected


def test_to_itself_is_no_redirect() -> None:
    assert RedirectRegex(RedirectRegexOptions(Regex("x"), "x")).on_request(request("/x")) is None


def test_too_long() -> None:
    options = RedirectRegexOptions(Regex("a"), "b" * 1000)
    answer = RedirectRegex(options).on_request(request("/" + "a" * 100))
    assert answer is not None
    assert answer.status == 500


def test_a_location_is_one_line_of_ascii() -> None:
    options = RedirectRegexOptions(Regex("^(.*)$"), "https://grün.test/\r\nSet-Cookie: a=b ${1}")
    answer = RedirectRegex(options).on_request(request("/"))
    assert answer is not None
    assert location(answer).startswith("https://gr%C3%BCn.test/%0D%0ASet-Cookie:%20a=b%20http://")
    assert serialise_fields(answer.headers).count(b"\n") == 1


@pytest.mark.parametrize(("value", "port"), [("8443", 8443), (8443, 8443), ("1", 1), (65535, 65535)])
def test_ports(value: object, port: int) -> None:
    assert parse_port(value) == port


@pytest.mark.parametrize("value", ["0", 0, 65536, "65536", -1, "", "x", "8443 ", True, 80.0, None])
def test_what_is_no_port(value: object) -> None:
    with pytest.raises(ValueError, match="is no port"):
        parse_port(value)


def test_problems() -> None:
    assert summary(OLD.problems()) == []
    assert summary(RedirectRegexOptions(Regex("(a)"), "$1x").problems()) == [(("replacement",), "warning")]
