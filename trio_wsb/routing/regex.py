"""Regular expressions in RE2 syntax, bounded, with errors that say where and why.

RE2 takes time proportional to the text, whatever the pattern: what a stranger sends cannot make it backtrack. The
bounds below keep the factor small, since one text can be 64 KiB long: the worst pattern they let through takes
about 0.7 s for that, an ordinary one 0.1 ms.
"""

from __future__ import annotations

import re
from typing import Any, Final

import re2  # type: ignore[import-untyped]  # it brings no types; this module is the only one that uses it

MAX_PATTERN_LENGTH: Final = 1024
"""Characters in a pattern."""

MAX_PROGRAM_SIZE: Final = 2500
"""Instructions that a pattern may compile to. `.{1,255}` has 2,300, `\\pL+` 1,200, `^/[a-z0-9-]{1,64}$` 260."""

_MEMORY: Final = 1 << 20
"""Bytes that a compiled pattern may use, with the cache that it fills as it runs."""

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.never_capture = True
_OPTIONS.max_mem = _MEMORY

# What may have a parenthesis in it that is none: a literal part, an escaped character, a character class.
_TOKEN: Final = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.|\[\^?\]?(?:\[:\^?[a-z]*:\]|\\.|[^\]\\])*\]|[()]", re.DOTALL)

_TOO_LARGE: Final = ("it is too large when compiled", "repeat less, or a smaller class of characters")

# By what RE2 calls them; "{}" is what it complains about.
_FAULTS: Final = {
    "missing )": ("a parenthesis is never closed", r"write \( for the character itself"),
    "unexpected )": ("a parenthesis was never opened", r"write \) for the character itself"),
    "missing ]": ("a character class is never closed", r"write \[ for the character itself"),
    "bad repetition operator": ("{} repeats what is repeated already", "put the inner one in parentheses"),
    "no argument for repetition operator": ("there is nothing for {} to repeat", "write \\{} for the character itself"),
    "invalid repetition size": ("{} is no repetition of RE2", "at most 1000 times in all, the smaller number first"),
    "invalid perl operator": ("{} begins no group of RE2", "it has (...), (?:...), (?i) and (?P<name>...)"),
    "invalid escape sequence": ("{} is no escape of RE2", r"a letter or digit needs none; write \\ for a backslash"),
    "invalid character class range": ("{} is no range or class of characters", "ranges go upwards, as in a-z"),
    "invalid named capture group": ("{} is no named group", "write (?P<name>...)"),
    "duplicate capture group name": ("the group name {} is used twice", "each name once"),
    "trailing \\": ("a backslash is the last character", r"write \\ for the character itself"),
    "invalid UTF-8": ("it is no Unicode text", ""),
    "pattern too large - compile failed": _TOO_LARGE,
    "expression nests too deeply": ("it is nested too deeply", "at most 1000 levels"),
}  # fmt: skip
_LOOK_AROUND: Final = ("{} looks around, which RE2 cannot", "in a rule, say it with && and !")
_BACK_REFERENCE: Final = ("{} refers back, which RE2 cannot", "")
_PYTHON_END: Final = ("{} is no escape of RE2", r"the end of the text is \z or $")


class RegexError(ValueError):
    """A text that is no usable pattern.

    `message` says what is wrong, `hint` what would be right ("" when there is nothing to add), `position` is the
    0-based index in the pattern where it went wrong.
    """

    def __init__(self, message: str, hint: str, position: int) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.position = position


class Regex:
    """A compiled pattern; immutable.

    Raises:
      RegexError: `pattern` is malformed, or exceeds a bound.

    """

    __slots__ = ("_search", "pattern")

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN_LENGTH:
            raise RegexError("it is too long", f"at most {MAX_PATTERN_LENGTH} characters", MAX_PATTERN_LENGTH)
        fault = _fault(pattern)
        if fault is not None:
            raise _explain(pattern, *fault)
        compiled = _compile(pattern)
        if max(compiled.programsize, compiled.reverseprogramsize) > MAX_PROGRAM_SIZE:
            raise RegexError(*_TOO_LARGE, 0)
        self.pattern = pattern
        self._search = compiled.search

    def search(self, text: str) -> bool:
        """Whether `text` has a match anywhere, as Go's regexp has it: ``^`` and ``$`` are written where they are meant."""
        # Bytes spare re2 the conversion of positions that nobody asks for.
        return self._search(text.encode("utf-8", "replace")) is not None

    def __eq__(self, other: object) -> bool:
        return self.pattern == other.pattern if isinstance(other, Regex) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r})"


def _compile(pattern: str) -> Any:
    return re2.compile(pattern, _OPTIONS)


def _fault(pattern: str) -> tuple[str, str] | None:
    """Return what RE2 calls the fault of `pattern` and the part that it blames, or None if there is none."""
    try:
        _compile(pattern)
    except UnicodeEncodeError:
        return "invalid UTF-8", ""
    except re2.error as error:
        text = error.args[0]
        words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        kind, _, part = words.partition(": ")
        return kind, part
    return None


def _explain(pattern: str, kind: str, part: str) -> RegexError:
    message, hint = _FAULTS.get(kind, (kind, ""))
    position = 0
    if kind in {"missing )", "unexpected )"}:
        position = _unbalanced(pattern)
    elif kind == "trailing \\":
        position = len(pattern) - 1
    elif part:
        position = _place(pattern, kind, part)
    if kind == "invalid perl operator" and part in {"(?=", "(?!", "(?<=", "(?<!"}:
        message, hint = _LOOK_AROUND
    elif kind == "invalid escape sequence" and part[1:].isdigit():
        message, hint = _BACK_REFERENCE
    elif part == r"\Z":
        message, hint = _PYTHON_END
    return RegexError(message.replace("{}", part), hint.replace("{}", part), position)


def _place(pattern: str, kind: str, part: str) -> int:
    """Return where RE2 found `part`, which it does not tell: at the first one that has the same fault up to there."""
    at = pattern.find(part)
    while at >= 0:
        found = _fault(pattern[: at + len(part)])
        if found == (kind, part):
            return at
        at = pattern.find(part, at + 1)
    return max(0, pattern.find(part))


def _unbalanced(pattern: str) -> int:
    """Return the place of the first parenthesis that closes nothing, or else of the last that is never closed."""
    opened: list[int] = []
    for token in _TOKEN.finditer(pattern):
        if token[0] == "(":
            opened.append(token.start())
        elif token[0] == ")":
            if not opened:
                return token.start()
            opened.pop()
    return opened[-1] if opened else 0
