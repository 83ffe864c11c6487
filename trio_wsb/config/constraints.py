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

from trio_wsb.routing.regex import Regex, RegexError
from trio_wsb.routing.rules import RuleError

MAX_LENGTH: Final = 4096
"""Characters in an expression."""

MAX_NESTING: Final = 32
"""Depth of parentheses and ``!``."""

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VALUE: Final = re.compile(r'`([^`]*)`|"([^"\\]*)"')
_EXAMPLE: Final = "write a matcher such as Label(`com.example.tier`, `chat`)"

Labels: TypeAlias = Mapping[str, str]
_Predicate: TypeAlias = Callable[[Labels], bool]


class ConstraintError(RuleError):
    """A text that is no constraint; see `RuleError` for what it carries."""


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
    if len(text) > MAX_LENGTH:
        hint = f"an expression has at most {MAX_LENGTH} characters"
        raise ConstraintError("the expression is too long", hint, MAX_LENGTH, text)
    return Constraints(text, _Parser(text).parse())


class _Parser:
    """Recursive descent over `text`; `position` is where it reads next, always past white space."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0
        self._advance(0)

    def parse(self) -> _Predicate:
        if self.position == len(self.text):
            raise self._error("the expression is empty", _EXAMPLE)
        predicate = self._any()
        if self.position < len(self.text):
            raise self._unexpected()
        return predicate

    def _any(self) -> _Predicate:
        parts = [self._all()]
        while self._take("||"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda labels: any(part(labels) for part in parts)

    def _all(self) -> _Predicate:
        parts = [self._unary()]
        while self._take("&&"):
            parts.append(self._unary())
        return parts[0] if len(parts) == 1 else lambda labels: all(part(labels) for part in parts)

    def _unary(self) -> _Predicate:
        start = self.position
        negated = self._take("!")
        if not negated and not self._take("("):
            return self._matcher()
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self._error("the expression is nested too deeply", f"at most {MAX_NESTING} levels", start)
        if negated:
            inner = self._unary()
            predicate: _Predicate = lambda labels: not inner(labels)  # noqa: E731 - typed so, it is one
        else:
            predicate = self._any()
            self._close(start)
        self.depth -= 1
        return predicate

    def _matcher(self) -> _Predicate:
        start, found = self.position, _NAME.match(self.text, self.position)
        if found is None:
            raise self._unexpected()
        kind = found[0].lower()
        if kind not in {"label", "labelregex"}:
            raise self._error(f"unknown matcher {found[0]!r}", "there are Label and LabelRegex")
        self._advance(found.end())
        opened = self.position
        if not self._take("("):
            raise self._error(f"{found[0]} has no values", _EXAMPLE)
        key, _ = self._value()
        if not self._take(","):
            raise self._error(f"{found[0]} takes two values", _EXAMPLE, start)
        wanted, at = self._value()
        self._close(opened)
        if kind == "label":
            return lambda labels: labels.get(key, "") == wanted
        try:
            pattern = Regex(wanted)
        except RegexError as error:
            raise self._error(error.message, error.hint, at + 1 + error.position) from None
        return lambda labels: pattern.search(labels.get(key, ""))

    def _value(self) -> tuple[str, int]:
        start, found = self.position, _VALUE.match(self.text, self.position)
        if found is None:
            raise self._error("a value is missing or not quoted", "write it in backticks", start)
        self._advance(found.end())
        return found[1] if found[1] is not None else found[2], start

    def _close(self, opened: int) -> None:
        if self._take(")"):
            return
        if self.position == len(self.text):
            raise self._error("a parenthesis is never closed", "", opened)
        raise self._unexpected()

    def _unexpected(self) -> ConstraintError:
        if self.position == len(self.text):
            return self._error("the expression ends where a matcher should be", _EXAMPLE)
        return self._error(f"unexpected {self.text[self.position]!r}", "operators are &&, || and !")

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.position):
            return False
        self._advance(self.position + len(token))
        return True

    def _advance(self, position: int) -> None:
        found = _SPACE.match(self.text, position)
        assert found is not None
        self.position = found.end()

    def _error(self, message: str, hint: str, position: int | None = None) -> ConstraintError:
        return ConstraintError(message, hint, self.position if position is None else position, self.text)
