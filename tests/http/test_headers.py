from __future__ import annotations

import pytest
from hypothesis import given

from tests.http import strategies
from trio_wsb.http.headers import Field, Headers, serialise_fields

SAMPLE: list[Field] = [
    ("Host", "example.com"),
    ("X-Multi", "one"),
    ("Connection", "keep-alive, Upgrade"),
    ("x-multi", "two"),
    ("connection", " ,TE,, "),
]


def test_looks_up_by_lower_case_name() -> None:
    headers = Headers(list(SAMPLE))
    assert headers.get("host") == "example.com"
    assert headers.get("x-multi") == "one"
    assert headers.get_all("x-multi") == ["one", "two"]
    assert headers.get("absent") is None
    assert headers.get_all("absent") == []
    assert "host" in headers
    assert "Host" not in headers
    assert len(headers) == 5


def test_tokens_span_lines_and_drop_empty_members() -> None:
    headers = Headers(list(SAMPLE))
    assert headers.tokens("connection") == ["keep-alive", "upgrade", "te"]
    assert headers.tokens("absent") == []


def test_add_appends_and_is_found() -> None:
    headers = Headers()
    headers.add("X-One", "1")
    headers.add("x-one", "2")
    assert list(headers) == [("X-One", "1"), ("x-one", "2")]
    assert headers.get_all("x-one") == ["1", "2"]


def test_what_is_handed_out_is_a_copy() -> None:
    headers = Headers(list(SAMPLE))
    headers.get_all("host").append("evil")
    assert headers.get_all("host") == ["example.com"]
    other = headers.without({"x-multi", "absent"})
    assert [name for name, _ in other] == ["Host", "Connection", "connection"]
    assert "x-multi" not in other
    assert len(headers) == 5


def test_equality_is_that_of_the_fields() -> None:
    assert Headers(list(SAMPLE)) == Headers(list(SAMPLE))
    assert Headers([("A", "1")]) != Headers([("a", "1")])
    assert Headers() != []
    with pytest.raises(TypeError):
        hash(Headers())


def test_repr_shows_no_value() -> None:
    assert repr(Headers([("Cookie", "secret"), ("Host", "h")])) == "<Headers Cookie, Host>"


def test_serialise_keeps_order_and_case() -> None:
    assert Headers([("b", "2"), ("A", "\xe9")]).serialise() == b"b: 2\r\nA: \xe9\r\n"
    assert Headers().serialise() == b""


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\r\nb", "a\0b", "\n", "\r"])
def test_serialise_refuses_what_would_split_the_message(bad: str) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Headers([("A", bad)]).serialise()
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Headers([(bad, "a")]).serialise()
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        serialise_fields([], bad)


def test_serialise_refuses_what_is_no_latin_1() -> None:
    with pytest.raises(ValueError, match="latin-1"):
        Headers([("A", "\u20ac")]).serialise()


@given(strategies.fields)
def test_serialised_fields_are_their_lines(fields: list[Field]) -> None:
    lines = Headers(list(fields)).serialise().decode("latin-1").split("\r\n")
    assert lines.pop() == ""
    assert lines == [f"{name}: {value}" for name, value in fields]


@given(strategies.fields)
def test_finds_what_a_plain_list_has(fields: list[Field]) -> None:
    headers, added = Headers(list(fields)), Headers()
    for name, value in fields:
        added.add(name, value)
    assert added == headers
    for each in (headers, added):
        assert list(each.named()) == [(field[0].lower(), field) for field in fields]
        for lower in {name.lower() for name, _ in fields}:
            values = [value for name, value in fields if name.lower() == lower]
            assert each.get(lower) == values[0]
            assert each.get_all(lower) == values
            members = [token.strip(" \t") for token in ",".join(values).lower().split(",")]
            assert each.tokens(lower) == [token for token in members if token]


def test_tokens_that_are_remembered_are_handed_out_as_copies() -> None:
    Headers([("Connection", "Upgrade")]).tokens("connection").append("close")
    assert Headers([("Connection", "Upgrade")]).tokens("connection") == ["upgrade"]
