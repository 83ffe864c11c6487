"""The main file and the dynamic files as one configuration that runs, whatever state single files are in.

    main file        ─┐
    a.yml   newest    ├─► merge ─► judge ─► usable ─► what runs
    b.yml   last good ┤              │
    containers        ┘              │
      ▲                              └ a dynamic file with an error that is not a single router's: its last good version
      └────────────────────────────────  takes its place, or nothing does where there is none; then all over again

An error of the main file is an error of the whole: there is nothing to run without it. A container to whom such an error
belongs gives nothing, until it changes or the main file is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import evolve, field, frozen

from trio_wsb.config.containers import Container, Found
from trio_wsb.config.disable import DisabledRouter, is_fatal, usable
from trio_wsb.config.discovery import Discovered, discover
from trio_wsb.config.document import Document
from trio_wsb.config.merge import Merged, Part, merge
from trio_wsb.config.model import Config
from trio_wsb.config.problems import Finding, InvalidConfiguration, Problem
from trio_wsb.config.validate import Names

Further = Callable[[Config], Iterable[Finding]]
"""Finds what is wrong with a configuration that takes more than looking at it."""

Refused = Mapping[Document | Container, Sequence[Problem]]
"""Versions of dynamic files, and containers, that must not run, and why."""


@frozen(eq=False)
class FileState:
    """A dynamic file as it stands, or the directory of them all when that cannot be read.

    `newest` is the last version that could be read, whatever it is worth, `digest` tells what it was made from, `good` is
    the version in force. `problems` say why the newest is not in force, and are empty when it is. `since` is when that
    began, in seconds since 1970.
    """

    path: str
    digest: bytes
    newest: Document | None
    good: Document | None
    problems: tuple[Problem, ...]
    since: float


@frozen(eq=False)
class Candidate:
    """What was read of a dynamic file this time, and what is known of it from before."""

    path: str
    digest: bytes
    newest: Document | None
    unreadable: Problem | None = None
    before: FileState | None = None

    @property
    def last_good(self) -> Document | None:
        """The version that was in force before."""
        return None if self.before is None else self.before.good


@frozen(eq=False)
class Sources:
    """Everything that was read, in the order in which it counts; `notes` are warnings about where it was looked for.

    `found` are the containers, None as long as nobody knows them; `discovered` what was made of those before.
    """

    main: Document
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[Problem, ...] = ()
    now: float = 0.0
    found: Found | None = None
    discovered: Discovered | None = None


@frozen(eq=False)
class Loaded:
    """A configuration to run with, and what is worth saying about it.

    `disabled` are the routers that the files have and `config` has not. `warnings` are everything else that is said of what
    is in force.
    """

    config: Config
    warnings: list[Problem]
    disabled: tuple[DisabledRouter, ...]
    sources: Sources
    merged: Merged
    files: tuple[FileState, ...] = ()
    refused: Refused = field(factory=dict)
    discovered: Discovered | None = None

    def blame(self, lines: Iterable[str]) -> Refused:
        """Return which versions of dynamic files, and containers, are to blame that `config` cannot be put to work, and for what.

        Args:
          lines: what is wrong, each beginning with its key path and a colon. Those about the main file are passed over.

        """
        blamed: dict[Document | Container, list[Problem]] = {}
        for line in lines:
            found = self.merged.find(line)
            if found is None:
                continue
            part, finding = found
            document = part.contribution
            if isinstance(document, Document) and document.dynamic:
                blamed.setdefault(document, []).extend(document.placed([finding]))
            elif isinstance(document, Discovered):
                for container, problems in document.blamed(document.placed([finding])).items():
                    blamed.setdefault(container, []).extend(problems)
        return blamed


def _with_services(disabled: Iterable[DisabledRouter], merged: Merged) -> Iterator[DisabledRouter]:
    """Yield the disabled routers; of those that could not be read what service they were meant for, where that stands there."""
    for each in disabled:
        part, path = merged.owner(("http", "routers", each.name))
        if each.router is None and each.leads_to is None and isinstance(part.contribution, Document):
            each = evolve(each, leads_to=part.contribution.leads_to.get(str(path[-1])))  # noqa: PLW2901
        yield each


def assemble(sources: Sources, further: Further, refused: Refused | None = None) -> Loaded:
    """Return what of `sources` can run.

    Args:
      sources: what was read.
      further: what else to ask about the configuration.
      refused: versions of dynamic files that turned out to be unusable after all.

    Raises:
      InvalidConfiguration: the main file has errors that are not those of single routers; it carries all of its problems.

    """
    refused = refused or {}
    main = Part(sources.main)
    if sources.main.config is None:
        raise InvalidConfiguration(sources.main.problems)
    choice = _Choice(sources.candidates, refused)
    bad_containers = {each: why for each, why in refused.items() if isinstance(each, Container)}
    while True:
        discovered = _discover(sources, bad_containers)
        others = [] if discovered is None else [Part(discovered, discovered.source)]
        merged = merge([main, *choice.parts(), *others])
        judged = merged.judge(Names(), further)
        # All that have the newest are judged, also those of which it is known that it will not do: that gives every problem.
        dropped = choice.drop_what_is_fatal(judged)
        for part in others:
            fatal = [problem for problem in judged[part] if is_fatal(problem)]
            if fatal and discovered is not None:
                bad_containers |= discovered.blamed(fatal)
                dropped = True
        if not dropped:
            break
    problems = [problem for part in merged.parts for problem in _in_order(judged[part])]
    if any(map(is_fatal, judged[main])):
        raise InvalidConfiguration(judged[main])
    found = usable(merged.config, problems)
    states = tuple(choice.state(each, sources.now) for each in sources.candidates)
    lost = () if discovered is None else discovered.disabled
    kept: dict[Document | Container, Sequence[Problem]] = {
        each: why for each, why in refused.items() if isinstance(each, Document)
    }
    if discovered is not None:
        kept |= {container: why for container, why in discovered.refused.items()}  # noqa: C416 - of a wider type
    return Loaded(
        found.config,
        [*found.warnings, *sources.notes],
        (*_with_services(found.disabled, merged), *lost),
        sources,
        merged,
        states,
        kept,
        discovered,
    )


def _discover(sources: Sources, refused: Mapping[Container, Sequence[Problem]]) -> Discovered | None:
    """Return what the containers give, None where nobody wants or knows them."""
    config = sources.main.config
    options = None if config is None else config.providers.docker
    if options is None or sources.found is None:
        return None
    return discover(sources.found, options, sources.discovered, refused, sources.now)


class _Choice:
    """Which version of each dynamic file is to run: the newest as long as it will do, then the last good one, then none."""

    def __init__(self, candidates: Sequence[Candidate], refused: Refused) -> None:
        self._candidates = candidates
        self._refused = refused
        self._chosen: dict[str, Document] = {}
        self._wrong: dict[str, tuple[Problem, ...]] = {}
        for each in candidates:
            newest = each.newest
            if newest is None or newest.config is None or newest in refused:
                why = [each.unreadable] if each.unreadable is not None else []
                if newest is not None:
                    why += refused.get(newest) or newest.problems
                self._wrong[each.path] = _errors(why)
                self._fall_back(each)
            else:
                self._chosen[each.path] = newest

    def parts(self) -> list[Part]:
        """Return what is chosen now, in the order in which it counts."""
        return [Part(self._chosen[each.path]) for each in self._candidates if each.path in self._chosen]

    def drop_what_is_fatal(self, judged: Mapping[Part, Sequence[Problem]]) -> bool:
        """Choose again for each file with which the whole could not run; whether there was one."""
        fatal = {
            part.contribution: problems for part, problems in judged.items() if any(map(is_fatal, problems))
        }
        dropped = False
        for each in self._candidates:
            chosen = self._chosen.get(each.path)
            if chosen is None or chosen not in fatal:
                continue
            dropped = True
            self._wrong.setdefault(each.path, _errors(_in_order(fatal[chosen])))
            if chosen is each.newest:
                self._fall_back(each)
            else:  # what was good once does not fit the rest any more
                del self._chosen[each.path]
        return dropped

    def _fall_back(self, each: Candidate) -> None:
        good = each.last_good
        if good is not None and good is not each.newest and good not in self._refused:
            self._chosen[each.path] = good
        else:
            self._chosen.pop(each.path, None)

    def state(self, each: Candidate, now: float) -> FileState:
        """Return how a file stands after the choice."""
        problems = self._wrong.get(each.path, ())
        before = each.before
        same = before is not None and (before.digest, before.problems) == (each.digest, problems)
        since = before.since if before is not None and same else now
        good = self._chosen.get(each.path)
        return FileState(each.path, each.digest, each.newest, good, problems, since)


def _errors(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the errors among `problems`, or all of them when there is none."""
    given = tuple(problems)
    return tuple(problem for problem in given if problem.severity == "error") or given


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.position)
