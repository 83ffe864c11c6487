"""What the configuration says of its sources beside the main file."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from trio_wsb.config.checks import FILE_PATH
from trio_wsb.config.docker import DockerProvider, docker_findings
from trio_wsb.config.options import option
from trio_wsb.config.problems import Finding, KeyPath
from trio_wsb.config.scalars import show
from trio_wsb.units import Duration


@frozen
class FileProvider:
    """Dynamic files: routers, services, middlewares and transports that are applied as soon as their file is written."""

    filename: str | None = option(
        "One dynamic file; relative to the directory of the main file. Write this or `directory`.",
        None,
        check=FILE_PATH,
    )
    directory: str | None = option(
        "Directory whose `.yml` and `.yaml` files are read, and those of the directories in it; names that begin with a dot "
        "are passed over. Relative to the directory of the main file.",
        None,
        check=FILE_PATH,
    )
    watch: bool = option("Apply changes as they happen; else a reload reads the files again.", default=True)


@frozen
class Providers:
    """Where routers, services and middlewares come from, beside the main file."""

    file: FileProvider | None = option("Dynamic files, in a directory or a single one.", None)
    docker: DockerProvider | None = option("The containers of a Docker Engine, by their labels.", None)
    providers_throttle_duration: Duration = option(
        "Time between two changes of providers that are applied; what comes meanwhile is applied together. A reload does not wait.",
        Duration(2.0),
    )


def provider_findings(providers: Providers) -> Iterator[Finding]:
    """Yield what is wrong with `providers`."""
    yield from docker_findings(providers.docker, ("providers", "docker"))
    given, path = providers.file, ("providers", "file")
    if given is None:
        return
    if given.filename is None and given.directory is None:
        hint = "write directory: dynamic, or filename: dynamic.yml"
        yield Finding(path, "names no dynamic files", hint, code="empty", at="key")
    elif given.filename is not None and given.directory is not None:
        other: KeyPath = (*path, "directory")
        hint = "write one of the two; a directory is read with all of its files"
        yield Finding((*path, "filename"), "is given together with", hint, at="key", other=other)
    if given.filename is not None and not given.filename.lower().endswith((".yml", ".yaml")):
        hint = "dynamic files are YAML: name one that ends with .yml or .yaml"
        yield Finding((*path, "filename"), f"{show(given.filename)} is not read", hint)
