"""YAML text to plain Python values that remember where each of them stands.

The parser is libyaml's where PyYAML was built with it and PyYAML's own otherwise; the composer is ours, because
PyYAML's lets the last of two equal keys win, follows aliases without bound, recurses as deep as the text does, and
reads ``10:30`` as 630 and ``no`` as false. Scalars are resolved by the core schema of YAML 1.2.2 (section 10.3.2);
merge keys (``<<``) are understood, since people use them.

What comes out: None, bool, int, float, str, and two containers, `MapNode` and `ListNode`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn, Protocol

import yaml
from attrs import frozen
from yaml import events
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from trio_wsb.config.problems import KeyPath, Problem, format_path, printable, quoted
from trio_wsb.config.scalars import resolve, show

MAX_EXPANSION = 100_000
"""Values that aliases may add to a file; nine lines of aliases to aliases can mean a billion."""

MAX_DEPTH = 64
"""How deep values may be nested; the model needs nine levels."""

MAX_PROBLEMS = 1000
"""Problems of one document after which the rest is not looked for."""

_SHOWN_DEPTH = 4
_TAG = "tag:yaml.org,2002:"
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
# The characters that YAML 1.2.2 section 5.1 calls printable, and tab, are all that a file may have.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Mark(NamedTuple):
    """Where something begins, line and column from 1.

    `text` is how many columns further a string's first character stands when the file has it just as the value
    does (0 plain, 1 in quotes), and -1 when escapes or line folding lie between the two.
    """

    line: int
    column: int
    text: int = -1


class MapNode(dict[str, object]):
    """A mapping; `marks` has for each key where the key and where its value begins."""

    __slots__ = ("marks",)

    def __init__(self) -> None:
        super().__init__()
        self.marks: dict[str, tuple[Mark, Mark]] = {}


class ListNode(list[object]):
    """A sequence; `marks` has where each item begins.

    `indices` are the items' places in the file: they stay what they were when a bad item is taken out.
    """

    __slots__ = ("indices", "marks")

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[Mark] = []
        self.indices: list[int] = []


@frozen
class Tree:
    """A composed document; `root` is None when the text was empty or could not be read to its end."""

    file: str
    root: object
    mark: Mark
    problems: tuple[Problem, ...]


class _Events(Protocol):
    def get_event(self) -> events.Event | None: ...


class _PythonParser(Reader, Scanner, Parser):
    """PyYAML's parser in Python, for where it was built without libyaml."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


class _Stop(Exception):
    pass


def compose(data: bytes, file: str, *, libyaml: bool = True) -> Tree:
    """Return the one document of `data`, with every problem of its form.

    Duplicate keys, keys that are no strings and foreign tags are noted and passed over; what makes the rest of the
    text unreadable ends the work there. Never raises on account of the text.

    Args:
      data: the file's content, UTF-8 with or without a byte order mark.
      file: its name, for the problems.
      libyaml: use libyaml where it is present.

    """
    composer = _Composer(file)
    try:
        text = composer.decode(data)
        try:
            return composer.document(_parser(text, libyaml=libyaml))
        except yaml.YAMLError as error:
            composer.syntax_error(error, text)
        except (ValueError, OverflowError):  # PyYAML's scanner passes these on from chr() and int()
            composer.note(Mark(1, 1), "not valid YAML: a number in it is out of range")
    except _Stop:
        pass
    return Tree(file, None, Mark(1, 1), tuple(composer.problems))


def _parser(text: str, *, libyaml: bool) -> _Events:
    if libyaml and yaml.__with_libyaml__:
        from yaml._yaml import CParser

        return CParser(text)
    return _PythonParser(text)


class _Composer:
    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.path: list[str | int] = []
        self.nodes = 0
        self.expanded = 0
        # An anchor's value and how many values it stands for; None while it is being composed.
        self.anchors: dict[str, tuple[object, int] | None] = {}

    def note(self, mark: Mark, message: str, hint: str = "") -> None:
        key_path: KeyPath = tuple(self.path)
        self.problems.append(Problem(self.file, mark.line, mark.column, format_path(key_path), message, hint))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Stop

    def stop(self, mark: Mark, message: str, hint: str = "") -> NoReturn:
        self.note(mark, message, hint)
        raise _Stop

    def decode(self, data: bytes) -> str:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start].decode("utf-8-sig")
            self.stop(_place(before), "the file is not UTF-8 text", "save the file as UTF-8")
        if found := _FORBIDDEN.search(text):
            self.stop(
                _place(text[: found.start()]),
                f"the control character U+{ord(found[0]):04X} is not allowed",
                "remove it",
            )
        return text

    def syntax_error(self, error: yaml.YAMLError, text: str) -> None:
        self.path.clear()
        raw = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        mark = Mark(1, 1) if raw is None else Mark(raw.line + 1, raw.column + 1)
        problem = printable(str(getattr(error, "problem", None) or error))
        lines = _LINE_BREAK.split(text)
        line = lines[mark.line - 1] if mark.line <= len(lines) else ""
        if line[mark.column - 1 : mark.column] == "\t" or "\t" in line[: len(line) - len(line.lstrip())]:
            self.note(mark, "not valid YAML: a tab in the indentation", "indent with spaces")
            return
        context, began = getattr(error, "context", None), getattr(error, "context_mark", None)
        if context and began is not None:
            problem += (
                f" {printable(context)} that begins at line {began.line + 1}, column {began.column + 1}"
            )
        hint = next((hint for words, hint in _SYNTAX_HINTS if words in problem), "")
        self.note(mark, f"not valid YAML: {problem}", hint)

    def document(self, parser: _Events) -> Tree:
        stream = _stream(parser)
        next(stream)  # the start of the stream
        if type(next(stream)) is not events.DocumentStartEvent:
            return Tree(self.file, None, Mark(1, 1), tuple(self.problems))
        first = next(stream)
        mark = _mark(first)
        root = self.node(first, stream)
        next(stream)  # the end of the document
        following = next(stream)
        if type(following) is not events.StreamEndEvent:
            self.note(_mark(following), "a second document begins here", "keep one document in a file")
        return Tree(self.file, root, mark, tuple(self.problems))

    def node(self, event: events.Event, stream: Iterator[events.Event]) -> object:
        kind = type(event)
        if kind is events.AliasEvent:
            return self.alias(event)
        assert isinstance(event, (events.ScalarEvent, events.CollectionStartEvent))
        anchor, before = event.anchor, self.nodes
        self.nodes += 1
        if anchor is not None:
            self.anchors[anchor] = None
        value: object
        if isinstance(event, events.ScalarEvent):
            value = self.scalar(event)
        else:
            if len(self.path) >= MAX_DEPTH:
                del self.path[_SHOWN_DEPTH:]
                self.stop(_mark(event), f"is nested deeper than {MAX_DEPTH} levels", "flatten it")
            value = (
                self.mapping(event, stream)
                if kind is events.MappingStartEvent
                else self.sequence(event, stream)
            )
        if anchor is not None:
            self.anchors[anchor] = (value, self.nodes - before)
        return value

    def alias(self, event: events.Event) -> object:
        assert isinstance(event, events.AliasEvent)
        name, mark = str(event.anchor), _mark(event)
        if name not in self.anchors:
            self.note(
                mark, f"the alias *{printable(name)} has no anchor", f"write &{printable(name)} before it"
            )
            return None
        target = self.anchors[name]
        if target is None:
            self.stop(mark, f"the alias *{printable(name)} contains itself", "write the value out")
        value, size = target
        self.nodes += size
        self.expanded += size
        if self.expanded > MAX_EXPANSION:
            self.stop(mark, f"aliases expand to more than {MAX_EXPANSION} values", "write the values out")
        return value

    def sequence(self, event: events.Event, stream: Iterator[events.Event]) -> ListNode:
        self.collection_tag(event, "seq")
        node = ListNode()
        for item in stream:
            if type(item) is events.SequenceEndEvent:
                break
            index = len(node)
            self.path.append(index)
            node.append(self.node(item, stream))
            self.path.pop()
            node.marks.append(_mark(item))
            node.indices.append(index)
        return node

    def mapping(self, event: events.Event, stream: Iterator[events.Event]) -> MapNode:
        self.collection_tag(event, "map")
        node = MapNode()
        merged: list[tuple[object, Mark]] = []
        for key_event in stream:
            if type(key_event) is events.MappingEndEvent:
                break
            mark = _mark(key_event)
            key = self.key(key_event, stream, mark)
            self.path.append("?" if key is None else key)
            value_event = next(stream)
            value = self.node(value_event, stream)
            if key in node.marks:
                first = node.marks[key][0]
                message = f"is a duplicate of the key at line {first.line}, column {first.column}"
                self.note(mark, message, "keep one of the two")
            elif key is not None:
                node.marks[key] = (mark, _mark(value_event))
                if key == "<<" and _is_plain(key_event):
                    merged.append((value, _mark(value_event)))
                else:
                    node[key] = value
            self.path.pop()
        for value, mark in merged:
            del node.marks["<<"]
            self.merge(node, value, mark)
        return node

    def key(self, event: events.Event, stream: Iterator[events.Event], mark: Mark) -> str | None:
        # A key in brackets can itself hold mappings with such keys, so it counts as a level.
        self.path.append("?")
        key = self.node(event, stream)
        self.path.pop()
        if type(event) is events.AliasEvent:
            self.note(mark, "a key is written as an alias", "write it out")
        elif isinstance(key, (MapNode, ListNode)):
            self.note(mark, f"a key is {show(key)}, not a string", "write KEY: VALUE")
        elif not isinstance(key, str):
            self.note(mark, f"the key {show(key)} is not a string", f'put it in quotes: "{show(key)}"')
        elif not key.isprintable():
            self.note(mark, f"the key {quoted(key)} has a control character", "remove it")
        else:
            return key
        return None

    def merge(self, node: MapNode, value: object, mark: Mark) -> None:
        """Add what the merge key brings: own keys win, then those of earlier mappings."""
        for source in value if isinstance(value, ListNode) else [value]:
            if not isinstance(source, MapNode):
                self.note(mark, "the merge key << has a value that is no mapping", "write <<: *ANCHOR")
                continue
            for key, each in source.items():
                if key not in node.marks:
                    node[key] = each
                    node.marks[key] = source.marks[key]

    def collection_tag(self, event: events.Event, own: str) -> None:
        assert isinstance(event, events.CollectionStartEvent)
        if event.tag not in {None, "!", _TAG + own}:
            self.bad_tag(event)

    def bad_tag(self, event: events.NodeEvent) -> None:
        tag = str(getattr(event, "tag", "")).replace(_TAG, "!!")
        hint = "remove it" if tag.startswith("!!") else "put a text that begins with ! in quotes"
        self.note(_mark(event), f"the tag {quoted(tag)} is not allowed", hint)

    def scalar(self, event: events.ScalarEvent) -> object:
        text = event.value
        if not text.isprintable() and (found := _CONTROL.search(text)):
            self.note(
                _mark(event), f"the control character U+{ord(found[0]):04X} is not allowed", "remove it"
            )
            return None
        if event.tag in {_TAG + "str", "!"} or (event.tag is None and not event.implicit[0]):
            return text
        try:
            value = resolve(text)
        except ValueError:
            self.note(
                _mark(event), f"is a number of {len(text)} digits", "write a number that fits in a line"
            )
            return None
        if event.tag is not None and not _has_tag(value, event.tag.removeprefix(_TAG)):
            self.bad_tag(event)
        return value


_SYNTAX_HINTS = (
    ("mapping values are not allowed", "put a text with a colon and a space in it in quotes"),
    ("cannot start any token", "put the text in quotes"),
    ("unexpected end of stream", "close the quotes"),
    ("did not find expected key", "check the indentation, and the quotes and brackets before this place"),
    ("did not find expected '-' indicator", "check the indentation"),
    ("could not find expected ':'", "write KEY: VALUE"),
    ("expected ',' or", "close the brackets"),
    ("a tag that begins", "put a text that begins with ! in quotes"),
)


def _stream(parser: _Events) -> Iterator[events.Event]:
    while (event := parser.get_event()) is not None:
        yield event


def _place(before: str) -> Mark:
    """Return the mark of what follows the text `before`."""
    lines = _LINE_BREAK.split(before)
    return Mark(len(lines), len(lines[-1]) + 1)


def _mark(event: events.Event) -> Mark:
    begin, end = event.start_mark, event.end_mark
    assert begin is not None
    assert end is not None
    if isinstance(event, events.ScalarEvent) and begin.line == end.line:
        surplus = end.column - begin.column - len(event.value)
        return Mark(begin.line + 1, begin.column + 1, {0: 0, 2: 1}.get(surplus, -1))
    return Mark(begin.line + 1, begin.column + 1)


def _is_plain(event: events.Event) -> bool:
    return isinstance(event, events.ScalarEvent) and event.implicit[0]


def _has_tag(value: object, tag: str) -> bool:
    if isinstance(value, bool):
        return tag == "bool"
    if isinstance(value, int):
        return tag in {"int", "float"}
    return (isinstance(value, float) and tag == "float") or (value is None and tag == "null")
