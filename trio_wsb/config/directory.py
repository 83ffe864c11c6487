"""Where dynamic files are: which of them there are, and which directories must be watched to notice a change.

As with Traefik, a directory is read with those in it, names in alphabetical order, links to files are followed and links to
directories are not. Otherwise than there, names that begin with a dot are passed over: they are what editors and
Kubernetes (``..data``) leave while they work.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final

from attrs import define, field, frozen

from trio_wsb.config.providers import FileProvider

MAX_FILES: Final = 1000
"""Dynamic files; those after them are not read."""

MAX_DEPTH: Final = 16
"""Directories in directories."""

_MAX_LINKS: Final = 40
_SUFFIXES: Final = frozenset({".yml", ".yaml"})
_NOT_READ: Final = frozenset({".toml", ".json"})


@frozen
class Survey:
    """What is there at one moment.

    `files` are paths in the order in which they count, `passed_over` those that look like dynamic files of a kind that is not read.
    `missing` says why there is nothing at all, "" when there is; `more` that there is more than may be. `watched` are existing directories, each with its
    identity, in which any change may matter, and `stamps` change whenever a file was replaced or written.
    """

    files: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    missing: str = ""
    more: bool = False
    watched: frozenset[tuple[str, int, int]] = frozenset()
    stamps: tuple[tuple[object, ...], ...] = ()


@frozen
class Place:
    """Where the dynamic files of a main file are; paths are absolute."""

    root: str
    single: bool
    main: str
    """The main file, which is no dynamic one though it may be in the directory."""

    @classmethod
    def of(cls, options: FileProvider, main: Path | str) -> Place | None:
        """Return the place that `options` of the file `main` name, None if they name none."""
        named = options.filename or options.directory
        if named is None:
            return None
        main = os.path.abspath(main)  # noqa: PTH100 - the text matters here, and links must stay
        root = os.path.normpath(os.path.join(os.path.dirname(main), named))  # noqa: PTH118, PTH120
        return cls(root, options.filename is not None, main)

    def survey(self) -> Survey:
        """Look; never fails. Takes some system calls for each file, so call it off the event loop."""
        try:
            status = os.stat(self.main)  # noqa: PTH116
            walk = _Walk(self, (status.st_dev, status.st_ino))
        except OSError:
            walk = _Walk(self, None)
        walk.look()
        return walk.result()


def is_dynamic(name: str) -> bool:
    """Whether a file of this name in a directory is read."""
    return not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES


@define
class _Walk:
    place: Place
    main: tuple[int, int] | None
    files: list[str] = field(factory=list)
    passed_over: list[str] = field(factory=list)
    missing: str = ""
    more: bool = False
    folders: set[str] = field(factory=set)
    stamps: list[tuple[object, ...]] = field(factory=list)

    def look(self) -> None:
        root = self.place.root
        # Its own parent tells when the directory itself is replaced, or appears.
        self.folders.update(_folders_on_the_way(root))
        if self.place.single:
            self._file(root, required=True)
            return
        try:
            self._directory(root, 0)
        except OSError as error:
            self.missing = error.strerror or str(error)

    def _directory(self, path: str, depth: int) -> None:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        self.folders.add(path)
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth >= MAX_DEPTH:
                    self.more = True
                    continue
                try:
                    self._directory(entry.path, depth + 1)
                except OSError:  # it went, or belongs to somebody else
                    self.stamps.append((entry.path,))
            elif is_dynamic(entry.name):
                self._file(entry.path, required=False)
            elif Path(entry.name).suffix.lower() in _NOT_READ:
                self.passed_over.append(entry.path)

    def _file(self, path: str, *, required: bool) -> None:
        if len(self.files) >= MAX_FILES:
            self.more = True
            return
        try:
            status = os.stat(path)  # noqa: PTH116 - plain text all the way
        except OSError as error:
            # A link to nothing is worth a word, a file that has just gone is not.
            if required or os.path.islink(path):  # noqa: PTH114
                self.files.append(path)
                self.folders.update(_folders_on_the_way(path))
                self.stamps.append((path, error.errno))
            return
        if S_ISDIR(status.st_mode) and not required:
            return
        if (status.st_dev, status.st_ino) == self.main:
            self.missing = "is the main file itself" if required else ""
            return
        self.files.append(path)
        self.folders.update(_folders_on_the_way(path))
        kind = S_ISREG(status.st_mode)
        self.stamps.append(
            (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, kind)
        )

    def result(self) -> Survey:
        watched = set()
        for folder in self.folders:
            try:
                status = os.stat(folder)  # noqa: PTH116
            except OSError:
                continue
            watched.add((folder, status.st_dev, status.st_ino))
        return Survey(
            tuple(self.files),
            tuple(self.passed_over),
            self.missing,
            self.more,
            frozenset(watched),
            tuple(self.stamps),
        )


def _folders_on_the_way(path: str) -> Iterator[str]:
    """Yield the directories in which a change can make `path` mean another file: those of each link, and its own.

    Where something on the way is missing, the last one is that in which it would appear.
    """
    waiting, here, links = deque(Path(path).parts[1:]), "/", 0
    while waiting:
        name = waiting.popleft()
        if name == "..":
            here = os.path.dirname(here)  # noqa: PTH120
            continue
        there = os.path.join(here, name)  # noqa: PTH118
        try:
            target = os.readlink(there)  # noqa: PTH115
        except FileNotFoundError:
            yield here
            return
        except OSError:  # no link
            if not waiting:
                yield here
            here = there
            continue
        yield here
        links += 1
        if links > _MAX_LINKS:
            return
        if target.startswith("/"):
            here = "/"
        waiting.extendleft(reversed([part for part in Path(target).parts if part != "/"]))
