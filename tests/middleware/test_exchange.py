from __future__ import annotations

import pytest

from tests.middleware.helpers import request
from trio_wsb.http.headers import Field
from trio_wsb.middleware.exchange import canonical, edited, is_protected, received, status_text


def kept(fields: list[Field], *, trusted: bool = False) -> list[Field]:
    return list(received(request("/", fields).head, trusted=trusted).headers)[1:]


def test_what_connection_nominates_is_gone_before_a_middleware_can_set_it() -> None:
    fields = [
        ("Connection", "X-User, keep-alive"),
        ("X-User", "mallory"),
        ("Keep-Alive", "5"),
        ("X-Other", "1"),
    ]
    assert kept(fields) == [("X-Other", "1")]


def test_a_handshake_stays_one() -> None:
    fields = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "k")]
    assert kept(fields) == [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "k"),
        ("Connection", "Upgrade"),
    ]


def test_upgrade_without_connection_is_no_upgrade() -> None:
    assert kept([("Upgrade", "websocket")]) == []


def test_the_client_still_ends_its_connection() -> None:
    assert not received(request("/", [("Connection", "close, x")]).head, trusted=False).keep_alive
    assert received(request("/").head, trusted=False).keep_alive


def test_strangers_say_nothing_about_who_they_are() -> None:
    fields = [("X-Forwarded-For", "10.0.0.1"), ("X-Real-Ip", "10.0.0.1"), ("Forwarded", "for=_x")]
    assert kept(fields) == []
    assert kept(fields, trusted=True) == fields


def test_a_field_in_disguise_is_never_kept() -> None:
    assert kept([("X_Forwarded_For", "10.0.0.1"), ("Proxy", "evil")], trusted=True) == []


@pytest.mark.parametrize(
    ("fields", "secure", "scheme"),
    [
        ([], False, "http"),
        ([], True, "https"),
        ([("X-Forwarded-Proto", "WSS")], False, "https"),
        ([("X-Forwarded-Proto", "ws")], True, "http"),
        ([("X-Forwarded-Proto", "gopher")], True, "https"),
    ],
)
def test_scheme(fields: list[Field], secure: bool, scheme: str) -> None:
    assert request("/", fields, secure=secure).scheme == scheme


@pytest.mark.parametrize(
    ("target", "expected"), [("/a?q=1", "/new?q=1"), ("/a", "/new"), ("/a?", "/new?"), ("/a?x?y", "/new?x?y")]
)
def test_a_new_path_keeps_the_query(target: str, expected: str) -> None:
    before = request(target)
    after = before.with_path("/new")
    assert (after.head.target, after.head.path, after.head.query) == (expected, "/new", before.head.query)
    assert before.head.target == target


def test_edited_leaves_its_argument_alone() -> None:
    headers = request("/", [("X-A", "1"), ("x-a", "2"), ("X-B", "3")]).headers
    after = edited(headers, {"x-a"}, [("X-C", "4")])
    assert list(after) == [("Host", "example.com"), ("X-B", "3"), ("X-C", "4")]
    assert len(headers) == 4


@pytest.mark.parametrize("name", ["connection", "upgrade", "te", "content-length", "sec-websocket-key"])
def test_protected(name: str) -> None:
    assert is_protected(name)


def test_names_and_texts() -> None:
    assert [canonical(each) for each in ("x-real-ip", "ETAG", "a--b", "")] == [
        "X-Real-Ip",
        "Etag",
        "A--B",
        "",
    ]
    assert (status_text(403), status_text(299)) == (b"Forbidden", b"")
