from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.config.problems import (
    InvalidConfiguration,
    Problem,
    alternatives,
    format_path,
    nearest,
    printable,
    quoted,
)
from trio_wsb.config.scalars import kind, show


def test_line() -> None:
    problem = Problem("f.yaml", 3, 7, "a.b[1]", "is wrong", "write it right")
    assert str(problem) == "f.yaml:3:7 a.b[1]: is wrong (write it right)"
    assert str(Problem("f.yaml", 1, 1, "", "is wrong")) == "f.yaml:1:1: is wrong"


def test_the_error_has_the_errors_in_order() -> None:
    problems = [
        Problem("f", 2, 1, "", "second"),
        Problem("f", 1, 9, "", "odd", severity="warning"),
        Problem("f", 1, 2, "", "first"),
    ]
    error = InvalidConfiguration(problems)
    assert error.problems == ["f:1:2: first", "f:2:1: second"]
    assert [each.message for each in error.details] == ["first", "odd", "second"]
    assert str(error) == "f:1:2: first\nf:2:1: second"


def test_key_paths() -> None:
    assert (
        format_path(("http", "services", "a.b", "servers", 2, "url")) == 'http.services."a.b".servers[2].url'
    )
    assert format_path(()) == ""


def test_nearest() -> None:
    keys = ["readTimeout", "writeTimeout", "dialTimeout"]
    assert nearest("readtimeout", keys) == "readTimeout"
    assert nearest("wirteTimeout", keys) == "writeTimeout"
    assert nearest("zebra", keys) is None
    assert nearest("readTimeout" * 10, keys) is None


def test_alternatives() -> None:
    assert alternatives(["a"]) == "a"
    assert alternatives(["a", "b", "c"]) == "a, b and c"


@given(st.text())
def test_messages_stay_on_one_line(text: str) -> None:
    for shown in (printable(text), quoted(text), show(text), format_path((text,))):
        assert shown.isprintable()
        assert len(shown) < 4000


def test_a_long_text_is_shown_short() -> None:
    assert len(quoted("//" * 2_000_000)) < 100


def test_show_and_kind() -> None:
    values: list[object] = [None, True, 5, -1.5, float("nan"), -float("inf"), "a", [1], {}]
    shown = [(show(value), kind(value)) for value in values]
    assert shown == [
        ("null", "empty"),
        ("true", "a boolean"),
        ("5", "a number"),
        ("-1.5", "a number"),
        (".nan", "a number"),
        ("-.inf", "a number"),
        ('"a"', "a string"),
        ("a list", "a list"),
        ("a mapping", "a mapping"),
    ]
