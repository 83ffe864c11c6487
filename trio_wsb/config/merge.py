"""Several sources as one configuration: the main file, dynamic files, and whatever other providers give.

Each source is read by itself; here their dynamic sections become one, what holds between them is checked over the whole, and
every problem goes back to the source, and the line, that it is about. Of two parts with one name the first counts: the main
file comes before all, then files in the order of their names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import attrs
from attrs import define, evolve, field, frozen

from trio_wsb.config.document import DYNAMIC, Element
from trio_wsb.config.model import Config, key_of
from trio_wsb.config.problems import Finding, KeyPath, Problem, format_path
from trio_wsb.config.references import FILE, qualified
from trio_wsb.config.validate import Names, validate
from trio_wsb.config.yamltree import MAX_PROBLEMS

_STEP = re.compile(r"\.([A-Za-z0-9_@<>/-]+)|\[([0-9]+)\]")
_MORE = Finding((), f"there are more than {MAX_PROBLEMS} problems", "put these right first")


class Contribution(Protocol):
    """What one source gives. A `Document` is one; so is anything else that knows where its parts come from."""

    @property
    def source(self) -> str:
        """The name of the source, such as that of a file."""

    @property
    def config(self) -> Config | None:
        """What it gives, references resolved; None when it is unusable as a whole. Only the dynamic sections count."""

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with it by itself, key paths in its own names."""

    @property
    def names(self) -> Names:
        """What references can lead to, in its own names, broken parts included."""

    @property
    def elements(self) -> frozenset[Element]:
        """What it defines, in its own names, broken parts included."""

    def placed(self, found: Iterable[Finding]) -> list[Problem]:
        """Return `found`, key paths in its own names, as problems at their places."""


@frozen(eq=False)
class Part:
    """A source's contribution, and the provider that it belongs to."""

    contribution: Contribution
    provider: str = FILE

    def renamed(self, path: KeyPath) -> KeyPath:
        """Return a key path in the contribution's own names as the whole has it."""
        match path:
            case (str(section), str(key), str(name), *rest) if section in DYNAMIC:
                return (section, key, qualified(name, self.provider, f"{section}.{key}"), *rest)
        return path

    def problem(self, problem: Problem) -> Problem:
        """Return `problem` with its key path as the whole has it."""
        path = self.renamed(problem.path)
        return problem if path == problem.path else evolve(problem, path=path)


@define(eq=False)
class Merged:
    """A configuration made of several sources.

    `config` has references that lead to nothing, `judge` says which.
    """

    config: Config
    parts: Sequence[Part]
    _owners: dict[Element, tuple[Part, str]] = field(factory=dict)
    """For each named element of the whole whose it is, and the name that it has there."""
    _items: dict[tuple[str, str], list[tuple[Part, int]]] = field(factory=dict)
    """For each item of a list in a dynamic section whose it is, and the index that it has there."""

    def owner(self, path: KeyPath) -> tuple[Part, KeyPath]:
        """Return whose the value at `path` of the whole is, and where it stands there."""
        match path:
            case (str(section), str(key), str(name), *rest) if (section, key, name) in self._owners:
                part, own = self._owners[section, key, name]
                return part, (section, key, own, *rest)
            case (str(section), str(key), int(index), *rest) if (section, key) in self._items:
                items = self._items[section, key]
                if index < len(items):
                    part, own_index = items[index]
                    return part, (section, key, own_index, *rest)
        return self.parts[0], path

    def find(self, line: str) -> tuple[Part, Finding] | None:
        """Return whose part a problem is about that begins with its key path in the whole, and what it says there.

        None when it is not about a part of a dynamic section.
        """
        places: list[KeyPath] = [*self._owners]
        places += [(*where, index) for where, items in self._items.items() for index in range(len(items))]
        texts = ((path, format_path(path)) for path in places)
        fitting = [
            (path, text) for path, text in texts if line.startswith((f"{text}.", f"{text}[", f"{text}:"))
        ]
        if not fitting:
            return None
        path, text = max(fitting, key=lambda each: len(each[1]))
        below, _, message = line[len(text) :].partition(": ")
        steps: list[str | int] = [int(index) if index else key for key, index in _STEP.findall(below)]
        part, own = self.owner((*path, *steps))
        return part, Finding(own, message)

    def judge(
        self, names: Names, further: Callable[[Config], Iterable[Finding]] = lambda _: ()
    ) -> dict[Part, list[Problem]]:
        """Return for each part everything that is wrong with it, by itself and within the whole.

        Key paths of the problems are those of the whole, so that `usable` can be asked about all of them together.

        Args:
          names: what references can lead to beside what the parts define.
          further: findings about the whole that take more than looking at it, such as reading files.

        """
        for part in self.parts:
            names |= _qualified_names(part)
        found: dict[Part, list[Finding]] = {part: [] for part in self.parts}
        self._sort_out(islice(validate(self.config, names), MAX_PROBLEMS + 1), found)
        if sum(map(len, found.values())) > MAX_PROBLEMS:
            # Among those that are not looked for may be one that takes a router's guard away.
            max(found.values(), key=len).append(_MORE)
        self._sort_out(further(self.config), found)
        return {
            part: [
                *self._own_problems(part),
                *map(part.problem, part.contribution.placed(found[part])),
            ]
            for part in self.parts
        }

    def _sort_out(self, findings: Iterable[Finding], found: dict[Part, list[Finding]]) -> None:
        for finding in findings:
            part, path = self.owner(finding.path)
            message, other = finding.message, finding.other
            if other is not None:
                owner, other = self.owner(other)
                if owner is not part:
                    message += f" {format_path(other)} at {_place(owner.contribution, other)}"
                    other = None
            found[part].append(evolve(finding, path=path, message=message, other=other))

    def _own_problems(self, part: Part) -> Iterator[Problem]:
        """Yield what is wrong with a part by itself; what a part before it has defined already takes nothing away."""
        for problem in map(part.problem, part.contribution.problems):
            match problem.path:
                case (str(section), str(key), str(name), *_) if (section, key, name) in self._owners:
                    if self._owners[section, key, name][0] is not part:
                        yield evolve(problem, path=(), severity="warning")
                        continue
            yield problem
        twice = []
        for section, key, name in sorted(part.contribution.elements):
            owner, own = self._owners[section, key, qualified(name, part.provider, f"{section}.{key}")]
            if owner is not part:
                twice.append(_twice((section, key, name), owner.contribution, (section, key, own)))
        yield from map(part.problem, part.contribution.placed(twice))


def merge(parts: Sequence[Part]) -> Merged:
    """Return the whole that `parts` make; the first one is the main file, and all have a configuration."""
    main = parts[0].contribution.config
    assert main is not None
    merged = Merged(main, parts)
    for part in parts:
        for section, key, name in part.contribution.elements:
            whole = qualified(name, part.provider, f"{section}.{key}")
            merged._owners.setdefault((section, key, whole), (part, name))  # noqa: SLF001 - made here
    changes = {section: _merged(merged, section) for section in DYNAMIC}
    merged.config = evolve(main, **changes)
    return merged


def names_of_parts(parts: Iterable[Part]) -> Names:
    """Return what references can lead to in any of `parts`."""
    names = Names()
    for part in parts:
        names |= _qualified_names(part)
    return names


def _merged(merged: Merged, section: str) -> Any:
    """Return one dynamic section of the whole: names by the first who has them, lists one after another."""
    sections = [(part, getattr(part.contribution.config, section)) for part in merged.parts]
    made: dict[str, Any] = {}
    for attribute in attrs.fields(type(sections[0][1])):
        key, values = key_of(attribute), [(part, getattr(each, attribute.name)) for part, each in sections]
        if all(isinstance(value, Mapping) for _, value in values):
            made[attribute.name] = dict(_named(merged, section, key, values))
        elif all(isinstance(value, tuple) for _, value in values):
            made[attribute.name] = tuple(each for _, value in values for each in value)
            merged._items[section, key] = [  # noqa: SLF001 - made by merge
                (part, index) for part, value in values for index in range(len(value))
            ]
    return evolve(sections[0][1], **made)


def _named(
    merged: Merged, section: str, key: str, values: Iterable[tuple[Part, Mapping[str, Any]]]
) -> Iterator[tuple[str, Any]]:
    for part, value in values:
        for name, each in value.items():
            whole = qualified(name, part.provider, f"{section}.{key}")
            owner = merged._owners.setdefault((section, key, whole), (part, name))  # noqa: SLF001
            if owner[0] is part:
                yield whole, each


def _twice(path: KeyPath, first: Contribution, there: KeyPath) -> Finding:
    message = f"is defined already at {_place(first, there)}, and that counts"
    return Finding(path, message, "give one of the two another name", at="key", code="duplicate")


def _place(contribution: Contribution, path: KeyPath) -> str:
    (place,) = contribution.placed([Finding(path, "", at="key")])
    return place.place if place.line else f"{place.place} {place.key_path}"


def _qualified_names(part: Part) -> Names:
    names, provider = part.contribution.names, part.provider

    def of(own: frozenset[str], section: str) -> frozenset[str]:
        return own if provider == FILE else frozenset(qualified(name, provider, section) for name in own)

    return evolve(
        names,
        services=of(names.services, "http.services"),
        servers_transports=of(names.servers_transports, "http.serversTransports"),
        middlewares=of(names.middlewares, "http.middlewares"),
        tls_options=of(names.tls_options, "tls.options"),
    )
