from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.strategies import targets
from tests.middleware.helpers import request, summary
from trio_wsb.http.headers import serialise_fields
from trio_wsb.middleware.exchange import Answer, Request
from trio_wsb.middleware.path import (
    AddPrefix,
    AddPrefixOptions,
    ReplacePath,
    ReplacePathOptions,
    ReplacePathRegex,
    ReplacePathRegexOptions,
    StripPrefix,
    StripPrefixOptions,
    StripPrefixRegex,
    StripPrefixRegexOptions,
)
from trio_wsb.routing.regex import Regex

STRIP = StripPrefix(StripPrefixOptions(("/foo", "/api/", "/grün")))


@pytest.mark.parametrize(
    ("target", "expected", "prefix"),
    [
        ("/foo/a/b", "/a/b", "/foo"),
        ("/foo", "/", "/foo"),
        ("/foo/", "/", "/foo"),
        ("/foobar", "/bar", "/foo"),
        ("/foo//", "/", "/foo"),
        ("/foo//evil.net/", "/evil.net/", "/foo"),
        ("/foo%2Fa", "/a", "/foo"),
        ("/foo%2fa%2fb", "/a%2fb", "/foo"),
        ("/fo%6f/a%20b", "/a%20b", "/foo"),
        ("/foo?q=/foo", "/?q=/foo", "/foo"),
        ("/api/x", "/x", "/api/"),
        ("/api", "/api", None),
        ("/bar/foo", "/bar/foo", None),
        ("/fo", "/fo", None),
        ("/FOO/a", "/FOO/a", None),
        ("/gr%C3%BCn/a", "/a", "/gr%C3%BCn"),
    ],
)
def test_strip_prefix(target: str, expected: str, prefix: str | None) -> None:
    after = STRIP.on_request(request(target))
    assert after.head.target == expected
    assert after.headers.get("x-forwarded-prefix") == prefix


@pytest.mark.parametrize(
    ("target", "expected"), [("/foo", "/"), ("/foo/a", "/a"), ("/foox", "/x"), ("/foo//a", "//a")]
)
def test_strip_prefix_without_force_slash(target: str, expected: str) -> None:
    strip = StripPrefix(StripPrefixOptions(("/foo",), force_slash=False))
    assert strip.on_request(request(target)).head.target == expected


def test_prefixes_add_up() -> None:
    after = STRIP.on_request(StripPrefix(StripPrefixOptions(("/a",))).on_request(request("/a/foo/x")))
    assert after.head.target == "/x"
    assert after.headers.get_all("x-forwarded-prefix") == ["/a", "/foo"]


@pytest.mark.parametrize(
    ("target", "expected", "prefix"),
    [
        ("/foo/a1/b", "/b", "/foo/a1/"),
        ("/foo/a1/", "/", "/foo/a1/"),
        ("/x/y/z", "/z", "/x/y"),
        ("/xq", "/q", "/x"),
        ("/foo%2Fa1/x", "/x", "/foo/a1/"),
        ("/foo/a%2f/b", "/b", "/foo/a/"),
        ("/bar/foo/a1/b", "/bar/foo/a1/b", None),
        ("/nothing", "/nothing", None),
        ("/%FF/a", "/%FF/a", None),
        ("/%C3%BC/a", "/a", "/%C3%BC"),
    ],
)
def test_strip_prefix_regex(target: str, expected: str, prefix: str | None) -> None:
    patterns = ("/foo/[a-z0-9]+/", "^/x(/y)?", "^/[^a-z/]+")
    strip = StripPrefixRegex(StripPrefixRegexOptions(tuple(map(Regex, patterns))))
    after = strip.on_request(request(target))
    assert after.head.target == expected
    assert after.headers.get("x-forwarded-prefix") == prefix


@settings(deadline=None)
@given(targets)
def test_whatever_is_stripped_is_still_a_request(target: str) -> None:
    for middleware in (
        StripPrefixRegex(StripPrefixRegexOptions((Regex("(?s)^/.*/"), Regex("(?s)^/..")))),
        StripPrefix(StripPrefixOptions(("/%", "/"))),
    ):
        after = middleware.on_request(request(target))
        assert after.head.target.startswith("/")
        assert after.head.query == request(target).head.query
        assert serialise_fields(after.headers).count(b"\n") == len(after.headers)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("/", "/pre/"), ("/a%2Fb", "/pre/a%2Fb"), ("/x?q", "/pre/x?q")],
)
def test_add_prefix(target: str, expected: str) -> None:
    assert AddPrefix(AddPrefixOptions("/pre")).on_request(request(target)).head.target == expected


def test_add_prefix_to_no_path() -> None:
    sent = request("*", method="OPTIONS")
    assert AddPrefix(AddPrefixOptions("/pre")).on_request(sent) == sent


@pytest.mark.parametrize(
    ("path", "target", "expected", "replaced"),
    [
        ("/new", "/", "/new", "/"),
        ("/new%2Fp?a", "/a%2Fb?z=1", "/new%2Fp%3Fa?z=1", "/a%2Fb"),
        ("/grün b", "/a", "/gr%C3%BCn%20b", "/a"),
    ],
)
def test_replace_path(path: str, target: str, expected: str, replaced: str) -> None:
    after = ReplacePath(ReplacePathOptions(path)).on_request(request(target, [("X-Replaced-Path", "evil")]))
    assert after.head.target == expected
    assert after.headers.get_all("x-replaced-path") == [replaced]


@pytest.mark.parametrize(
    ("pattern", "replacement", "target", "expected"),
    [
        ("^/foo/(.*)", "/bar/$1", "/foo/a%2Fb", "/bar/a%2Fb"),
        ("^/foo/(.*)", "/bar/$1", "/foo/a/foo/b?q=/foo/", "/bar/a/foo/b?q=/foo/"),
        ("^/foo/(.*)", "/bar/$1", "/bar", "/bar"),
        ("^/foo/(?P<n>.*)", "/bar/${n}x$1y$$-$9", "/foo/a", "/bar/ax$-"),
        ("^/whoami/(.*)", "/who-am-i/$1", "/whoami/and/whoami", "/who-am-i/and/whoami"),
        (
            "^(?i)/downloads/([^/]+)/([^/]+)$",
            "/downloads/$1-$2",
            "/downloads/src/source.go",
            "/downloads/src-source.go",
        ),
        ("/aaa/bbb", "/foo%2Fbar", "/aaa/bbb", "/foo%2Fbar"),
        ("/aaa%2Fbbb", "/foo/bar", "/aaa%2Fbbb", "/foo/bar"),
        ("/aaa/bbb", "/foo/bar", "/aaa%2Fbbb", "/aaa%2Fbbb"),
        ("^/x", "no slash?", "/x", "/no%20slash%3F"),
    ],
)
def test_replace_path_regex(pattern: str, replacement: str, target: str, expected: str) -> None:
    after = ReplacePathRegex(ReplacePathRegexOptions(Regex(pattern), replacement)).on_request(request(target))
    assert isinstance(after, Request)
    assert after.head.target == expected
    changed = expected != target
    assert after.headers.get("x-replaced-path") == (target.partition("?")[0] if changed else None)


def test_a_path_that_grows_too_long_is_an_error() -> None:
    replace = ReplacePathRegex(ReplacePathRegexOptions(Regex("a"), "b" * 1000))
    answer = replace.on_request(request("/" + "a" * 100))
    assert isinstance(answer, Answer)
    assert answer.status == 500


def test_problems() -> None:
    assert summary(StripPrefixOptions(("/a", "b")).problems()) == [(("prefixes", 1), "error")]
    assert summary(ReplacePathRegexOptions(Regex("(a)"), "$2").problems()) == [(("replacement",), "warning")]


@settings(deadline=None)
@given(st.text("ab/%2F", min_size=1, max_size=8).map(lambda rest: f"/{rest}"), targets)
def test_what_is_added_can_be_stripped(prefix: str, target: str) -> None:
    added = AddPrefix(AddPrefixOptions(prefix)).on_request(request(target))
    stripped = StripPrefix(StripPrefixOptions((prefix,), force_slash=False)).on_request(added)
    path = stripped.head.path
    assert path == request(target).head.path or path[1:] == request(target).head.path[3:]
