from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_wsb.routing.regex import MAX_PATTERN_LENGTH, Regex, RegexError


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("b", "abc", True),
        ("^b", "abc", False),
        ("^a.c$", "aüc", True),
        ("^a.c$", "a\nc", False),
        ("^a.c$", "xyz\nabc", False),
        ("(?s)^a.c$", "a\nc", True),
        ("(?m)^abc$", "xyz\nabc", True),
        ("(?i)ÄB", "äb", True),
        (r"^\d+$", "٣", False),
        (r"^\pN+$", "٣", True),
        (r"\bws\b", "/ws/", True),
        (r"\Qa.b\E", "a.b", True),
        (r"\Qa.b\E", "axb", False),
        ("(?P<a>x)(?P<b>y)(?:z)", "xyz", True),
        ("", "", True),
        ("a|", "", True),
        ("^x$", "\ud800", False),
    ],
)
def test_search(pattern: str, text: str, found: bool) -> None:
    assert Regex(pattern).search(text) is found


@pytest.mark.parametrize(
    ("pattern", "position", "message", "hint"),
    [
        ("(a", 0, "a parenthesis is never closed", r"\("),
        ("x(a(b)", 1, "a parenthesis is never closed", r"\("),
        (r"\(\Q(\E[(]([^](])(", 17, "a parenthesis is never closed", r"\("),
        ("a)", 1, "a parenthesis was never opened", r"\)"),
        ("(a)[)])(", 6, "a parenthesis was never opened", r"\)"),
        ("ab[c", 2, "a character class is never closed", r"\["),
        ("[[:alpha:]", 0, "a character class is never closed", r"\["),
        ("[*](*)", 4, "there is nothing for * to repeat", r"\*"),
        ("+", 0, "there is nothing for + to repeat", r"\+"),
        ("a**", 1, "** repeats what is repeated already", "parentheses"),
        ("a{1001}", 1, "{1001} is no repetition of RE2", "1000"),
        ("a{2,1}", 1, "{2,1} is no repetition of RE2", "smaller"),
        ("(a{1000}){2}", 9, "{2} is no repetition of RE2", "1000"),
        ("[(?=](?=b)", 5, "(?= looks around, which RE2 cannot", "&& and !"),
        ("a(?<!b)", 1, "(?<! looks around, which RE2 cannot", "&& and !"),
        ("(?z)", 0, "(?z begins no group of RE2", "(?:...)"),
        (r"(a)\1", 3, r"\1 refers back, which RE2 cannot", ""),
        (r"a\Z", 1, r"\Z is no escape of RE2", r"\z"),
        (r"\\y\y", 3, r"\y is no escape of RE2", "a letter or digit needs none"),
        ("[z-a]", 1, "z-a is no range or class of characters", "upwards"),
        (r"\pX", 0, r"\pX is no range or class of characters", "upwards"),
        ("[[:foo:]]", 1, "[:foo:] is no range or class of characters", "upwards"),
        ("a(?P<b", 1, "(?P<b is no named group", "(?P<name>...)"),
        ("a\\", 1, "a backslash is the last character", r"\\"),
        ("a\ud800", 0, "it is no Unicode text", ""),
        (r"\pL{50}", 0, "it is too large when compiled", "repeat less"),
        ("((a{10}){10}){10}" * 3, 0, "it is too large when compiled", "repeat less"),
        ("a" * (MAX_PATTERN_LENGTH + 1), MAX_PATTERN_LENGTH, "it is too long", str(MAX_PATTERN_LENGTH)),
    ],
)
def test_errors_say_where_and_why(pattern: str, position: int, message: str, hint: str) -> None:
    with pytest.raises(RegexError) as raised:
        Regex(pattern)
    error = raised.value
    assert (error.message, error.position) == (message, position)
    assert hint in error.hint
    assert str(error) == (f"{message}; {error.hint}" if error.hint else message)


@settings(deadline=None)
@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from([*r"()[]{}*+?|^$.\-,:<>=!aPQEipLZ12"]), max_size=20).map("".join)
)
@example("(" * MAX_PATTERN_LENGTH)
@example("(?" * (MAX_PATTERN_LENGTH // 2))
@example("[" * MAX_PATTERN_LENGTH)
@example("\\" * 999)
@example("(?:" * 300 + ")" * 300)
def test_any_text_is_a_pattern_or_a_regex_error(pattern: str) -> None:
    try:
        regex = Regex(pattern)
    except RegexError as error:
        at, message = error.position, error.message
        assert 0 <= at <= len(pattern)
        assert message
    else:
        assert isinstance(regex.search(pattern), bool)
        assert repr(regex) == f"Regex({pattern!r})"


@given(st.text(max_size=20), st.text(max_size=20))
def test_literals(literal: str, text: str) -> None:
    escaped = "".join(rf"\x{{{ord(character):x}}}" for character in literal)
    assert Regex(escaped).search(text) is (literal in text)
    assert Regex(escaped).search(text + literal)


def test_what_makes_others_backtrack_takes_no_time() -> None:
    # 2^64000 steps for a backtracking matcher: it either returns or the suite hangs.
    assert not Regex("^(a+)+$").search("a" * 64000 + "b")


def test_patterns_in_common_use_are_small_enough() -> None:
    for pattern in [
        r"(?i)^/(api|ws|chat)/v[0-9]+/[a-z0-9-]{1,64}$",
        r"^.{1,255}$",
        r"^/\pL+(/[^/]+)*$",
        r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.example\.com$",
        r"^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$",
    ]:
        Regex(pattern)


def test_patterns_are_compared_by_their_text() -> None:
    assert Regex("a|b") == Regex("a|b")
    assert Regex("a|b") != Regex("b|a")
    assert Regex("a") != "a"
    assert len({Regex("a"), Regex("a"), Regex("b")}) == 2
