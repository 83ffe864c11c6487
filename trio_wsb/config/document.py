"""One configuration document: from its bytes to a checked configuration and its problems, without reading a file.

Everything wrong is found in one go. Where a part does not fit the model, it is noted, cut out, and the rest goes on
to the checks between parts; what follows only from the cut is not reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from attrs import define, evolve, field, fields
from cattrs import BaseValidationError

from trio_wsb.config.model import Config, key_of
from trio_wsb.config.problems import Finding, KeyPath, Problem, alternatives, format_path
from trio_wsb.config.references import FILE, resolved
from trio_wsb.config.shortform import ENTRY_POINT, NAME, Expansion, File, expand
from trio_wsb.config.structure import WrongValue, findings, structure
from trio_wsb.config.validate import Names, names_of
from trio_wsb.config.yamltree import MAX_PROBLEMS, ListNode, MapNode, Mark, Tree, compose

_MOST_CUTS = 16
"""Rounds of cutting; a missing key takes what it is missing in with it, and the model is nine levels deep."""

_OF_A_WHOLE = frozenset({"empty", "value", "effect"})
"""Codes of findings that may be due to what was cut out below."""

_WEB: frozenset[KeyPath] = frozenset(
    {("listen",), (NAME,), (NAME, "listen"), ("entryPoints",), ("entryPoints", ENTRY_POINT)}
)
"""What takes the address of the entry point `web` with it when it is cut out."""


DYNAMIC: Final = ("http", "tls")
"""The sections that a provider may give; all others belong in the main file."""

Element: TypeAlias = tuple[str, str, str]
"""A dynamic section, a key in it, and a name: ("http", "routers", "chat")."""


@define(eq=False)
class Document:
    """A document after reading.

    `config` is the long form of what fits the model, with its references resolved: complete when `problems` has no error,
    else only good for checking further. `names` and `elements` are what the document defines, broken parts included.
    A `dynamic` document is one of a provider.
    """

    tree: Tree
    problems: list[Problem]
    config: Config | None = None
    names: Names = field(factory=Names)
    elements: frozenset[Element] = frozenset()
    dynamic: bool = False
    provider: str = FILE
    leads_to: Mapping[str, str] = field(factory=dict)
    """The services that routers name, broken routers included."""
    _origins: Mapping[KeyPath, KeyPath] = field(factory=dict)
    _cut: list[KeyPath] = field(factory=list)

    @property
    def source(self) -> str:
        """The name of the file."""
        return self.tree.file

    def add(self, found: Iterable[Finding]) -> None:
        """Add `found` to `problems`, each where it goes back to in the text."""
        self.problems += self.placed(found)

    def placed(self, found: Iterable[Finding]) -> list[Problem]:
        """Return `found` as problems, each where it goes back to in the text."""
        problems = []
        for finding in found:
            path = _origin(finding.path, self._origins)
            if finding.code not in _OF_A_WHOLE or not any(cut[: len(path)] == path for cut in self._cut):
                problems.append(self._place(finding, path))
        return problems

    def structure(self) -> None:
        """Fit the tree to the model, noting and cutting out what does not."""
        defined = _defined(self.tree.root)
        self.elements = frozenset(_elements(self.tree.root))
        self.leads_to = dict(_leading(self.tree.root))
        if self.dynamic:
            self._keep_dynamic()
        # Where the text itself is wrong, the value is a stand-in, and what is wrong with that says nothing new.
        wrong = {(problem.line, problem.column) for problem in self.tree.problems}
        for cutting in range(_MOST_CUTS):
            try:
                expansion = expand(structure(self.tree.root), web_lost=not _WEB.isdisjoint(self._cut))
            except (BaseValidationError, WrongValue) as error:
                found = list(_bounded(findings(error, self.tree.root)))
                errors = [finding for finding in found if finding.severity == "error"]
                if not cutting:
                    # Of keys that are passed over a large file may have thousands.
                    told = errors + [finding for finding in found if finding.severity == "warning"]
                    placed = [self._place(finding, finding.path) for finding in told[:MAX_PROBLEMS]]
                    self.problems += [each for each in placed if (each.line, each.column) not in wrong]
                if len(errors) >= MAX_PROBLEMS or not all(finding.path for finding in found):
                    return
                self._cut_out(found)
            else:
                self._expand(expansion, defined)
                return

    def _expand(self, expansion: Expansion, defined: Names) -> None:
        self.config = resolved(expansion.config, self.provider)
        if NAME in expansion.config.http.services:
            self.elements |= {("http", kind, NAME) for kind in ("routers", "services", "serversTransports")}
        self.names = defined | names_of(expansion.config)
        if self.dynamic:
            self.names = evolve(self.names, entry_points=frozenset())
        self._origins = expansion.origins
        self.add(expansion.findings)

    def _keep_dynamic(self) -> None:
        """Note and cut out the sections that only the main file may have."""
        if not isinstance(self.tree.root, MapNode):
            return
        static = {key_of(each) for each in fields(File)} - {*DYNAMIC}
        message, hint = "belongs in the main file", f"a dynamic file has the sections {alternatives(DYNAMIC)}"
        found = [Finding((key,), message, hint, at="key") for key in self.tree.root if key in static]
        self.problems += [self._place(finding, finding.path) for finding in found]
        self._cut_out(found)

    def _cut_out(self, found: Iterable[Finding]) -> None:
        # Everything is looked up before anything goes: lists close up, and aliases lead to one node twice.
        doomed: dict[int, tuple[object, set[str | int]]] = {}
        for finding in found:
            node = self.tree.root
            for step in finding.path[:-1]:
                node = _child(node, step)
            doomed.setdefault(id(node), (node, set()))[1].add(finding.path[-1])
            if finding.severity == "error":
                self._cut.append(finding.path)
        for node, steps in doomed.values():
            if isinstance(node, MapNode):
                for key in steps:
                    node.pop(str(key), None)
            elif isinstance(node, ListNode):
                left = [index for index in range(len(node)) if index not in steps]
                node.indices[:] = [node.indices[index] for index in left]
                node[:] = [node[index] for index in left]

    def _place(self, finding: Finding, path: KeyPath) -> Problem:
        real, key_mark, value_mark = self._locate(path)
        mark = key_mark if finding.at == "key" or len(real) < len(path) else value_mark
        column = mark.column
        if finding.offset and mark is value_mark and mark.text >= 0:
            column += mark.text + finding.offset
        message = finding.message
        if finding.other is not None:
            other, _, there = self._locate(_origin(finding.other, self._origins))
            message += f" {format_path(other)} in line {there.line}"
        file, key_path = self.tree.file, format_path(real)
        return Problem(
            file,
            mark.line,
            column,
            key_path,
            message,
            finding.hint,
            finding.severity,
            finding.code,
            finding.path,
            finding.shown,
        )

    def _locate(self, path: KeyPath) -> tuple[KeyPath, Mark, Mark]:
        """Return the part of `path` that the text has, and where its key and its value begin.

        In `path` lists count what a cut has left of them; in the path returned they count as the text does.
        """
        node, found = self.tree.root, list[str | int]()
        key_mark = value_mark = self.tree.mark
        for step in path:
            if isinstance(node, MapNode) and step in node.marks:
                key_mark, value_mark = node.marks[str(step)]
                found.append(step)
            elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node):
                key_mark = value_mark = node.marks[node.indices[step]]
                found.append(node.indices[step])
            else:
                break
            node = _child(node, step)
        return tuple(found), key_mark, value_mark


def read_document(
    data: bytes, file: str, *, dynamic: bool = False, provider: str = FILE, libyaml: bool = True
) -> Document:
    """Return the document that `data` holds; `Merged.judge` completes the check.

    Never raises on account of the content.

    Args:
      data: the content of the file.
      file: its name, for the problems.
      dynamic: it is a provider's, which only has dynamic sections.
      provider: whose names it has.
      libyaml: use libyaml where it is present.

    """
    tree = compose(data, file, libyaml=libyaml)
    document = Document(tree, list(tree.problems), dynamic=dynamic, provider=provider)
    if tree.root is not None:
        document.structure()
    elif not tree.problems:
        hint = f"write a {NAME} section, or routers and services under http"
        if dynamic:
            # It may be half-written: whoever truncates a file before writing it leaves an empty one for a moment.
            hint = (
                "write routers and services under http; to take them away remove the file, or write http: {}"
            )
        document.problems.append(Problem(file, 1, 1, "", "the file has no configuration", hint))
    return document


def _bounded(found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield `found` through the last error that is told; to look for the nearest key a million times takes minutes."""
    errors = 0
    for finding in found:
        yield finding
        errors += finding.severity == "error"
        if errors == MAX_PROBLEMS:
            return


def _child(node: object, step: str | int) -> object:
    if isinstance(node, MapNode):
        return node.get(str(step))
    return node[step] if isinstance(node, ListNode) and isinstance(step, int) else None


def _origin(path: KeyPath, origins: Mapping[KeyPath, KeyPath]) -> KeyPath:
    for length in range(len(path), 0, -1):
        if (origin := origins.get(path[:length])) is not None:
            return (*origin, *path[length:])
    return path


def _elements(root: object) -> Iterator[Element]:
    for section in DYNAMIC:
        node = _child(root, section)
        for key in node if isinstance(node, MapNode) else ():
            named = _child(node, key)
            yield from ((section, key, name) for name in (named if isinstance(named, MapNode) else ()))


def _leading(root: object) -> Iterator[tuple[str, str]]:
    routers = _child(_child(root, "http"), "routers")
    for name in routers if isinstance(routers, MapNode) else ():
        if isinstance(service := _child(_child(routers, name), "service"), str):
            yield name, str(service)


def _defined(root: object) -> Names:
    """Return the names that the text defines, whatever is wrong with what they name."""

    def keys(*path: str) -> frozenset[str]:
        node = root
        for step in path:
            node = _child(node, step)
        return frozenset(node) if isinstance(node, MapNode) else frozenset()

    names = Names(
        keys("entryPoints"),
        keys("http", "services"),
        keys("http", "serversTransports"),
        keys("http", "middlewares"),
        keys("tls", "options"),
    )
    if NAME in keys():
        names |= Names(frozenset({ENTRY_POINT}), frozenset({NAME}), frozenset({NAME}))
    return names
