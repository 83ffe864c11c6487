"""What is wrong with a configuration file, where, and what would be right.

A check that knows only the model makes a `Finding`, which points at a key path; a `Problem` is a finding with its
place in a file, ready to be printed. Nothing here keeps a value longer than a line or prints a control character.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from attrs import field, frozen

from trio_wsb.errors import ConfigurationError

Severity: TypeAlias = Literal["error", "warning"]

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the root of a document down to a value."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_@<>/-]+")
_SHOWN = 60
_COMPARABLE = 64


@frozen
class Finding:
    """Something wrong at a key path.

    `at` says whether the key or its value is to blame, `offset` counts characters into the value's text, `other` is
    a second place that the message leads up to ("... is the same server as"), and `code` groups findings that
    a caller treats alike: "reference" for a name that nothing defines, "cycle" for one that leads back to where it stands,
    "empty" for a set without members, "rule" for a rule that is none, "value" for any other value of the right kind that
    cannot be used, "effect" for options that do not what they seem to, "ignored" for a key that is passed over.
    """

    path: KeyPath
    message: str
    hint: str = ""
    severity: Severity = "error"
    code: str = ""
    at: Literal["key", "value"] = "value"
    offset: int = 0
    other: KeyPath | None = None
    shown: str = ""
    """Lines that show where in a longer text it is, with a caret."""


@frozen
class Problem:
    """One line of what is wrong; line and column count from 1. `path` is the key path in the long form.

    What is wrong with a container has no line: `file` names the container, and `key_path` is the label.
    """

    file: str
    line: int
    column: int
    key_path: str
    message: str
    hint: str = ""
    severity: Severity = "error"
    code: str = ""
    path: KeyPath = field(default=(), eq=False)
    shown: str = field(default="", eq=False)
    """As in `Finding`; the line that `str` gives does without."""

    def __str__(self) -> str:
        key = f" {self.key_path}" if self.key_path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.place}{key}: {self.message}{hint}"

    @property
    def place(self) -> str:
        """File, line and column; where there is no line the file, or what stands for it."""
        file = printable(self.file)
        return f"{file}:{self.line}:{self.column}" if self.line else file

    @property
    def position(self) -> tuple[str, int, int, str, str]:
        """What problems are sorted by: the order of the file, then of the text."""
        return (self.file, self.line, self.column, self.key_path, self.message)


class InvalidConfiguration(ConfigurationError):
    """A configuration with errors; `details` are the problems in the order of the file, warnings included."""

    def __init__(self, details: Iterable[Problem]) -> None:
        self.details = sorted(details, key=lambda problem: problem.position)
        super().__init__([str(problem) for problem in self.details if problem.severity == "error"])


def format_path(path: KeyPath) -> str:
    """Return `path` as messages show it: ``http.services.chat.loadBalancer.servers[2].url``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if _PLAIN_KEY.fullmatch(step) else f'"{printable(step)}"')
    return text


def printable(text: str) -> str:
    """Return `text` on one line, shortened, with what cannot be printed escaped."""
    if len(text) > 4 * _SHOWN:
        text = text[: 4 * _SHOWN] + "..."
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


def quoted(text: str) -> str:
    """Return `text` in double quotes, shortened to fit a message, without the password that a URL may carry."""
    authority, sign = text.find("//"), text.rfind("@")
    if 0 <= authority < sign:
        text = f"{text[:authority]}//...{text[sign:]}"
    short = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return f'"{printable(short)}"'


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """Return the one of `valid` that `word` was most likely meant to be, or None.

    Case counts as nothing here, since it is the commonest mistake. A very long word is never compared: the
    comparison takes time in the square of its length.
    """
    if len(word) > _COMPARABLE:
        return None
    by_folded = {each.lower(): each for each in valid}
    close = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=0.7)
    return by_folded[close[0]] if close else None


def alternatives(words: Sequence[str]) -> str:
    """Return `words` as a list in a sentence: ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
