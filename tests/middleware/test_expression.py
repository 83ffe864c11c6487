from __future__ import annotations

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_wsb.middleware.expression import MAX_LENGTH, ExpressionError, parse_expression
from trio_wsb.routing.grammar import MAX_NESTING


@frozen
class Figures:
    """Figures that are given."""

    errors: float = 0.0
    latency: float = 0.0
    ratio: float = 0.0

    def network_error_ratio(self) -> float:
        return self.errors

    def response_code_ratio(self, low: int, high: int, divisor_low: int, divisor_high: int) -> float:
        assert (low, high, divisor_low, divisor_high) == (500, 600, 0, 600)
        return self.ratio

    def latency_at_quantile(self, quantile: float) -> float:
        assert quantile in {50.0, 99.9}
        return self.latency


HALF = Figures(0.5, 50.0, 0.5)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("NetworkErrorRatio() > 0.30", True),
        ("NetworkErrorRatio() > 0.50", False),
        ("NetworkErrorRatio() >= 0.50", True),
        ("NetworkErrorRatio() < 0.50", False),
        ("NetworkErrorRatio() <= 0.5", True),
        ("NetworkErrorRatio() == 0.5", True),
        ("NetworkErrorRatio() != 0.5", False),
        ("NetworkErrorRatio() < 1", True),
        ("0.3 < NetworkErrorRatio()", True),
        ("ResponseCodeRatio(500, 600, 0, 600) > 0.25", True),
        ("ResponseCodeRatio(500,600,0,600)>0.5", False),
        ("LatencyAtQuantileMS(50.0) > 100", False),
        ("LatencyAtQuantileMS(50) > 49.5", True),
        ("LatencyAtQuantileMS( 99.9 ) > 10", True),
        ("LatencyAtQuantileMS(50.0) > NetworkErrorRatio()", True),
        ("NetworkErrorRatio() > 0.9 || LatencyAtQuantileMS(50.0) > 10", True),
        ("NetworkErrorRatio() > 0.3 && LatencyAtQuantileMS(50.0) > 100", False),
        ("NetworkErrorRatio() > 0.9 && NetworkErrorRatio() > 0.9 || NetworkErrorRatio() > 0.1", True),
        ("NetworkErrorRatio() > 0.9 && (NetworkErrorRatio() > 0.9 || NetworkErrorRatio() > 0.1)", False),
        ("!(NetworkErrorRatio() > 0.9)", True),
        ("!NetworkErrorRatio() > 0.9", True),
        ("!!(NetworkErrorRatio() > 0.9)", False),
        ("  ( (NetworkErrorRatio ( )\n>\t0.3 ) ) ", True),
    ],
)
def test_expressions(text: str, holds: bool) -> None:
    expression = parse_expression(text)
    assert expression.holds(HALF) is holds
    assert str(expression) == text


def test_expressions_are_compared_by_their_text() -> None:
    text = "NetworkErrorRatio() > 0.30"
    assert parse_expression(text) == parse_expression(text)
    assert parse_expression(text) != parse_expression(f"{text} ")
    assert len({parse_expression(text), parse_expression(text)}) == 1


@pytest.mark.parametrize(
    ("text", "position", "message", "hint"),
    [
        ("", 0, "the expression is empty", "NetworkErrorRatio() > 0.30"),
        (" \n", 2, "the expression is empty", "NetworkErrorRatio() > 0.30"),
        ("NetworkErrorRatio()", 19, "NetworkErrorRatio is compared with nothing", "> 0.30"),
        ("NetworkErrorRatio() 0.3", 20, "NetworkErrorRatio is compared with nothing", "> 0.30"),
        ("0.5", 3, "0.5 is compared with nothing", "> 0.30"),
        ("NetworkErrorRatio() = 0.3", 20, "unknown operator '='", "write =="),
        ("NetworkErrorRatio > 0.3", 18, "NetworkErrorRatio has no parentheses", "NetworkErrorRatio()"),
        ("NetworkErrorRatio() > ", 22, "the expression ends where a value should be", "> 0.30"),
        ("NetworkErrorRatio() > 30%", 24, "unexpected '%'", "&& or ||"),
        ("NetworkErrorRatio() > .3", 22, "this is no number", "0.30"),
        ("NetworkErrorRatio() > -1", 22, "this is no number", "0.30"),
        ("NetworkErrorRatio() > 0.3.1", 22, "this is no number", "0.30"),
        ("NetworkErrorRatio() > 1e3", 22, "this is no number", "0.30"),
        ("NetworkErrorRatio() > 0.3 > 0.1", 26, "comparisons cannot be chained", "&&"),
        ("0.5 > 0.3", 0, "this compares two numbers", "NetworkErrorRatio() > 0.30"),
        ("networkErrorRatio() > 0.3", 0, "unknown function 'networkErrorRatio'", "upper and lower case"),
        (
            "NetworkErorRatio() > 0.3",
            0,
            "unknown function 'NetworkErorRatio'",
            "did you mean NetworkErrorRatio?",
        ),
        ("Zzz() > 0.3", 0, "unknown function 'Zzz'", "ResponseCodeRatio and LatencyAtQuantileMS"),
        ("NetworkErrorRatio() > 0.3 and 1", 26, "unknown operator 'and'", "write &&"),
        ("not NetworkErrorRatio() > 0.3", 0, "unknown operator 'not'", "&&, || and !"),
        ("NetworkErrorRatio() > 0.3 & 1", 26, "unknown operator '&'", "write &&"),
        ("NetworkErrorRatio() > 0.3 || ", 29, "the expression ends", "> 0.30"),
        ("|| NetworkErrorRatio() > 0.3", 0, "unexpected '|' where a value should be", "> 0.30"),
        ("(NetworkErrorRatio() > 0.3", 0, "a parenthesis is never closed", ""),
        ("(NetworkErrorRatio() > 0.3 x", 27, "unexpected 'x'", "&& or ||"),
        ("NetworkErrorRatio() > 0.3)", 25, "a parenthesis was never opened", ""),
        ("NetworkErrorRatio(", 17, "a parenthesis is never closed", ""),
        ("NetworkErrorRatio(1) > 0.3", 18, "NetworkErrorRatio takes nothing", "NetworkErrorRatio()"),
        ("LatencyAtQuantileMS() > 1", 0, "LatencyAtQuantileMS takes one number", "LatencyAtQuantileMS(50.0)"),
        ("LatencyAtQuantileMS(50, 1) > 1", 24, "LatencyAtQuantileMS takes one number", "(50.0)"),
        ("LatencyAtQuantileMS(50 1) > 1", 23, "unexpected '1'", "comma"),
        ("LatencyAtQuantileMS(x) > 1", 20, "the argument is no number", "50.0"),
        ("LatencyAtQuantileMS(50", 19, "a parenthesis is never closed", ""),
        ("LatencyAtQuantileMS(50,", 19, "a parenthesis is never closed", ""),
        ("LatencyAtQuantileMS(101) > 1", 20, "a quantile is 0 to 100", "(50.0)"),
        ("ResponseCodeRatio(500, 600) > 1", 0, "ResponseCodeRatio takes four numbers", "(500, 600, 0, 600)"),
        ("ResponseCodeRatio(500.5, 600, 0, 600) > 1", 18, "a status code is a whole number", "(500, 600"),
        ("ResponseCodeRatio(600, 500, 0, 600) > 1", 23, "no status code is in this range", "larger"),
        ("ResponseCodeRatio(500, 600, 5, 5) > 1", 31, "no status code is in this range", "larger"),
        ("! != 1", 2, "unexpected '!' where a value should be", "> 0.30"),
        ("!" * (MAX_NESTING + 1) + "x", MAX_NESTING, "the expression is nested too deeply", "32 levels"),
        ("(" * (MAX_NESTING + 1), MAX_NESTING, "the expression is nested too deeply", "32 levels"),
        (" " * (MAX_LENGTH + 1), MAX_LENGTH, "the expression is too long", "2048 characters"),
    ],
)
def test_errors(text: str, position: int, message: str, hint: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text)
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint
    assert caught.value.position == position


def test_the_caret_stands_under_the_place() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression("NetworkErrorRatio() > 0.3 &&\n  Latency(50.0) > 1")
    assert caught.value.caret().splitlines() == ["  Latency(50.0) > 1", "  ^"]


PIECES = st.sampled_from(
    ["NetworkErrorRatio()", "LatencyAtQuantileMS(", "ResponseCodeRatio(500,600,0,600)", "50", "0.3", ")", "(", "&&",
     "||", "!", ">", "<=", "==", " ", ",", "x", "$"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30))
def test_garbage_raises_nothing_else(text: str) -> None:
    fault: ExpressionError | None = None
    try:
        parse_expression(text)
    except ExpressionError as error:
        fault = error
    if fault is not None:
        assert 0 <= fault.position <= len(text)
        assert fault.caret()


# Trees, written out and evaluated by their definition.
COMPARISONS = st.tuples(
    st.sampled_from(["NetworkErrorRatio()", "ResponseCodeRatio(500, 600, 0, 600)"]),
    st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
    st.sampled_from(["0.25", "0.5", "0.75"]),
).map(" ".join)


def _combine(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.tuples(children, st.sampled_from([" && ", " || "]), children).map("".join)
        | children.map("({})".format)
        | children.map("!({})".format)
    )


@settings(deadline=None)
@given(st.recursive(COMPARISONS, _combine, max_leaves=8), st.sampled_from([0.25, 0.5, 1.0]))
def test_means_what_python_means_by_it(text: str, value: float) -> None:
    python = text.replace("!=", "<>").replace("!", " not ").replace("<>", "!=")
    python = python.replace("&&", " and ").replace("||", " or ")
    for function in ("NetworkErrorRatio()", "ResponseCodeRatio(500, 600, 0, 600)"):
        python = python.replace(function, str(value))
    assert parse_expression(text).holds(Figures(value, 0.0, value)) is eval(python.strip())
