from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.http.cookies import StickyCookie
from trio_wsb.http.headers import Headers


def headers(*lines: str) -> Headers:
    return Headers([("Cookie", line) for line in lines])


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((), None),
        (("other=1",), None),
        (("ws",), None),
        (("ws=",), ""),
        (("ws=abc",), "abc"),
        (("a=1; ws=abc; b=2",), "abc"),
        (("a=1;ws=abc",), "abc"),
        (('ws="abc"',), "abc"),
        (("ws=one; ws=two",), "one"),
        (("a=1", "ws=abc"), "abc"),
        (("wsx=1; xws=2; WS=3",), None),
        (("ws=a=b",), "a=b"),
    ],
)
def test_find(lines: tuple[str, ...], found: str | None) -> None:
    assert StickyCookie("ws").find(headers(*lines)) == found


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255)))
def test_nothing_that_a_client_sends_is_a_fault(line: str) -> None:
    StickyCookie("ws").find(headers(line))


@pytest.mark.parametrize(
    ("cookie", "value"),
    [
        (StickyCookie("ws"), "ws=0c09029357dedd72; Path=/"),
        (
            StickyCookie("ws", "/x", "example.com", 60, True, True, "strict"),
            "ws=0c09029357dedd72; Path=/x; Domain=example.com; Max-Age=60; HttpOnly; Secure; SameSite=Strict",
        ),
        (
            StickyCookie("ws", max_age=-1, same_site="none"),
            "ws=0c09029357dedd72; Path=/; Max-Age=0; SameSite=None",
        ),
    ],
)
def test_field_as_traefik_writes_it(cookie: StickyCookie, value: str) -> None:
    """The very lines of Traefik 3.7."""
    assert cookie.field("0c09029357dedd72") == ("Set-Cookie", value)
