"""Bounds that a single value must keep, as the model states them beside each field.

A check is called with the structured value and raises `ValueError` whose text is "what is wrong; what would
be right", the form that `trio_wsb.units` and `trio_wsb.addresses` use; `text` is the same in the generated reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from attrs import frozen

from trio_wsb.units import format_duration

_PATH = re.compile(r"/[!-~]*")
_SHORTEST_PERIOD = 0.01


@frozen
class Check:
    """A bound: `text` for the reference, `holds` for the value, `wrong` and `hint` when it does not hold."""

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


def between(low: int, high: int) -> Check:
    """Return the check for a whole number from `low` to `high`."""
    text = f"{low} to {high}"
    return Check(
        text, lambda value: low <= value <= high, "is out of range", f"write a number from {low} to {high}"
    )


AT_LEAST_0 = between(0, 1_000_000_000)
"""For limits where 0 means none; the upper bound only catches a slip of the keyboard."""

STATUS = between(100, 599)
"""An HTTP status code (RFC 9110 section 15)."""


def longer_than_zero(hint: str) -> Check:
    """Return the check for a duration that may not be 0; `hint` says why or what to write."""
    return Check("more than 0", lambda value: value > 0, "is not longer than 0", hint)


PERIOD = Check(
    f"at least {format_duration(_SHORTEST_PERIOD)}",
    lambda value: value >= _SHORTEST_PERIOD,
    f"is shorter than {format_duration(_SHORTEST_PERIOD)}",
    'it is how often something is done: write a duration such as "30s"',
)
"""The time between two rounds of background work; 0 would mean without a pause."""

DEADLINE = longer_than_zero('it never ends a session: write a duration such as "30s"')
"""A deadline of the handshake that protects the daemon or its clients, so it cannot be switched off."""

URL_PATH = Check(
    'begins with "/"',
    lambda value: _PATH.fullmatch(value) is not None and "#" not in value,
    'is not a path that begins with "/" and has neither spaces nor "#"',
    'write a path such as "/metric"',
)
"""The path, and perhaps the query, of a URL (RFC 9110 section 4.2)."""

NOT_EMPTY = Check("not empty", lambda value: value.strip() != "", "is empty", "write a name")

FILE_PATH = Check(
    "a path",
    lambda value: value != "" and value.isprintable(),
    "is not a file name",
    'write a path such as "/etc/trio-wsb/ca.pem"',
)
