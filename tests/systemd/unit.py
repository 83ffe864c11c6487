"""The project's unit files, read as systemd reads them as far as these tests need it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
UNITS = ROOT / "systemd"
PROGRAM = "/opt/trio-wsb/bin/trio-wsb"
CONFIG = "/etc/trio-wsb/trio-wsb.yaml"
CONTROL = "/run/trio-wsb/control.sock"

Settings = dict[str, list[str]]


def settings(path: Path) -> dict[str, Settings]:
    """Return the sections of a unit file; a key that stands twice has two values."""
    sections: dict[str, Settings] = {}
    current: Settings = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), {})
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            current.setdefault(key, []).append(value)
    return sections


def service() -> Settings:
    return settings(UNITS / "trio-wsb.service")["Service"]


def command(key: str, config: Path | None = None) -> list[str]:
    """Return the command of `key` with this environment's program in the place of the installed one."""
    (line,) = service()[key]
    program, *arguments = shlex.split(line)
    assert program == PROGRAM
    installed = Path(sys.executable).parent / "trio-wsb"
    assert installed.exists(), "the package is not installed in this environment"
    return [str(installed), *(str(config) if each == CONFIG else each for each in arguments)]


def environment() -> dict[str, str]:
    """Return what the unit adds to the environment."""
    pairs = [pair for line in service().get("Environment", []) for pair in shlex.split(line)]
    return dict(pair.split("=", 1) for pair in pairs)


def system_calls() -> list[str]:
    """Return the system calls that the unit's filter lets through; needs systemd-analyze."""
    allowed: set[str] = set(_group("@default"))
    for line in service()["SystemCallFilter"]:
        names = {name for word in line.lstrip("~").split() for name in _group(word)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return sorted(allowed)


@cache
def _group(name: str) -> frozenset[str]:
    if not name.startswith("@"):
        return frozenset({name})
    listing = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True, check=True
    ).stdout
    words = {line.strip() for line in listing.splitlines()[1:]}
    return frozenset(call for word in words if word and word[0] != "#" for call in _group(word))
