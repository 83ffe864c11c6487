"""Configuration files: reading them within bounds, and what is done about their problems.

The daemon calls `load`, the command ``check`` calls `check`. Both only read files and use the CPU, for up to some
seconds with the largest file, so inside an event loop they belong in a thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from attrs import evolve, frozen

from trio_wsb.config.certificates import CertificateFileError, has_certificate, out_of_date, read_certificate
from trio_wsb.config.containers import Found
from trio_wsb.config.directory import MAX_DEPTH, MAX_FILES, Place
from trio_wsb.config.document import Document, read_document
from trio_wsb.config.merge import Part, merge, names_of_parts
from trio_wsb.config.model import Config, ServersTransport
from trio_wsb.config.problems import Finding, InvalidConfiguration, KeyPath, Problem
from trio_wsb.config.sources import Candidate, FileState, Loaded, Refused, Sources, assemble
from trio_wsb.config.tls import Certificate
from trio_wsb.config.validate import Names

MAX_FILE_BYTES = 4 * 2**20
"""Size of the largest file read; a hundred thousand servers fit."""


@frozen
class Checked:
    """A file after a check; `config` is None when it has errors."""

    file: str
    config: Config | None
    problems: list[Problem]


def load(
    path: Path | str, previous: Loaded | None = None, *, now: float = 0.0, found: Found | None = None
) -> Loaded:
    """Return the configuration in the file `path` and its dynamic files, without the routers that cannot run.

    Args:
      path: the main file.
      previous: what is in force, from which a dynamic file that is bad now keeps its last good version.
      now: the time, in seconds since 1970.
      found: the containers, None as long as nobody knows them.

    Raises:
      InvalidConfiguration: the main file cannot be read, or has errors that are not those of single routers; it carries
        every problem. Dynamic files raise nothing.

    """
    main = _read(os.fspath(path))
    if isinstance(main, Problem):
        raise InvalidConfiguration([main])
    return assemble(_with_containers(_sources(main, previous, now), previous, found), _other_files)


def refresh(previous: Loaded, *, now: float = 0.0, found: Found | None = None) -> Loaded | None:
    """Return `previous` with its dynamic files read again and the containers `found`; None when nothing has changed.

    The main file stays as it was.

    Raises:
      InvalidConfiguration: as `load` does.

    """
    sources = _with_containers(_sources(previous.sources.main, previous, now), previous, found)
    before = {each.path: each.digest for each in previous.files}
    same = before == {each.path: each.digest for each in sources.candidates}
    same = same and sources.notes == previous.sources.notes and sources.found == previous.sources.found
    if same and not any(each.problems for each in previous.files):
        return None
    # What is wrong with a file may be outside of it, such as a certificate that was not there yet.
    loaded = assemble(sources, _other_files, previous.refused)
    known = [each.problems for each in previous.files]
    return None if same and [each.problems for each in loaded.files] == known else loaded


def without(loaded: Loaded, blamed: Refused) -> Loaded:
    """Return `loaded` without the versions of dynamic files that turned out to be unusable, `blamed` with the reasons.

    Raises:
      InvalidConfiguration: as `load` does.

    """
    return assemble(loaded.sources, _other_files, {**loaded.refused, **blamed})


def _with_containers(sources: Sources, previous: Loaded | None, found: Found | None) -> Sources:
    """Return `sources` with the containers, as long as they are wanted."""
    config = sources.main.config
    if config is None or config.providers.docker is None:
        return sources
    return evolve(sources, found=found, discovered=None if previous is None else previous.discovered)


def watched_place(config: Config, main: Path | str) -> Place | None:
    """Return where the dynamic files of `config` are, the configuration of the file `main`, if it wants them watched."""
    options = config.providers.file
    return None if options is None or not options.watch else Place.of(options, main)


def check(paths: Sequence[Path | str], *, strict: bool = False, now: datetime | None = None) -> list[Checked]:
    """Return what is wrong with the files `paths`, in their order; each may refer to what another one defines.

    Args:
      paths: the files; the dynamic files of a main file come after it, whether they are named here or not.
      strict: warnings are errors.
      now: the time by which certificates are judged; without it none is out of date.

    """
    checked = _check([os.fspath(path) for path in paths], now)
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


def check_files(
    paths: Sequence[Path | str], *, strict: bool = False, now: datetime | None = None
) -> list[Problem]:
    """Return the problems of all the files `paths`, as `check` does."""
    return [problem for each in check(paths, strict=strict, now=now) for problem in each.problems]


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


def _check(files: Sequence[str], now: datetime | None) -> list[Checked]:
    """Check each main file with its dynamic files as one; references may lead to what any of the files defines."""
    groups = {file: _group(file) for file in files}
    dynamic = {_same(each.path) for group in groups.values() for each in group.candidates}
    groups = {file: group for file, group in groups.items() if _same(file) not in dynamic}
    names = names_of_parts(Part(each) for group in groups.values() for each in group.documents)
    return [checked for file, group in groups.items() for checked in group.check(file, names, now)]


def _same(path: str) -> str:
    return os.path.realpath(path)


@frozen
class _Group:
    """A main file and its dynamic files, as they were read."""

    main: Document | Problem
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[Problem, ...] = ()

    @property
    def documents(self) -> list[Document]:
        """What could be read at all."""
        found = [self.main, *(each.newest for each in self.candidates)]
        return [each for each in found if isinstance(each, Document)]

    def check(self, file: str, names: Names, now: datetime | None) -> Iterator[Checked]:
        """Yield what is wrong with each of them; `names` are what all groups define."""
        parts = [Part(each) for each in self.documents if each.config is not None]
        judged: dict[object, list[Problem]] = {}
        if isinstance(self.main, Document) and self.main.config is not None:
            further = partial(_other_files, now=now)
            judged = {part.contribution: found for part, found in merge(parts).judge(names, further).items()}
        if isinstance(self.main, Problem):
            yield Checked(file, None, [self.main])
        else:
            problems = [*judged.get(self.main, self.main.problems), *self.notes]
            yield _checked(file, self.main.config, problems)
        for each in self.candidates:
            if each.newest is None:
                yield Checked(each.path, None, [] if each.unreadable is None else [each.unreadable])
            else:
                yield _checked(each.path, each.newest.config, judged.get(each.newest, each.newest.problems))


def _group(file: str) -> _Group:
    main = _read(file)
    if isinstance(main, Problem):
        return _Group(main)
    sources = _sources(main, None, 0.0)
    return _Group(main, sources.candidates, sources.notes)


def _checked(file: str, config: Config | None, problems: Iterable[Problem]) -> Checked:
    found = sorted(problems, key=lambda problem: problem.position)
    failed = any(problem.severity == "error" for problem in found)
    return Checked(file, None if failed else config, found)


def _sources(main: Document, previous: Loaded | None, now: float) -> Sources:
    """Return the main file with all that it leads to, read now; what has not changed is taken from `previous`."""
    options = None if main.config is None else main.config.providers.file
    place = None if options is None else Place.of(options, main.source)
    if place is None:
        return Sources(main, now=now)
    known = {} if previous is None else {each.path: each for each in previous.files}
    survey = place.survey()
    notes = [
        Problem(path, 1, 1, "", "is not read", "dynamic files are YAML: .yml or .yaml", "warning")
        for path in survey.passed_over
    ]
    key = "filename" if place.single else "directory"
    if survey.more:
        finding = Finding(
            ("providers", "file", key),
            f"has more than {MAX_FILES} files, or is deeper than {MAX_DEPTH} directories",
            "what is beyond is not read",
            "warning",
        )
        notes += main.placed([finding])
    if not survey.missing:
        candidates = [_candidate(path, known.get(path)) for path in survey.files]
    else:
        hint = "until it can be read, what is in force stays" if key == "directory" else "name another file"
        message = survey.missing if place.single else f"cannot be read: {survey.missing}"
        problem = Problem(place.root, 1, 1, "", message, hint, "warning")
        root = Candidate(place.root, message.encode(), None, problem, known.pop(place.root, None))
        candidates = [
            root,
            *(Candidate(each.path, each.digest, each.newest, before=each) for each in known.values()),
        ]
    return Sources(main, tuple(candidates), tuple(notes), now)


def _candidate(path: str, before: FileState | None) -> Candidate:
    try:
        data = read_file(path)
    except (OSError, ValueError) as error:
        problem = _unreadable_file(path, error)
        return Candidate(path, str(problem).encode("utf-8", "replace"), None, problem, before)
    digest = hashlib.sha256(data).digest()
    if before is not None and before.digest == digest and before.newest is not None:
        return Candidate(path, digest, before.newest, before=before)
    return Candidate(path, digest, read_document(data, path, dynamic=True), before=before)


def _read(file: str) -> Document | Problem:
    try:
        return read_document(read_file(file), file)
    except (OSError, ValueError) as error:
        return _unreadable_file(file, error)


def _unreadable_file(file: str, error: OSError | ValueError) -> Problem:
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return Problem(file, 1, 1, "", f"cannot be read: {reason}", "name a file that the daemon may read")
    message, _, hint = str(error).partition("; ")  # a NUL in the name too
    return Problem(file, 1, 1, "", message, hint)


def _other_files(config: Config, now: datetime | None = None) -> Iterator[Finding]:
    """Yield what is wrong with the files that `config` names; without `now` no certificate is out of date."""
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
    yield from _tls_files(config, now)
    yield from _engine_files(config)
    yield from _log_folder(config.log.file_path, ("log", "filePath"))
    if config.access_log is not None:
        yield from _log_folder(config.access_log.file_path, ("accessLog", "filePath"))


def _log_folder(file: str | None, path: KeyPath) -> Iterator[Finding]:
    if file is None:
        return
    folder = Path(file).parent
    if not folder.exists():
        message, hint = f'there is no directory "{folder}"', "the daemon tries to create it"
        yield Finding(path, message, hint, "warning")
    elif not folder.is_dir():
        yield Finding(path, f'"{folder}" is not a directory', "name a file in a directory")


def _engine_files(config: Config) -> Iterator[Finding]:
    """Yield what is wrong with the files for TLS towards the Docker Engine."""
    tls = None if config.providers.docker is None else config.providers.docker.tls
    if tls is None:
        return
    for key, file in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        if file is not None and (reason := _unreadable(file)):
            path = ("providers", "docker", "tls", key)
            yield Finding(path, f'"{file}" {reason}', "name a PEM file that the daemon may read")


def _tls_files(config: Config, now: datetime | None) -> Iterator[Finding]:
    """Yield what is wrong with certificates that are shown to clients, and with the authorities of theirs."""
    certificates: list[tuple[KeyPath, Certificate]] = [
        (("tls", "certificates", index), each) for index, each in enumerate(config.tls.certificates)
    ]
    for name, store in config.tls.stores.items():
        if store.default_certificate is not None:
            path: KeyPath = ("tls", "stores", name, "defaultCertificate")
            certificates.append((path, store.default_certificate))
    for path, certificate in certificates:
        try:
            facts = read_certificate(certificate, read_file)
        except CertificateFileError as error:
            yield Finding((*path, error.key), error.message, error.hint)
            continue
        wrong = None if now is None else out_of_date(certificate.cert_file, facts, now)
        if wrong is not None:
            yield Finding((*path, "certFile"), *wrong, "warning")
        if not facts.has_san:
            message = f'"{certificate.cert_file}" has no subjectAltName, so browsers refuse it'
            yield Finding((*path, "certFile"), message, "have it made with its names there", "warning")
    for name, options in config.tls.options.items():
        for index, file in enumerate(options.client_auth.ca_files):
            reason = _unreadable(file)
            if not reason and not has_certificate(read_file(file)):
                reason = "has no certificate in PEM"
            if reason:
                path = ("tls", "options", name, "clientAuth", "caFiles", index)
                yield Finding(path, f'"{file}" {reason}', "name a PEM file that the daemon may read")


def _unreadable(path: str) -> str:
    try:
        read_file(path)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except ValueError as error:
        return str(error).partition(";")[0]
    return ""
