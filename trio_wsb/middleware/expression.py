"""The condition that opens a circuit breaker, in Traefik's language.

    expression = and *( "||" and )
    and        = unary *( "&&" unary )
    unary      = "!" unary / "(" expression ")" / comparison
    comparison = value operator value
    operator   = ">" / ">=" / "<" / "<=" / "==" / "!="
    value      = number / function
    function   = "NetworkErrorRatio()" / "ResponseCodeRatio(" integer 3( "," integer ) ")"
               / "LatencyAtQuantileMS(" number ")"

White space may stand between any two of these. Traefik has no ``!``, wants ``50.0`` for a quantile and the function on
the left; here ``50`` is as good, and so is ``0.3 < NetworkErrorRatio()``.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from attrs import field, frozen

from trio_wsb.routing.rules import RuleError

MAX_LENGTH: Final = 2048
"""Characters in an expression."""

MAX_NESTING: Final = 32
"""Depth of parentheses and ``!``."""

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?(?![A-Za-z0-9_.])")
_EXAMPLE: Final = "write a comparison such as NetworkErrorRatio() > 0.30"


class Figures(Protocol):
    """What an expression asks of the statistics of the last seconds."""

    def network_error_ratio(self) -> float:
        """Return which part of the attempts got no answer, 0 without attempts."""
        ...

    def response_code_ratio(self, low: int, high: int, divisor_low: int, divisor_high: int) -> float:
        """Return how many statuses of one range there are for each of another; upper ends are exclusive."""
        ...

    def latency_at_quantile(self, quantile: float) -> float:
        """Return the time, in milliseconds, that `quantile` percent of the attempts did not exceed."""
        ...


Condition: TypeAlias = Callable[[Figures], bool]
_Value: TypeAlias = Callable[[Figures], float]

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


class ExpressionError(RuleError):
    """A text that is no expression; see `RuleError` for what it carries."""


@frozen
class Expression:
    """A parsed expression; two are equal when they are written alike."""

    text: str
    holds: Condition = field(eq=False, repr=False)
    """Whether the figures call for an open circuit."""

    def __str__(self) -> str:
        return self.text


def parse_expression(text: str) -> Expression:
    """Return the expression that `text` writes.

    Raises:
      ExpressionError: it writes none.

    """
    if len(text) > MAX_LENGTH:
        hint = f"an expression has at most {MAX_LENGTH} characters"
        raise ExpressionError("the expression is too long", hint, MAX_LENGTH, text)
    return Expression(text, _Parser(text).parse())


@frozen
class _Operand:
    """One side of a comparison: where it begins, its name ("" for a number), and how to get its value."""

    start: int
    name: str
    value: _Value


class _Parser:
    """Recursive descent over `text`; `position` is where it reads next, always past white space."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0
        self._advance(0)

    def parse(self) -> Condition:
        if self.position == len(self.text):
            raise self._error("the expression is empty", _EXAMPLE)
        condition = self._any()
        if self.position < len(self.text):
            raise self._unexpected()
        return condition

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._take("||"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda figures: any(part(figures) for part in parts)

    def _all(self) -> Condition:
        parts = [self._unary()]
        while self._take("&&"):
            parts.append(self._unary())
        return parts[0] if len(parts) == 1 else lambda figures: all(part(figures) for part in parts)

    def _unary(self) -> Condition:
        start = self.position
        negated = not self.text.startswith("!=", start) and self._take("!")
        if not negated and not self._take("("):
            return self._comparison()
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self._error("the expression is nested too deeply", f"at most {MAX_NESTING} levels", start)
        if negated:
            inner = self._unary()
            condition: Condition = lambda figures: not inner(figures)  # noqa: E731 - typed so, it is one
        else:
            condition = self._any()
            if not self._take(")"):
                if self.position == len(self.text):
                    raise self._error("a parenthesis is never closed", "", start)
                raise self._unexpected()
        self.depth -= 1
        return condition

    def _comparison(self) -> Condition:
        left = self._operand()
        start = self.position
        compare = self._operator()
        if compare is None:
            name = left.name or self.text[left.start : start].strip()
            raise self._missing_operator(name, start)
        right = self._operand()
        if not left.name and not right.name:
            raise self._error("this compares two numbers", _EXAMPLE, left.start)
        end = self.position
        if self._operator() is not None:
            raise self._error("comparisons cannot be chained", "write && between two of them", end)
        a, b = left.value, right.value
        return lambda figures: compare(a(figures), b(figures))

    def _operator(self) -> Callable[[float, float], bool] | None:
        for sign, compare in _OPERATORS.items():
            if self._take(sign):
                return compare
        return None

    def _operand(self) -> _Operand:
        start = self.position
        number = _NUMBER.match(self.text, start)
        if number is not None:
            constant = float(number[0])
            self._advance(number.end())
            return _Operand(start, "", lambda _: constant)
        name = _NAME.match(self.text, start)
        if name is None:
            raise self._no_operand(start)
        make = self._find(name[0], start)
        self._advance(name.end())
        opened = self.position
        if not self._take("("):
            raise self._error(f"{name[0]} has no parentheses", f"write {_FUNCTIONS[make][1]}", opened)
        places, arguments = self._arguments(opened)
        value = self._call(make, start, places, arguments)
        return _Operand(start, make, value)

    def _arguments(self, opened: int) -> tuple[list[int], list[str]]:
        places: list[int] = []
        arguments: list[str] = []
        while not self._take(")"):
            if arguments and not self._take(","):
                if self.position == len(self.text):
                    raise self._error("a parenthesis is never closed", "", opened)
                raise self._error(
                    f"unexpected {self.text[self.position]!r}", "write a comma between two numbers"
                )
            if self.position == len(self.text):
                raise self._error("a parenthesis is never closed", "", opened)
            number = _NUMBER.match(self.text, self.position)
            if number is None:
                raise self._error("the argument is no number", "write a number such as 500 or 50.0")
            places.append(self.position)
            arguments.append(number[0])
            self._advance(number.end())
        return places, arguments

    def _call(self, name: str, start: int, places: list[int], arguments: list[str]) -> _Value:
        count, usage = _FUNCTIONS[name]
        if len(arguments) != count:
            wanted = {0: "nothing", 1: "one number", 4: "four numbers"}[count]
            raise self._error(
                f"{name} takes {wanted}", f"write {usage}", places[count] if len(places) > count else start
            )
        if name == "NetworkErrorRatio":
            return lambda figures: figures.network_error_ratio()
        if name == "LatencyAtQuantileMS":
            quantile = float(arguments[0])
            if quantile > 100:
                raise self._error("a quantile is 0 to 100", f"write {usage}", places[0])
            return lambda figures: figures.latency_at_quantile(quantile)
        for at, argument in zip(places, arguments, strict=True):
            if not argument.isdigit():
                raise self._error("a status code is a whole number", f"write {usage}", at)
        low, high, divisor_low, divisor_high = map(int, arguments)
        for begin, end, at in ((low, high, places[1]), (divisor_low, divisor_high, places[3])):
            if begin >= end:
                hint = "the second number of a range is exclusive and larger than the first"
                raise self._error("no status code is in this range", hint, at)
        return lambda figures: figures.response_code_ratio(low, high, divisor_low, divisor_high)

    def _find(self, name: str, at: int) -> str:
        known = {each.lower(): each for each in _FUNCTIONS}
        found = known.get(name.lower())
        if found == name:
            return found
        if found is not None:
            raise self._error(f"unknown function {name!r}", f"write {found}; upper and lower case differ", at)
        if name.lower() in {"and", "or", "not"}:
            raise self._error(f"unknown operator {name!r}", "operators are &&, || and !", at)
        near = difflib.get_close_matches(name.lower(), known, n=1)
        *rest, last = _FUNCTIONS
        hint = f"did you mean {known[near[0]]}?" if near else f"there are {', '.join(rest)} and {last}"
        raise self._error(f"unknown function {name!r}", hint, at)

    def _no_operand(self, at: int) -> ExpressionError:
        if at == len(self.text):
            return self._error("the expression ends where a value should be", _EXAMPLE)
        if self.text[at].isdigit() or self.text[at] in "-+.":
            return self._error("this is no number", "write a number such as 0.30 or 100")
        return self._error(f"unexpected {self.text[at]!r} where a value should be", _EXAMPLE)

    def _missing_operator(self, name: str, at: int) -> ExpressionError:
        if self.text.startswith("=", at):
            return self._error("unknown operator '='", "write ==", at)
        return self._error(f"{name} is compared with nothing", _EXAMPLE, at)

    def _unexpected(self) -> ExpressionError:
        found = self.text[self.position]
        if found == ")":
            return self._error("a parenthesis was never opened", "")
        if found in "&|":
            return self._error(f"unknown operator {found!r}", f"write {found * 2}")
        return self._error(f"unexpected {found!r}", "write && or || between two comparisons")

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.position):
            return False
        self._advance(self.position + len(token))
        return True

    def _advance(self, position: int) -> None:
        match = _SPACE.match(self.text, position)
        assert match is not None
        self.position = match.end()

    def _error(self, message: str, hint: str, position: int | None = None) -> ExpressionError:
        return ExpressionError(message, hint, self.position if position is None else position, self.text)


_FUNCTIONS: Final[dict[str, tuple[int, str]]] = {
    "NetworkErrorRatio": (0, "NetworkErrorRatio()"),
    "ResponseCodeRatio": (4, "ResponseCodeRatio(500, 600, 0, 600)"),
    "LatencyAtQuantileMS": (1, "LatencyAtQuantileMS(50.0)"),
}
"""How many numbers each function takes, and what it looks like."""
