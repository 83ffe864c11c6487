"""Configuration files: reading them within bounds, and what is done about their problems.

The daemon calls `load`, the command ``check`` calls `check`. Both only read files and use the CPU, for up to some
seconds with the largest file, so inside an event loop they belong in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import evolve, frozen

from trio_wsb.config.disable import DisabledRouter, is_fatal, usable
from trio_wsb.config.document import Document, read_document
from trio_wsb.config.model import Config, ServersTransport
from trio_wsb.config.problems import Finding, InvalidConfiguration, KeyPath, Problem
from trio_wsb.config.validate import Names

MAX_FILE_BYTES = 4 * 2**20
"""Size of the largest file read; a hundred thousand servers fit."""


@frozen
class Loaded:
    """A configuration to run with, and what is worth saying about it.

    `disabled` are the routers that the file has and `config` has not.
    """

    config: Config
    warnings: list[Problem]
    disabled: tuple[DisabledRouter, ...] = ()


@frozen
class Checked:
    """A file after a check; `config` is None when it has errors."""

    file: str
    config: Config | None
    problems: list[Problem]


def load(path: Path | str) -> Loaded:
    """Return the configuration in the file `path`, without the routers that cannot run.

    Raises:
      InvalidConfiguration: the file cannot be read, or has errors that are not those of single routers; it carries
        every problem.

    """
    ((_, read),) = _judge([path])
    problems = [read] if isinstance(read, Problem) else read.problems
    if isinstance(read, Problem) or read.config is None or any(map(is_fatal, problems)):
        raise InvalidConfiguration(problems)
    found = usable(read.config, problems)
    return Loaded(found.config, list(found.warnings), found.disabled)


def check(paths: Sequence[Path | str], *, strict: bool = False) -> list[Checked]:
    """Return what is wrong with the files `paths`, in their order; each may refer to what another one defines.

    Args:
      paths: the files.
      strict: warnings are errors.

    """
    checked = [_checked(file, read) for file, read in _judge(paths)]
    if not strict:
        return checked
    return [
        evolve(
            each,
            config=None if each.problems else each.config,
            problems=[evolve(problem, severity="error") for problem in each.problems],
        )
        for each in checked
    ]


def check_files(paths: Sequence[Path | str], *, strict: bool = False) -> list[Problem]:
    """Return the problems of all the files `paths`, as `check` does."""
    return [problem for each in check(paths, strict=strict) for problem in each.problems]


def read_file(path: Path | str) -> bytes:
    """Return the content of the regular file `path`.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no regular file (a device or a FIFO might never end), or has more than `MAX_FILE_BYTES`;
        the message says what would be right after a semicolon.

    """
    # Non-blocking, because opening a FIFO that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file; name a file, no directory or device")
        # The size is asked first, to spare reading, and the read is bounded too, since a file can grow.
        data = None
        if status.st_size <= MAX_FILE_BYTES:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if data is None or len(data) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES // 2**20} MiB; split it or remove what is not used")
    return data


def _judge(paths: Sequence[Path | str]) -> list[tuple[str, Document | Problem]]:
    """Read the files and complete their checks; the problems of each are in the order of the text."""
    files = [os.fspath(path) for path in paths]
    read = [_read(file) for file in files]
    names = Names()
    for each in read:
        if isinstance(each, Document):
            names |= each.names
    for each in read:
        if isinstance(each, Document):
            each.judge(names)
            if each.config is not None:
                each.add(_other_files(each.config))
            each.problems.sort(key=lambda problem: problem.position)
    return list(zip(files, read, strict=True))


def _read(file: str) -> Document | Problem:
    try:
        return read_document(read_file(file), file)
    except OSError as error:
        reason = error.strerror or str(error)
        return Problem(file, 1, 1, "", f"cannot be read: {reason}", "name a file that the daemon may read")
    except ValueError as error:  # a NUL in the name too
        message, _, hint = str(error).partition("; ")
        return Problem(file, 1, 1, "", message, hint)


def _checked(file: str, read: Document | Problem) -> Checked:
    if isinstance(read, Problem):
        return Checked(file, None, [read])
    failed = any(problem.severity == "error" for problem in read.problems)
    return Checked(file, None if failed else read.config, read.problems)


def _other_files(config: Config) -> Iterator[Finding]:
    """Yield what is wrong with the files that `config` names."""
    transports: dict[KeyPath, ServersTransport] = {("serversTransport",): config.servers_transport}
    for name, each in config.http.servers_transports.items():
        transports["http", "serversTransports", name] = each
    for path, transport in transports.items():
        for index, authorities in enumerate(transport.root_cas):
            reason = _unreadable(authorities)
            if reason:
                yield Finding(
                    (*path, "rootCAs", index),
                    f'"{authorities}" {reason}',
                    "name a PEM file that the daemon may read",
                )
        for index, certificate in enumerate(transport.certificates):
            for key, file in (("certFile", certificate.cert_file), ("keyFile", certificate.key_file)):
                if reason := _unreadable(file):
                    hint = "name a PEM file that the daemon may read"
                    yield Finding((*path, "certificates", index, key), f'"{file}" {reason}', hint)
    if config.log.file_path is not None:
        folder = Path(config.log.file_path).parent
        if not folder.exists():
            message, hint = f'there is no directory "{folder}"', "the daemon tries to create it"
            yield Finding(("log", "filePath"), message, hint, "warning")
        elif not folder.is_dir():
            yield Finding(("log", "filePath"), f'"{folder}" is not a directory', "name a file in a directory")


def _unreadable(path: str) -> str:
    try:
        read_file(path)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except ValueError as error:
        return str(error).partition(";")[0]
    return ""
