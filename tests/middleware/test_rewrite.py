from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_wsb.middleware.rewrite import MAX_RESULT, Rewrite, first_match
from trio_wsb.routing.regex import Regex


def rewrite(pattern: str, replacement: str, text: str) -> str:
    return Rewrite(Regex(pattern), replacement).apply(text)


@pytest.mark.parametrize(
    ("pattern", "replacement", "text", "expected"),
    [
        ("^/foo/(.*)", "/bar/$1", "/foo/a/b", "/bar/a/b"),
        ("^/foo/(.*)", "/bar/${1}x", "/foo/a", "/bar/ax"),
        ("^/foo/(.*)", "/bar/$1x", "/foo/a", "/bar/"),
        ("^/foo/(?P<name>.*)", "/bar/$name-${name}", "/foo/a", "/bar/a-a"),
        ("^/foo/(.*)", "/$$1/$0", "/foo/a", "/$1//foo/a"),
        ("^/foo/(.*)", "/$9/$-/${}/$", "/foo/a", "//$-/${}/$"),
        ("(a)|(b)", "[$1$2]", "xabx", "x[a][b]x"),
        ("/whoami", "/who-am-i", "/whoami/and/whoami", "/who-am-i/and/who-am-i"),
        ("x*", "-", "abxc", "-a-b-c-"),
        ("(?i)/A", "/b", "/a/A", "/b/b"),
        ("no", "x", "/a", "/a"),
        ("ü", "u", "grün", "grun"),
        ("n$", "N", "grün", "grüN"),
    ],
)
def test_replacements(pattern: str, replacement: str, text: str, expected: str) -> None:
    assert rewrite(pattern, replacement, text) == expected


def test_groups_that_there_are_not() -> None:
    assert Rewrite(Regex("^/(a)/(?P<n>b)"), "$1 $2 $n $0 $$x").unknown == ()
    assert Rewrite(Regex("^/(a)"), "$1x ${2} $n").unknown == ("1x", "2", "n")


def test_a_result_is_bounded() -> None:
    assert len(rewrite("a", "b" * 8, "a" * (MAX_RESULT // 8))) == MAX_RESULT
    with pytest.raises(ValueError, match="longer than"):
        rewrite("a", "b" * 8, "a" * (MAX_RESULT // 8 + 1))
    with pytest.raises(ValueError, match="longer than"):
        rewrite("x", "y", "a" * (MAX_RESULT + 1))


def test_first_match() -> None:
    assert first_match(Regex("/[a-z]+/"), "/1/ab/cd/") == "/ab/"
    assert first_match(Regex("x"), "/1/") is None


@settings(deadline=None)
@given(
    st.text("ab/x1", max_size=30), st.lists(st.sampled_from(["a+", "(b)(x)?", "[ab]{2}", "/"]), min_size=1)
)
def test_replaces_what_python_replaces(text: str, patterns: list[str]) -> None:
    pattern = "|".join(f"(?:{each})" for each in patterns)
    expected = re.sub(pattern, lambda match: f"<{match[0]}>", text)
    assert rewrite(pattern, "<$0>", text) == expected
