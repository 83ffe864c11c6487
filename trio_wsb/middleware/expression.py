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

from trio_wsb.routing.grammar import NAME, Parser, TextError

MAX_LENGTH: Final = 2048
"""Characters in an expression."""

_NUMBER: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?(?![A-Za-z0-9_.])")


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


class ExpressionError(TextError):
    """A text that is no expression; see `TextError` for what it carries."""


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
    return Expression(text, _Parser(text).parse())


@frozen
class _Operand:
    """One side of a comparison: where it begins, its name ("" for a number), and how to get its value."""

    start: int
    name: str
    value: _Value


class _Parser(Parser[Figures]):
    noun = "expression"
    leaves = "comparisons"
    example = "write a comparison such as NetworkErrorRatio() > 0.30"
    longest = MAX_LENGTH
    fault = ExpressionError

    def leaf(self) -> Condition:
        left = self._operand()
        start = self.position
        compare = self._operator()
        if compare is None:
            name = left.name or self.text[left.start : start].strip()
            raise self._missing_operator(name, start)
        right = self._operand()
        if not left.name and not right.name:
            raise self.error("this compares two numbers", self.example, left.start)
        end = self.position
        if self._operator() is not None:
            raise self.error("comparisons cannot be chained", "write && between two of them", end)
        a, b = left.value, right.value
        return lambda figures: compare(a(figures), b(figures))

    def _operator(self) -> Callable[[float, float], bool] | None:
        for sign, compare in _OPERATORS.items():
            if self.take(sign):
                return compare
        return None

    def _operand(self) -> _Operand:
        start = self.position
        number = _NUMBER.match(self.text, start)
        if number is not None:
            constant = float(number[0])
            self.advance(number.end())
            return _Operand(start, "", lambda _: constant)
        name = NAME.match(self.text, start)
        if name is None:
            raise self._no_operand(start)
        make = self._find(name[0], start)
        self.advance(name.end())
        opened = self.position
        if not self.take("("):
            raise self.error(f"{name[0]} has no parentheses", f"write {_FUNCTIONS[make][1]}", opened)
        places, arguments = self._arguments(opened)
        value = self._call(make, start, places, arguments)
        return _Operand(start, make, value)

    def _arguments(self, opened: int) -> tuple[list[int], list[str]]:
        places: list[int] = []
        arguments: list[str] = []
        while not self.take(")"):
            if arguments and not self.take(","):
                if self.at_end():
                    raise self.never_closed(opened)
                raise self.error(
                    f"unexpected {self.text[self.position]!r}", "write a comma between two numbers"
                )
            if self.at_end():
                raise self.never_closed(opened)
            number = _NUMBER.match(self.text, self.position)
            if number is None:
                raise self.error("the argument is no number", "write a number such as 500 or 50.0")
            places.append(self.position)
            arguments.append(number[0])
            self.advance(number.end())
        return places, arguments

    def _call(self, name: str, start: int, places: list[int], arguments: list[str]) -> _Value:
        count, usage = _FUNCTIONS[name]
        if len(arguments) != count:
            wanted = {0: "nothing", 1: "one number", 4: "four numbers"}[count]
            raise self.error(
                f"{name} takes {wanted}", f"write {usage}", places[count] if len(places) > count else start
            )
        if name == "NetworkErrorRatio":
            return lambda figures: figures.network_error_ratio()
        if name == "LatencyAtQuantileMS":
            quantile = float(arguments[0])
            if quantile > 100:
                raise self.error("a quantile is 0 to 100", f"write {usage}", places[0])
            return lambda figures: figures.latency_at_quantile(quantile)
        for at, argument in zip(places, arguments, strict=True):
            if not argument.isdigit():
                raise self.error("a status code is a whole number", f"write {usage}", at)
        low, high, divisor_low, divisor_high = map(int, arguments)
        for begin, end, at in ((low, high, places[1]), (divisor_low, divisor_high, places[3])):
            if begin >= end:
                hint = "the second number of a range is exclusive and larger than the first"
                raise self.error("no status code is in this range", hint, at)
        return lambda figures: figures.response_code_ratio(low, high, divisor_low, divisor_high)

    def _find(self, name: str, at: int) -> str:
        known = {each.lower(): each for each in _FUNCTIONS}
        found = known.get(name.lower())
        if found == name:
            return found
        if found is not None:
            raise self.error(f"unknown function {name!r}", f"write {found}; upper and lower case differ", at)
        if name.lower() in {"and", "or", "not"}:
            raise self.error(f"unknown operator {name!r}", "operators are &&, || and !", at)
        near = difflib.get_close_matches(name.lower(), known, n=1)
        *rest, last = _FUNCTIONS
        hint = f"did you mean {known[near[0]]}?" if near else f"there are {', '.join(rest)} and {last}"
        raise self.error(f"unknown function {name!r}", hint, at)

    def _no_operand(self, at: int) -> TextError:
        if at == len(self.text):
            return self.error("the expression ends where a value should be", self.example)
        if self.text[at].isdigit() or self.text[at] in "-+.":
            return self.error("this is no number", "write a number such as 0.30 or 100")
        return self.error(f"unexpected {self.text[at]!r} where a value should be", self.example)

    def _missing_operator(self, name: str, at: int) -> TextError:
        if self.text.startswith("=", at):
            return self.error("unknown operator '='", "write ==", at)
        return self.error(f"{name} is compared with nothing", self.example, at)


_FUNCTIONS: Final[dict[str, tuple[int, str]]] = {
    "NetworkErrorRatio": (0, "NetworkErrorRatio()"),
    "ResponseCodeRatio": (4, "ResponseCodeRatio(500, 600, 0, 600)"),
    "LatencyAtQuantileMS": (1, "LatencyAtQuantileMS(50.0)"),
}
"""How many numbers each function takes, and what it looks like."""
