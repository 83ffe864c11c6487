"""What plain text means in YAML, and how a value is named in a message."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from trio_wsb.config.problems import quoted

_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LONGEST_NUMBER = 400
"""Digits; Python's own limit for a conversion, which exists since the time grows with their square, is 4300."""


def resolve(text: str) -> object:
    """Return what a plain scalar means in the core schema of YAML 1.2.2 (section 10.3.2).

    Unlike in YAML 1.1, ``on``, ``yes``, ``10:30`` and ``1_000`` are strings.

    Raises:
      ValueError: it is a number with hundreds of digits.

    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    if len(text) > _LONGEST_NUMBER and (_FLOAT.fullmatch(text) or _BASED.fullmatch(text)):
        raise ValueError(f"a number of {len(text)} digits")
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def show(value: object) -> str:
    """Return how a message names `value`: as YAML writes it, a string in quotes, a container by its kind."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    if isinstance(value, float) and not math.isfinite(value):
        text = f".{text}" if text[0] != "-" else f"-.{text[1:]}"
    return text if len(text) <= 30 else text[:27] + "..."


def kind(value: object) -> str:
    """Return what `value` is, in the words of YAML's users."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "empty" if value is None else show(value)
