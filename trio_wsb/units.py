"""Durations, sizes, rates and percentages as people write them in configuration.

Every parser takes what YAML gives (a string or a number), returns plain numbers in SI units, and raises
`ValueError` with a message that says what would be right. Booleans are never numbers.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import NewType

Duration = NewType("Duration", float)
"""Seconds; written ``30s``, ``100ms``, ``1m30s`` or a number of seconds."""

Size = NewType("Size", int)
"""Bytes; written ``64KiB`` or a number of bytes."""

Rate = NewType("Rate", float)
"""Events per second; written ``10/s``, ``600/m`` or a number per second."""

Percent = NewType("Percent", float)
"""A fraction from 0 to 1; written ``20%``."""

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|s|m|h|d)")
_DURATION_UNIT = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|B|kB|KB|MB|GB|KiB|MiB|GiB|k|K|M|G)")
_SIZE_UNIT = {
    "": 1, "B": 1, "kB": 10**3, "KB": 10**3, "k": 10**3, "K": 10**3, "MB": 10**6, "M": 10**6,
    "GB": 10**9, "G": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip

DURATION_HINT = 'write a duration such as "30s", "100ms", "1m30s" or a number of seconds'
SIZE_HINT = 'write a size such as "64KiB", "1MiB" or a number of bytes'
RATE_HINT = 'write a rate such as "10/s" or "600/m"'
PERCENT_HINT = 'write a percentage such as "20%"'

MAX_DURATION = 100 * 365 * 86400.0
"""The longest duration accepted, in seconds: a hundred years; more is a typing error."""


def parse_duration(value: object) -> float:
    """Return the seconds that `value` means: ``30s``, ``100ms``, ``1m30s`` or a number of seconds.

    Raises:
      ValueError: `value` is no duration, is negative, or is longer than `MAX_DURATION`.

    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"is not a duration; {DURATION_HINT}")
    if isinstance(value, str):
        seconds = _duration_text(value.strip())
    else:
        seconds = float(value) if abs(value) <= MAX_DURATION else math.inf
    if not math.isfinite(seconds) or seconds > MAX_DURATION:
        raise ValueError(f"is longer than a hundred years; {DURATION_HINT}")
    if seconds < 0:
        raise ValueError(f"is negative; {DURATION_HINT}")
    return seconds


def _duration_text(text: str) -> float:
    try:
        return (
            float(text) if text.isascii() and re.fullmatch(r"-?\d+(\.\d+)?", text) else _duration_parts(text)
        )
    except OverflowError:  # pragma: no cover - float() of digits gives inf rather than raising
        return math.inf


def _duration_parts(text: str) -> float:
    parts = _DURATION_PART.findall(text) if text.replace("µ", "u").isascii() else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"is not a duration; {DURATION_HINT}")
    return math.fsum(float(number) * _DURATION_UNIT[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Return `seconds` as people write it: ``1m30s``, ``100ms``, ``0s``."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms" if seconds else "0s"
    whole, rest = divmod(seconds, 60)
    minutes, text = int(whole), f"{rest:g}s" if rest else ""
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "") + text


def parse_size(value: object) -> int:
    """Return the bytes that `value` means: ``64KiB``, ``1MB`` or a number of bytes.

    Raises:
      ValueError: `value` is no size, or is negative.

    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"is negative; {SIZE_HINT}")
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) and value.isascii() else None
    if match is None:
        raise ValueError(f"is not a size; {SIZE_HINT}")
    return int(float(match[1]) * _SIZE_UNIT[match[2]])


def parse_rate(value: object) -> float:
    """Return the events per second that `value` means: ``10/s``, ``600/m`` or a number per second.

    Raises:
      ValueError: `value` is no rate, or is negative.

    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number, unit = float(value), "s"
    else:
        match = (
            re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h)", value.strip()) if isinstance(value, str) else None
        )
        if match is None:
            raise ValueError(f"is not a rate; {RATE_HINT}")
        number, unit = float(match[1]), match[2]
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"is not a rate; {RATE_HINT}")
    return number / _DURATION_UNIT[unit]


def format_rate(per_second: float) -> str:
    """Return a rate as people write it, so that it reads back the same: ``10/s``, ``1/h``."""
    for unit in ("s", "m", "h"):
        number = f"{per_second * _DURATION_UNIT[unit]:.15g}"
        if "e" not in number and float(number) / _DURATION_UNIT[unit] == per_second:
            return f"{number}/{unit}"
    return f"{_decimal(Decimal(repr(per_second)))}/s"


def format_percent(fraction: float) -> str:
    """Return a fraction as people write it, so that it reads back the same: ``20%``."""
    return f"{_decimal(Decimal(repr(fraction)) * 100)}%"


def _decimal(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_percent(value: object) -> float:
    """Return the fraction that `value` means: ``20%`` is 0.2.

    Raises:
      ValueError: `value` is no percentage between 0% and 100%.

    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip()) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise ValueError(f"is not a percentage; {PERCENT_HINT}")
    return float(Decimal(match[1]) / 100)
