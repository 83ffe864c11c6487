"""The composed tree to the model: one cattrs converter, and one walk over its errors.

Nothing is coerced: every scalar hook takes exactly the kinds of value that it names and hands text to the parsers of
`trio_wsb.units`, `trio_wsb.addresses` and `trio_wsb.routing.rules`. cattrs collects what they raise into a tree of
exception groups; `_walk` goes down that tree and the YAML tree together and makes a `Finding` of each leaf.

An absent value (``http:`` with nothing after it) means an empty section or list, and is an error for a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import GenericAlias, UnionType
from typing import Any, Literal, NewType, TypeAlias, Union, get_args, get_origin

import attrs
from attrs import Attribute, frozen
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from trio_wsb.addresses import (
    BackendURL,
    IPNetwork,
    ListenAddress,
    NameServer,
    parse_backend_url,
    parse_entry_address,
    parse_name_server,
    parse_network,
)
from trio_wsb.config.accesslog import StatusRange, parse_status_range
from trio_wsb.config.constraints import Constraints, parse_constraints
from trio_wsb.config.docker import EngineURL, parse_engine_url
from trio_wsb.config.foreign import foreign
from trio_wsb.config.model import Duration, Size, key_of
from trio_wsb.config.problems import Finding, KeyPath, alternatives, nearest
from trio_wsb.config.scalars import kind, show
from trio_wsb.config.shortform import File
from trio_wsb.config.template import RuleTemplate, parse_template
from trio_wsb.config.yamltree import ListNode, MapNode
from trio_wsb.middleware.expression import Expression, parse_expression
from trio_wsb.middleware.forward_auth import AuthAddress, parse_auth_address
from trio_wsb.middleware.htpasswd import User, parse_user
from trio_wsb.middleware.origin import Origin, parse_origin
from trio_wsb.middleware.redirect import Port, parse_port
from trio_wsb.routing.grammar import TextError
from trio_wsb.routing.regex import Regex, RegexError
from trio_wsb.routing.rules import Rule, parse_rule
from trio_wsb.units import (
    DURATION_HINT,
    PERCENT_HINT,
    RATE_HINT,
    SIZE_HINT,
    Percent,
    Rate,
    parse_duration,
    parse_percent,
    parse_rate,
    parse_size,
)

Hook: TypeAlias = Callable[[Any, Any], Any]

Name = NewType("Name", str)
"""A key that the user chose: of a router, a service, an entry point."""

_LONGEST_NAME = 200
_LISTED_KEYS = 24


class WrongValue(ValueError):
    """A value that cannot stand where it does; `offset` counts characters into its text, `code` is that of the finding.

    `shown` are lines that show the place in the text, "" where nobody needs them.
    """

    def __init__(self, message: str, hint: str, offset: int = 0, *, code: str = "", shown: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.offset = offset
        self.code = code
        self.shown = shown


@frozen
class Kind:
    """A kind of scalar: what it is called, what to write, which YAML values it takes and how they are read."""

    noun: str
    hint: str
    takes: tuple[type, ...]
    read: Callable[[Any], object]
    secret: bool = False
    """Whether a wrong value may be a slip in something that nobody should see."""

    def __call__(self, value: object, _: object = None) -> object:
        """Return what `value` means.

        Raises:
          WrongValue: it is of another kind, or cannot be read.

        """
        if type(value) not in self.takes:
            raise WrongValue(_not_a(value, self.noun), self._hint_for(value))
        try:
            return self.read(value)
        except (TextError, RegexError) as error:
            code, place = ("rule", error.caret()) if isinstance(error, TextError) else ("value", "")
            raise WrongValue(error.message, error.hint, error.position, code=code, shown=place) from None
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            shown = "the value" if self.secret else show(value)
            raise WrongValue(f"{shown} {message}", hint, code="value") from None

    def _hint_for(self, value: object) -> str:
        if isinstance(value, str) and value.isascii() and value.isdigit() and int in self.takes:
            return f"write {value} without quotes"
        if isinstance(value, (bool, int, float)) and self.takes == (str,) and not self.hint:
            return f'put it in quotes: "{show(value)}"'
        return self.hint or "write a text"


KINDS: Mapping[Any, Kind] = {
    str: Kind("a string", "", (str,), lambda value: value),
    bool: Kind("true or false", "write true or false", (bool,), lambda value: value),
    int: Kind("a whole number", "write a whole number such as 1", (int,), lambda value: value),
    Duration: Kind("a duration", DURATION_HINT, (str, int, float), parse_duration),
    Rate: Kind("a rate", RATE_HINT, (str, int, float), parse_rate),
    Percent: Kind("a percentage", PERCENT_HINT, (str,), parse_percent),
    Size: Kind("a size", SIZE_HINT, (str, int), parse_size),
    BackendURL: Kind(
        "a server URL", 'write "http://HOST:PORT" or "https://HOST:PORT"', (str,), parse_backend_url
    ),
    ListenAddress: Kind(
        "an address to listen on", 'write "HOST:PORT" or ":PORT", in quotes', (str,), parse_entry_address
    ),
    IPNetwork: Kind("an address or network", 'write "10.0.0.1" or "10.0.0.0/8"', (str,), parse_network),
    NameServer: Kind(
        "the address of a name server", 'write "10.0.0.10", in quotes', (str,), parse_name_server
    ),
    Rule: Kind("a rule", "write a rule such as PathPrefix(`/`)", (str,), parse_rule),
    Expression: Kind(
        "an expression", "write an expression such as NetworkErrorRatio() > 0.30", (str,), parse_expression
    ),
    Regex: Kind("a regular expression", "write a pattern in RE2 syntax, in quotes", (str,), Regex),
    User: Kind(
        "a user", 'write "NAME:HASH" as htpasswd prints it, in quotes', (str,), parse_user, secret=True
    ),
    Origin: Kind("an origin", 'write an origin such as "https://example.com"', (str,), parse_origin),
    AuthAddress: Kind(
        "a URL", 'write a URL such as "http://auth.internal:8080/verify"', (str,), parse_auth_address
    ),
    Port: Kind("a port", 'write a port such as "8443"', (str, int), parse_port),
    StatusRange: Kind(
        "a range of status codes", 'write a range such as "200-299"', (str, int), parse_status_range
    ),
    float: Kind("a number", "write a number such as 1.5", (int, float), float),
    EngineURL: Kind("a URL", 'write a URL such as "unix:///var/run/docker.sock"', (str,), parse_engine_url),
    Constraints: Kind(
        "an expression",
        "write a matcher such as Label(`com.example.tier`, `chat`)",
        (str,),
        parse_constraints,
    ),
    RuleTemplate: Kind(
        "a template", "write a rule such as Host(`{{ normalize .Name }}.example.com`)", (str,), parse_template
    ),
}


def structure(root: object) -> File:
    """Return the file that the tree `root` holds.

    Raises:
      cattrs.BaseValidationError, WrongValue: it does not fit the model; `findings` explains.

    """
    file: File = _CONVERTER.structure(root, File)
    return file


def findings(error: Exception, root: object) -> Iterator[Finding]:
    """Yield what `structure` found wrong with `root`, in the order of the model."""
    return _walk(error, root, ())


def _not_a(value: object, noun: str) -> str:
    if value is None or isinstance(value, (Mapping, list)):
        return f"is {kind(value)}, not {noun}"
    return f"{show(value)} is {kind(value)}, not {noun}"


def _literal(cls: Any) -> Hook:
    words: tuple[str, ...] = get_args(cls)
    listed = " or ".join([", ".join(words[:-1]), words[-1]])

    def hook(value: object, _: Any) -> object:
        if type(value) is not str:
            raise WrongValue(_not_a(value, "a string"), f"write {listed}")
        if value not in words:
            near = nearest(value, words)
            raise WrongValue(
                f"{show(value)} is none of the choices",
                f"write {listed}" if near is None else f"did you mean {near}?",
                code="value",
            )
        return value

    return hook


def _name(value: str, _: Any) -> str:
    if not value.strip() or len(value) > _LONGEST_NAME or "@" in value:
        raise WrongValue(
            f"{show(value)} cannot be a name", f"write 1 to {_LONGEST_NAME} characters, none of them @"
        )
    return value


def _tuple(cls: Any, converter: Converter) -> Hook:
    items: Any = GenericAlias(list, get_args(cls)[:1])

    def hook(value: object, _: Any) -> object:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise WrongValue(_not_a(value, "a list"), "write each item on a line of its own after a dash")
        return tuple(converter.structure(value, items))

    return hook


def _mapping(cls: Any, converter: Converter) -> Hook:
    entries: Any = GenericAlias(dict, (Name, get_args(cls)[1]))

    def hook(value: object, _: Any) -> object:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise WrongValue(_not_a(value, "a mapping"), "write NAME: and what it is indented below")
        return converter.structure(value, entries)

    return hook


def _class(cls: Any, converter: Converter) -> Hook:
    attributes = attrs.fields(attrs.resolve_types(cls))
    overrides: dict[str, Any] = {
        each.name: override(rename=key_of(each), struct_hook=_field(each, converter)) for each in attributes
    }
    fill: Any = make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
        _cattrs_use_linecache=False,
        **overrides,
    )

    def hook(value: object, _: Any) -> object:
        if value is None:
            value = MapNode()
        if not isinstance(value, dict):
            raise WrongValue(_not_a(value, "a mapping"), _valid_keys(cls))
        return fill(value, cls)

    return hook


def _field(attribute: Attribute[Any], converter: Converter) -> Hook:
    inner = converter.get_structure_hook(attribute.type)
    check, secret = attribute.metadata["check"], attribute.metadata["secret"]
    if attribute.metadata.get("switch"):
        return _switch(inner)

    def hook(value: object, cls: Any) -> object:
        try:
            structured = inner(value, cls)
        except WrongValue as error:
            if secret:
                hint = "put it in quotes" if error.hint.startswith("put it in quotes") else error.hint
                raise WrongValue("has a wrong value", hint, code=error.code) from None
            raise
        if check is not None and structured is not None:
            try:
                check(structured)
            except ValueError as error:
                message, _, hint = str(error).partition("; ")
                shown = "the value" if secret else show(value)
                raise WrongValue(f"{shown} {message}", hint, code="value") from None
        return structured

    return hook if check is not None or secret else inner


def _switch(section: Hook) -> Hook:
    """Return the hook for an optional section that may also be written ``true`` or ``false``."""

    def hook(value: object, cls: Any) -> object:
        if value is False:
            return None
        if value is not None and value is not True and not isinstance(value, dict):
            raise WrongValue(_not_a(value, "true or a mapping"), "write true for all of its defaults")
        return section(MapNode() if value is True else value, cls)

    return hook


def _walk(error: Exception, node: object, path: KeyPath) -> Iterator[Finding]:
    if isinstance(error, ClassValidationError):
        yield from _walk_class(error, node, path)
    elif isinstance(error, IterableValidationError):
        for nested, note in error.group_exceptions()[0]:
            index = note.index
            if isinstance(node, ListNode) and isinstance(index, int):
                yield from _walk(nested, node[index], (*path, index))
            elif note.type is Name:
                yield _finding(nested, (*path, index), "key")
            elif isinstance(node, MapNode):
                yield from _walk(nested, node[str(index)], (*path, index))
    else:
        yield _finding(error, path)


def _walk_class(error: ClassValidationError, node: object, path: KeyPath) -> Iterator[Finding]:
    keys = {each.name: key_of(each) for each in attrs.fields(error.cl)}
    nested, others = error.group_exceptions()
    replaced: set[str] = set()
    for other in others:
        if isinstance(other, ForbiddenExtraKeysError):
            for key in sorted(other.extra_fields):
                verdict = foreign(error.cl, key)
                replaced.add((nearest(key, keys.values()) or "") if verdict is None else verdict.replaces)
                yield _extra_key(error.cl, key, path)
        else:
            yield _finding(other, path)
    for each, note in nested:
        key = keys[note.name]
        if not isinstance(each, KeyError):
            assert isinstance(node, MapNode)
            yield from _walk(each, node[key], (*path, key))
        elif key not in replaced:
            noun = _noun(note.type)
            yield Finding(path, f'has no "{key}"', f"add {key}: {noun}", at="key")


def _noun(wanted: Any) -> str:
    if wanted in KINDS:
        return KINDS[wanted].noun
    if _origin(wanted) is Literal:
        return " or ".join(get_args(wanted))
    return "a list" if _origin(wanted) is tuple else "a mapping"


def _finding(error: Exception, path: KeyPath, at: Literal["key", "value"] = "value") -> Finding:
    if isinstance(error, WrongValue):
        return Finding(
            path, error.message, error.hint, code=error.code, at=at, offset=error.offset, shown=error.shown
        )
    return Finding(path, f"is not understood: {error}")


def _extra_key(cls: type, key: str, path: KeyPath) -> Finding:
    here = (*path, key)
    verdict = foreign(cls, key)
    if verdict is None:
        near = nearest(key, _keys(cls))
        hint = _home(cls, key) or _valid_keys(cls) if near is None else f'did you mean "{near}"?'
        if near is not None and near.lower() == key.lower():
            hint = f'write "{near}"; upper and lower case differ'
        return Finding(here, "unknown key", hint, at="key")
    if verdict.verdict != "unsupported":
        ignored = verdict.verdict == "ignored"
        message = "has no meaning here and is ignored" if ignored else "has no effect in this version"
        return Finding(here, message, verdict.reason, "warning", "ignored", at="key")
    return Finding(here, "is not supported by this version", verdict.reason, at="key")


def _home(cls: type, key: str) -> str:
    """Return the hint for a key that belongs one section further down, or nothing."""
    for attribute in attrs.fields(attrs.resolve_types(cls)):
        section = get_args(attribute.type)[0] if _is_optional_section(attribute.type) else attribute.type
        if _is_section(section) and key in _keys(section):
            return f"it belongs under {key_of(attribute)}"
    return ""


def _keys(cls: type) -> list[str]:
    return sorted(key_of(each) for each in attrs.fields(cls))


def _valid_keys(cls: type) -> str:
    keys = _keys(cls)
    return f"valid keys are {alternatives(keys)}" if len(keys) > 1 else f"the valid key is {keys[0]}"


def _origin(cls: Any) -> Any:
    return get_origin(cls)


def _is_optional_section(cls: Any) -> bool:
    options = get_args(cls)
    return _origin(cls) in {Union, UnionType} and type(None) in options and _is_section(options[0])


def _is_section(cls: Any) -> bool:
    return _is_attrs_class(cls) and cls not in KINDS


def _optional_section(cls: Any, converter: Converter) -> Hook:
    """Return the hook for a section that may be absent, not one that is there and empty."""
    section = get_args(cls)[0]
    inner = converter.get_structure_hook(section)
    return lambda value, _: inner(value, section)


def _is_attrs_class(cls: Any) -> bool:
    return isinstance(cls, type) and attrs.has(cls)


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    factories: list[tuple[Callable[[Any], bool], Callable[[Any, Converter], Hook]]] = [
        (_is_attrs_class, _class),
        (lambda cls: _origin(cls) is tuple, _tuple),
        (_is_optional_section, _optional_section),
        (lambda cls: _origin(cls) is Mapping, _mapping),
    ]
    for predicate, factory in factories:
        converter.register_structure_hook_factory(predicate, factory=factory)
    converter.register_structure_hook_factory(lambda cls: _origin(cls) is Literal, factory=_literal)
    for cls, each in KINDS.items():
        converter.register_structure_hook(cls, each)
    converter.register_structure_hook_func(lambda cls: cls is Name, _name)
    return converter


_CONVERTER = _make_converter()
