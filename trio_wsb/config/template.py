"""The rule of containers that have none: Go's template language, as far as it takes no template engine.

    template = *( text / "{{" ["-"] pipeline ["-"] "}}" )
    pipeline = command *( "|" command )
    command  = operand / function *operand
    operand  = ".Name" / ".ContainerName" / ".Labels" [ "." label ] / string / "(" pipeline ")"

What comes out of a command is the last operand of the next one. With ``-`` white space beside the braces goes. Functions are those
of `FUNCTIONS`, with their operands in the order that Sprig gives them. Conditions, loops and variables are errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, TypeAlias

from attrs import Factory, field, frozen

from trio_wsb.routing.grammar import TextError
from trio_wsb.routing.rules import RuleError, parse_rule

MAX_LENGTH: Final = 4096
"""Characters in a template."""

_MAX_NESTING: Final = 16
_ACTION: Final = re.compile(r"\{\{(-\s)?((?:`[^`]*`|\"(?:\\.|[^\"\\])*\"|(?!\}\}).)*?)(\s-)?\}\}", re.DOTALL)
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<field>\.[A-Za-z_][A-Za-z0-9_.-]*)|(?P<word>[A-Za-z_]\w*)|`(?P<raw>[^`]*)`"
    r"|\"(?P<quoted>(?:\\[\"\\]|[^\"\\])*)\"|(?P<sign>[|()]))"
)
_KEYWORDS: Final = frozenset(
    {"if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"}
)
_FIELDS: Final = "the fields are .Name, .ContainerName and .Labels"


@frozen
class Subject:
    """What a template is filled in with.

    `name` is the name of the service, normalised; `container_name` that of the container.
    """

    name: str
    container_name: str = ""
    labels: Mapping[str, str] = Factory(dict)


_Value: TypeAlias = "str | Mapping[str, str]"
_Part: TypeAlias = Callable[[Subject], _Value]


class TemplateError(TextError):
    """A text that is no template; see `TextError` for what it carries."""


def normalize(name: str) -> str:
    """Return `name` with dashes for all that is neither letter nor number, none at the ends and no two in a row."""
    return "-".join(re.findall(r"[^\W_]+", name))


@frozen
class _Function:
    takes: int
    call: Callable[..., str]


FUNCTIONS: Final[Mapping[str, _Function]] = {
    "normalize": _Function(1, normalize),
    "lower": _Function(1, str.lower),
    "upper": _Function(1, str.upper),
    "trim": _Function(1, str.strip),
    "trimPrefix": _Function(2, lambda prefix, text: text.removeprefix(prefix)),
    "trimSuffix": _Function(2, lambda suffix, text: text.removesuffix(suffix)),
    "replace": _Function(3, lambda old, new, text: text.replace(old, new)),
    "default": _Function(2, lambda other, text: text or other),
}
"""Functions on text; `index`, which takes `.Labels` and a name, is the only other one."""


@frozen
class RuleTemplate:
    """A parsed template; two are equal when they are written alike."""

    text: str
    fill: Callable[[Subject], str] = field(eq=False, repr=False)
    """Returns the rule of a container; it may turn out to be none."""

    def __str__(self) -> str:
        return self.text


def parse_template(text: str) -> RuleTemplate:
    """Return the template that `text` writes.

    Raises:
      TemplateError: it writes none, or what comes out of it is never a rule.

    """
    if len(text) > MAX_LENGTH:
        hint = f"a template has at most {MAX_LENGTH} characters"
        raise TemplateError("the template is too long", hint, MAX_LENGTH, text)
    parts: list[_Part] = []
    position, trim = 0, False
    for action in _ACTION.finditer(text):
        parts.append(_text(text, position, action.start(), left=trim, right=bool(action[1])))
        parts.append(_Parser(text, action.start(2), action.end(2)).parse())
        position, trim = action.end(), bool(action[3])
    parts.append(_text(text, position, len(text), left=trim, right=False))

    def fill(subject: Subject) -> str:
        return "".join(str(part(subject)) for part in parts)

    if ".Labels" not in text:
        rule = fill(Subject("name", "name"))
        try:
            parse_rule(rule)
        except RuleError as error:
            message = f'makes no rule, of the name "name" for example {rule!r}: {error.message}'
            raise TemplateError(message, error.hint, 0, text) from None
    return RuleTemplate(text, fill)


def _text(text: str, start: int, end: int, *, left: bool, right: bool) -> _Part:
    """Return what gives the plain text from `start` to `end`, with the white space at its ends taken off or not."""
    plain = text[start:end]
    for braces in ("{{", "}}"):
        if (at := plain.find(braces)) >= 0:
            raise TemplateError(f"{braces} has no counterpart", "write {{ .Name }}", start + at, text)
    plain = plain.lstrip() if left else plain
    plain = plain.rstrip() if right else plain
    return lambda _: plain


class _Parser:
    """Recursive descent over what stands between two braces."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text = text
        self.position = start
        self.end = end
        self.depth = 0

    def parse(self) -> _Part:
        part = self._pipeline()
        if self._left():
            self._fail(f"unexpected {self.text[self.position : self.end].strip()[0]!r}", "")
        return _as_text(part)

    def _pipeline(self) -> _Part:
        part = self._command(None)
        while self._peek() == "|":
            self._next()
            part = self._command(part)
        return part

    def _command(self, piped: _Part | None) -> _Part:
        start = self.position
        kind, value = self._next()
        if kind != "word":
            if piped is not None:
                self._fail("only a function can follow |", f"functions are {', '.join(FUNCTIONS)}", start)
            return self._operand(kind, value, start)
        operands = []
        while self._left() and self._peek() not in {"|", ")"}:
            at = self.position
            operands.append(self._operand(*self._next(), at))
        if piped is not None:
            operands.append(piped)
        return self._call(value, operands, start)

    def _call(self, name: str, operands: list[_Part], start: int) -> _Part:
        if name == "index":
            if len(operands) != 2:
                self._fail("index takes two operands", 'write index .Labels "com.example.host"', start)
            of, key = operands[0], _as_text(operands[1])

            def look_up(subject: Subject) -> str:
                labels = of(subject)
                return labels.get(str(key(subject)), "") if isinstance(labels, Mapping) else ""

            return look_up
        if name in _KEYWORDS:
            self._fail(
                f'"{name}" is not supported',
                "there are no conditions and loops; write a label per container",
                start,
            )
        function = FUNCTIONS.get(name)
        if function is None:
            self._fail(
                f'unknown function "{name}"', f"functions are {', '.join([*FUNCTIONS, 'index'])}", start
            )
        if len(operands) != function.takes:
            count = "one operand" if function.takes == 1 else f"{function.takes} operands"
            self._fail(f"{name} takes {count}", f"write {{{{ {name} ... .Name }}}}", start)
        return lambda subject: function.call(*(str(_as_text(each)(subject)) for each in operands))

    def _operand(self, kind: str, value: str, start: int) -> _Part:
        if kind == "text":
            return lambda _: value
        if kind == "field":
            return self._field(value, start)
        if kind == "sign" and value == "(":
            self.depth += 1
            if self.depth > _MAX_NESTING:
                self._fail("is nested too deeply", f"at most {_MAX_NESTING} levels", start)
            part = self._pipeline()
            if self._peek() != ")":
                self._fail("a parenthesis is never closed", "", start)
            self._next()
            self.depth -= 1
            return part
        return self._fail(f'unexpected "{value}"', "write a field such as .Name", start)

    def _field(self, name: str, start: int) -> _Part:
        if name == ".Name":
            return lambda subject: subject.name
        if name == ".ContainerName":
            return lambda subject: subject.container_name
        if name == ".Labels":
            return lambda subject: subject.labels
        if name.startswith(".Labels."):
            key = name.removeprefix(".Labels.")
            if "." in key:
                self._fail(f'"{name}" is no field of Go', f'write index .Labels "{key}"', start)
            return lambda subject: subject.labels.get(key, "")
        return self._fail(f'unknown field "{name}"', _FIELDS, start)

    def _left(self) -> bool:
        return bool(self.text[self.position : self.end].strip())

    def _peek(self) -> str:
        found = _TOKEN.match(self.text, self.position, self.end)
        return "" if found is None else found["sign"] or ""

    def _next(self) -> tuple[str, str]:
        found = _TOKEN.match(self.text, self.position, self.end)
        if found is None:
            left = self.text[self.position : self.end].strip()
            self._fail(f"unexpected {left[0]!r}" if left else "an action is empty", _FIELDS)
        self.position = found.end()
        if found["raw"] is not None:
            return "text", found["raw"]
        if found["quoted"] is not None:
            return "text", re.sub(r"\\(.)", r"\1", found["quoted"])
        kind = str(found.lastgroup)
        return kind, found[kind]

    def _fail(self, message: str, hint: str, position: int | None = None) -> NoReturn:
        at = self.position if position is None else position
        while at < self.end and self.text[at].isspace():
            at += 1
        raise TemplateError(message, hint, at, self.text)


def _as_text(part: _Part) -> _Part:
    """Return `part` as text; Go would print a map, and no rule has one."""

    def text(subject: Subject) -> str:
        value = part(subject)
        return value if isinstance(value, str) else ""

    return text
