"""What the options of every middleware have in common: documented fields, bounds, and faults between fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from attrs import field, frozen


@frozen
class Bound:
    """A bound that a single value must keep.

    Called with a value, raises `ValueError` ("what is wrong; what would be right") when it is not kept; `text` is the
    same for the reference.
    """

    text: str
    holds: Callable[[Any], bool]
    wrong: str
    hint: str

    def __call__(self, value: object) -> None:
        """Check `value`.

        Raises:
          ValueError: the bound is not kept.

        """
        if not self.holds(value):
            raise ValueError(f"{self.wrong}; {self.hint}")


def between(low: int, high: int) -> Bound:
    """Return the bound for a number from `low` to `high`."""
    hint = f"write a number from {low} to {high}"
    return Bound(f"{low} to {high}", lambda value: low <= value <= high, "is out of range", hint)


MANY = 1_000_000_000
"""The upper bound of numbers that have none by nature; it catches a slip of the keyboard."""

STATUS = between(200, 599)
"""A final HTTP status code (RFC 9110 section 15)."""

NOT_EMPTY = Bound("not empty", lambda value: len(value) > 0, "is empty", "write a value or leave the key out")

POSITIVE = Bound(
    "more than 0", lambda value: value > 0, "is not more than 0", 'write a duration such as "10s"'
)


def is_field_value(text: str) -> bool:
    """Whether `text` can be the value of a header field: printable latin-1, and tabs (RFC 9110 section 5.5)."""
    return all(" " <= each <= "~" or "\x80" <= each <= "\xff" or each == "\t" for each in text)


FIELD_VALUE = Bound(
    "one line",
    is_field_value,
    "has a character that no header field may have",
    "write one line without control characters",
)


def is_token(text: str) -> bool:
    """Whether `text` is a token (RFC 9110 section 5.6.2), as names of header fields, methods and cookies are."""
    return text != "" and text.isascii() and all(each.isalnum() or each in "!#$%&'*+-.^_`|~" for each in text)


FIELD_NAME = Bound(
    "the name of a header field",
    is_token,
    "is no name of a header field",
    "write a name such as X-Forwarded-User",
)


def option(
    doc: str,
    default: Any = ...,
    *,
    key: str | None = None,
    reload: str = "yes",
    check: Callable[[Any], None] | None = None,
    secret: bool = False,
) -> Any:
    """Return an attrs field with its documentation, in the same form as the rest of the configuration model has it.

    Args:
      doc: what the option does, one or two sentences, ending with a full stop.
      default: the value when the key is absent, or an `attrs.Factory`; without one the key is required.
      key: the YAML name where it is not the field's name in camelCase.
      reload: from when a changed value counts.
      check: a bound that a written value must keep; has a `text`.
      secret: the value is never shown.

    """
    metadata = {"doc": doc, "key": key, "reload": reload, "check": check, "secret": secret}
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@frozen
class OptionProblem:
    """Something wrong with the options of a middleware that no single value shows.

    `path` leads from the options to the place: names of fields of the class, keys of mappings, indices of lists.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str
    severity: Literal["error", "warning"] = "error"
