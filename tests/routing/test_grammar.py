"""What the small languages share: operators and what binds tighter, depth, and faults with their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.routing.grammar import MAX_NESTING, NAME, Parser, Predicate, TextError


class SetError(TextError):
    pass


class Sets(Parser[frozenset[str]]):
    """A language whose leaves are names: those that are in the set that is asked about."""

    noun = "set"
    leaves = "names"
    example = "write a name such as a"
    longest = 400
    fault = SetError

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.named: list[tuple[str, int]] = []

    def leaf(self) -> Predicate[frozenset[str]]:
        found = NAME.match(self.text, self.position)
        if found is None:
            raise self.unexpected() if not self.at_end() else self.error("a name is missing", self.example)
        self.named.append((found[0], self.negations))
        self.advance(found.end())
        return lambda asked: found[0] in asked


def holds(text: str, *names: str) -> bool:
    return Sets(text).parse()(frozenset(names))


@pytest.mark.parametrize(
    ("text", "names", "wanted"),
    [
        ("a", "a", True),
        ("a || b && c", "a", True),
        ("(a || b) && c", "a", False),
        ("!a || b", "", True),
        ("!(a || b)", "", True),
        ("!a && b", "b", True),
        ("!!a", "a", True),
        (" \n a\t||\r\nb ", "b", True),
        ("a || b || c", "c", True),
        ("a && b && c", "ab", False),
    ],
)
def test_operators(text: str, names: str, wanted: bool) -> None:
    assert holds(text, *names) is wanted


@given(st.recursive(
    st.sampled_from("abc"),
    lambda inner: st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda each: f"({each[0]} {each[1]} {each[2]})")
    | inner.map(lambda each: f"!{each}"),
    max_leaves=8,
), st.sets(st.sampled_from("abc")))  # fmt: skip
def test_it_means_what_python_means(text: str, names: set[str]) -> None:
    plain = text.replace("&&", " and ").replace("||", " or ").replace("!", " not ")
    assert holds(text, *names) is bool(eval(plain, {}, {name: name in names for name in "abc"}))


@pytest.mark.parametrize(
    ("text", "position", "message", "hint"),
    [
        ("", 0, "the set is empty", "write a name such as a"),
        ("  ", 2, "the set is empty", "write a name such as a"),
        ("a b", 2, "unexpected 'b'", "write && or || between two names"),
        ("a AND b", 2, "unknown operator 'AND'", "write &&"),
        ("a or b", 2, "unknown operator 'or'", "write ||"),
        ("a & b", 2, "unknown operator '&'", "write &&"),
        ("a | b", 2, "unknown operator '|'", "write ||"),
        ("a)", 1, "a parenthesis was never opened", ""),
        ("(a", 0, "a parenthesis is never closed", ""),
        ("((a) b", 5, "unexpected 'b'", "write && or || between two names"),
        ("a &&", 4, "a name is missing", "write a name such as a"),
        ("!= a", 0, "unexpected '!'", "write && or || between two names"),
        ("!" * 40 + "a", MAX_NESTING, "the set is nested too deeply", "at most 32 levels"),
        ("a" * 401, 400, "the set is too long", "a set has at most 400 characters"),
    ],
)
def test_faults(text: str, position: int, message: str, hint: str) -> None:
    with pytest.raises(SetError) as raised:
        Sets(text).parse()
    error = raised.value
    assert (error.position, error.message, error.hint) == (position, message, hint)
    assert str(error) == (f"{message}; {hint}" if hint else message)


def test_how_many_negations_stand_around_a_leaf() -> None:
    parser = Sets("a && !b && !(c || !d) && e")
    parser.parse()
    assert parser.named == [("a", 0), ("b", 1), ("c", 1), ("d", 2), ("e", 0)]


def test_the_caret() -> None:
    assert TextError("m", "", 7, "a &&\n  ?").caret() == "  ?\n  ^"
    line, caret = TextError("m", "", 500, "x" * 1000).caret().split("\n")
    assert (len(line), caret.index("^")) == (100, 50)
    assert TextError("m", "", 1, "a\x00b").caret() == "a b\n ^"
