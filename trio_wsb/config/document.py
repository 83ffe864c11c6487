"""One configuration document: from its bytes to a checked configuration and its problems, without reading a file.

Everything wrong is found in one go. Where a part does not fit the model, it is noted, cut out, and the rest goes on
to the checks between parts; what follows only from the cut is not reported.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from attrs import define, field
from cattrs import BaseValidationError

from trio_wsb.config.model import Config, default_entry_points
from trio_wsb.config.problems import Finding, KeyPath, Problem, format_path
from trio_wsb.config.shortform import ENTRY_POINT, NAME, expand
from trio_wsb.config.structure import WrongValue, findings, structure
from trio_wsb.config.validate import Names, names_of, validate
from trio_wsb.config.yamltree import ListNode, MapNode, Mark, Tree, compose

_MOST_CUTS = 16
"""Rounds of cutting; a missing key takes its section with it, and the model is nine levels deep."""


@define
class Document:
    """A document after reading.

    `config` is the long form of what fits the model: complete when `problems` has no error, else only good for
    checking further. `names` is what it defines, broken parts included.
    """

    tree: Tree
    problems: list[Problem]
    config: Config | None = None
    names: Names = field(factory=Names)
    _origins: Mapping[KeyPath, KeyPath] = field(factory=dict)
    _cut: list[KeyPath] = field(factory=list)

    def judge(self, names: Names) -> None:
        """Add to `problems` what does not hold between the parts, where references may lead to any of `names`."""
        if self.config is not None:
            self.add(validate(self.config, names | self.names))

    def add(self, found: Iterable[Finding]) -> None:
        """Add findings on the long form to `problems`, at the place that each goes back to."""
        for finding in found:
            path = _origin(finding.path, self._origins)
            if finding.code == "empty" and any(cut[: len(path)] == path for cut in self._cut):
                continue
            self._note(finding, path)

    def locate(self, path: KeyPath) -> tuple[KeyPath, Mark, Mark]:
        """Return the part of `path` that the text has, and where its key and its value begin.

        The last step into a list counts items as the model does; the path returned counts as the file does.
        """
        node, found = self.tree.root, ()
        key_mark = value_mark = self.tree.mark
        real: KeyPath = found
        for step in path:
            if isinstance(node, MapNode) and isinstance(step, str) and step in node.marks:
                key_mark, value_mark = node.marks[step]
                node = node.get(step)
                real = (*real, step)
            elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node):
                key_mark = value_mark = node.marks[node.indices[step]]
                real = (*real, node.indices[step])
                node = node[step]
            else:
                break
        return real, key_mark, value_mark

    def _note(self, finding: Finding, path: KeyPath) -> None:
        real, key_mark, value_mark = self.locate(path)
        mark = key_mark if finding.at == "key" or len(real) < len(path) else value_mark
        column = mark.column
        if finding.offset and value_mark.text >= 0:
            column += value_mark.text + finding.offset
        message = finding.message
        if finding.other is not None:
            other, _, there = self.locate(_origin(finding.other, self._origins))
            message += f" {format_path(other)}, line {there.line}"
        self.problems.append(
            Problem(
                self.tree.file,
                mark.line,
                column,
                format_path(real),
                message,
                finding.hint,
                finding.severity,
                finding.code,
            )
        )


def read_document(data: bytes, file: str, *, libyaml: bool = True) -> Document:
    """Return the document that `data` holds; `Document.judge` completes the check.

    Never raises on account of the content.

    Args:
      data: the content of the file.
      file: its name, for the problems.
      libyaml: use libyaml where it is present.

    """
    tree = compose(data, file, libyaml=libyaml)
    document = Document(tree, list(tree.problems))
    if tree.root is None:
        if not tree.problems:
            hint = f"write a {NAME} section, or routers and services under http"
            document.problems.append(Problem(file, 1, 1, "", "the file has no configuration", hint))
        return document
    names = _raw_names(tree.root)
    noted = {(problem.line, problem.column) for problem in tree.problems}
    for cutting in range(_MOST_CUTS):
        try:
            expansion = expand(structure(tree.root))
        except (BaseValidationError, WrongValue) as error:
            found = findings(error, tree.root)
            if not cutting:
                document.add(found)
                _drop_consequences(document, noted, len(tree.problems))
            _cut(document, found)
        else:
            document.config, document._origins = expansion.config, expansion.origins  # noqa: SLF001
            document.names = names | names_of(expansion.config)
            document.add(expansion.findings)
            break
    return document


def _drop_consequences(document: Document, noted: set[tuple[int, int]], own: int) -> None:
    """Drop problems at places where the text itself is wrong already."""
    kept = [each for each in document.problems[own:] if (each.line, each.column) not in noted]
    document.problems[own:] = kept


def _origin(path: KeyPath, origins: Mapping[KeyPath, KeyPath]) -> KeyPath:
    for length in range(len(path), 0, -1):
        if (origin := origins.get(path[:length])) is not None:
            return (*origin, *path[length:])
    return path


def _cut(document: Document, found: Iterable[Finding]) -> None:
    for finding in found:
        if not finding.path:
            document.tree.root.clear() if isinstance(document.tree.root, MapNode) else None
            continue
        ...


def _raw_names(root: object) -> Names:
    ...
