from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.middleware.helpers import request, summary
from trio_wsb.middleware.origin import Origin, OriginAllowList, OriginAllowListOptions, parse_origin


def passes(origins: list[str], *sent: str, upgrade: bool = True, absent: bool = True) -> bool:
    options = OriginAllowListOptions(tuple(map(parse_origin, origins)), allow_absent=absent)
    fields = [("Origin", each) for each in sent]
    return OriginAllowList(options).judge(request("/", fields, upgrade=upgrade)) is None


@pytest.mark.parametrize(
    ("allowed", "sent", "expected"),
    [
        ("https://example.com", "https://example.com", True),
        ("https://example.com", "https://Example.com", True),
        ("https://example.com:443", "https://example.com", True),
        ("https://example.com", "https://example.com:443", True),
        ("https://example.com", "https://example.com:8443", False),
        ("https://example.com", "http://example.com", False),
        ("https://example.com", "https://www.example.com", False),
        ("https://example.com", "https://example.com.evil.net", False),
        ("https://example.com", "https://evilexample.com", False),
        ("https://example.com", "null", False),
        ("https://example.com", "https://example.com/", False),
        ("https://example.com", "https://example.com https://evil.net", False),
        ("https://example.com", "", False),
        ("https://*.example.com", "https://www.example.com", True),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "http://www.example.com", False),
        ("https://*.example.com", "https://www.example.com:8443", False),
        ("https://*.example.com", "https://*.example.com", False),
        ("https://*.example.com:8443", "https://www.example.com:8443", True),
        ("null", "null", True),
        ("null", "https://example.com", False),
        ("http://localhost:3000", "http://localhost:3000", True),
        ("http://[::1]:3000", "http://[::1]:3000", True),
        ("capacitor://localhost", "capacitor://localhost", True),
    ],
)
def test_origins(allowed: str, sent: str, expected: bool) -> None:
    assert passes([allowed], sent) is expected


def test_only_handshakes_are_judged() -> None:
    assert passes(["https://example.com"], "https://evil.net", upgrade=False)


def test_programs_send_no_origin() -> None:
    assert passes(["https://example.com"])
    assert not passes(["https://example.com"], absent=False)
    assert passes(["https://example.com"], "https://example.com", absent=False)


def test_two_origins_are_none() -> None:
    assert not passes(["https://example.com"], "https://example.com", "https://example.com")


def test_the_answer() -> None:
    options = OriginAllowListOptions((parse_origin("https://example.com"),), reject_status_code=404)
    answer = OriginAllowList(options).judge(request("/", [("Origin", "https://evil.net")], upgrade=True))
    assert answer is not None
    assert answer.status == 404
    assert b"evil" not in answer.body


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("*", "would allow every page"),
        ("example.com", "has no scheme"),
        ("https://example.com/", "has a path"),
        ("https://example.com/chat", "has a path"),
        ("https://", "is not an origin"),
        ("https://exa mple.com", "is not an origin"),
        ("https://*.10.0.0.1", "is not an origin"),
        ("https://www.*.com", "is not an origin"),
        ("https://example.com:70000", "is not an origin"),
        ("https://user@example.com", "is not an origin"),
        ("", "has no scheme"),
    ],
)
def test_what_is_no_origin(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_origin(text)


@settings(deadline=None)
@given(
    st.sampled_from(["http", "https", "app"]),
    st.sampled_from(["example.com", "a.b", "::1", "10.0.0.1"]),
    st.none() | st.integers(1, 65535),
)
def test_an_origin_is_written_as_it_is_read(scheme: str, host: str, port: int | None) -> None:
    text = str(Origin(scheme, host, port))
    assert str(parse_origin(text)) == text


def test_a_wildcard_is_written_as_it_is_read() -> None:
    for text in ("https://*.example.com", "https://*.example.com:8443", "null"):
        assert str(parse_origin(text)) == text


def test_null_is_doubtful() -> None:
    options = OriginAllowListOptions((parse_origin("https://example.com"), parse_origin("null")))
    assert summary(options.problems()) == [(("origins", 1), "warning")]
