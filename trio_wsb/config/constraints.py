"""Which containers count, said by their labels, in Traefik's language.

    constraint = and *( "||" and )
    and        = unary *( "&&" unary )
    unary      = "!" unary / "(" constraint ")" / matcher
    matcher    = "Label(" value "," value ")" / "LabelRegex(" value "," value ")"
    value      = "`" *any "`" / DQUOTE *any DQUOTE

White space may stand between any two of these. A label that a container has not is taken to be empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from attrs import field, frozen

from trio_wsb.routing.grammar import NAME, Parser, TextError
from trio_wsb.routing.regex import Regex, RegexError

MAX_LENGTH: Final = 4096
"""Characters in an expression."""

_VALUE: Final = re.compile(r'`([^`]*)`|"([^"\\]*)"')

Labels: TypeAlias = Mapping[str, str]
_Predicate: TypeAlias = Callable[[Labels], bool]


class ConstraintError(TextError):
    """A text that is no constraint; see `TextError` for what it carries."""


@frozen
class Constraints:
    """A parsed expression; two are equal when they are written alike."""

    text: str
    match: _Predicate = field(eq=False, repr=False)
    """Whether a container with these labels counts."""

    def __str__(self) -> str:
        return self.text


def parse_constraints(text: str) -> Constraints:
    """Return the expression that `text` writes.

    Raises:
      ConstraintError: it writes none.

    """
    return Constraints(text, _Parser(text).parse())


class _Parser(Parser[Labels]):
    noun = "expression"
    leaves = "matchers"
    example = "write a matcher such as Label(`com.example.tier`, `chat`)"
    longest = MAX_LENGTH
    fault = ConstraintError

    def leaf(self) -> _Predicate:
        start, found = self.position, NAME.match(self.text, self.position)
        if self.at_end():
            raise self.error("the expression ends where a matcher should be", self.example)
        if found is None:
            raise self.error(f"unexpected {self.text[start]!r}", "operators are &&, || and !")
        kind = found[0].lower()
        if kind not in {"label", "labelregex"}:
            raise self.error(f"unknown matcher {found[0]!r}", "there are Label and LabelRegex")
        self.advance(found.end())
        opened = self.position
        if not self.take("("):
            raise self.error(f"{found[0]} has no values", self.example)
        key, _ = self._value()
        if not self.take(","):
            raise self.error(f"{found[0]} takes two values", self.example, start)
        wanted, at = self._value()
        self.close(opened)
        if kind == "label":
            return lambda labels: labels.get(key, "") == wanted
        try:
            pattern = Regex(wanted)
        except RegexError as error:
            raise self.error(error.message, error.hint, at + 1 + error.position) from None
        return lambda labels: pattern.search(labels.get(key, ""))

    def _value(self) -> tuple[str, int]:
        start, found = self.position, _VALUE.match(self.text, self.position)
        if found is None:
            raise self.error("a value is missing or not quoted", "write it in backticks", start)
        self.advance(found.end())
        return found[1] if found[1] is not None else found[2], start
