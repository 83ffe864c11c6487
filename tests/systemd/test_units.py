from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.systemd import unit
from trio_wsb.addresses import DEFAULT_CONTROL_SOCKET
from trio_wsb.cli.run import DEFAULT_CONFIG
from trio_wsb.config.load import load
from trio_wsb.daemon.notify import STOP_EXTENSION
from trio_wsb.units import parse_duration

EXPOSURE_LIMIT = 2.0


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The unit files as they would be in a place where the program is this environment's."""
    (program, *_) = unit.command("ExecStart")
    copies = []
    for name in ("trio-wsb.service", "trio-wsb.socket"):
        copy = tmp_path / name
        copy.write_text((unit.UNITS / name).read_text().replace(unit.PROGRAM, program))
        copies.append(copy)
    return copies


def test_systemd_finds_nothing_wrong(units: list[Path]) -> None:
    result = subprocess.run([tool("systemd-analyze"), "verify", *units], capture_output=True, text=True)
    complaints = [line for line in (result.stdout + result.stderr).splitlines() if "trio-wsb" in line]
    assert (result.returncode, complaints) == (0, [])


def test_exposure(units: list[Path]) -> None:
    analyze = tool("systemd-analyze")
    if "--offline" not in subprocess.run([analyze, "--help"], capture_output=True, text=True).stdout:
        pytest.skip("this systemd-analyze cannot judge the security of a file (--offline)")
    result = subprocess.run(
        [
            analyze,
            "security",
            "--no-pager",
            "--offline=true",
            f"--threshold={round(EXPOSURE_LIMIT * 10)}",
            units[0],
        ],
        capture_output=True,
        text=True,
    )
    assert "Overall exposure level" in result.stdout
    assert result.returncode == 0, result.stdout


def test_the_command_lines_name_the_defaults() -> None:
    assert unit.service()["ExecStart"] == [f"{unit.PROGRAM} run --config {DEFAULT_CONFIG}"]
    assert unit.service()["ExecReload"] == [f"{unit.PROGRAM} reload"]
    assert unit.CONTROL == DEFAULT_CONTROL_SOCKET
    (directory,) = unit.service()["RuntimeDirectory"]
    assert Path(DEFAULT_CONTROL_SOCKET).parent == Path("/run") / directory


def test_the_stop_is_extended_within_its_timeout() -> None:
    (timeout,) = unit.service()["TimeoutStopSec"]
    assert parse_duration(timeout) >= STOP_EXTENSION


def test_the_socket_unit_fits_the_example_configuration() -> None:
    entry_points = load(unit.ROOT / "etc" / "trio-wsb.yaml").config.entry_points
    socket = unit.settings(unit.UNITS / "trio-wsb.socket")["Socket"]
    (name,), (address,) = socket["FileDescriptorName"], socket["ListenStream"]
    assert str(entry_points[name].address) == address


def test_every_hardening_line_has_one_value() -> None:
    several = {key for key, values in unit.service().items() if len(values) > 1}
    assert several == {"SystemCallFilter"}


def test_user_and_directory(tmp_path: Path) -> None:
    sysusers, tmpfiles = tool("systemd-sysusers"), tool("systemd-tmpfiles")
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "etc").mkdir()
    for program, folder in ((sysusers, "sysusers.d"), (tmpfiles, "tmpfiles.d")):
        options = ["--create"] if program == tmpfiles else []
        file = unit.UNITS / folder / "trio-wsb.conf"
        subprocess.run([program, f"--root={tmp_path}", *options, file], check=True)
    (user,) = [
        line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("trio-wsb:")
    ]
    _, _, uid, gid, _, home, shell = user.split(":")
    assert home == "/var/lib/trio-wsb"
    assert shell.endswith("nologin")
    status = (tmp_path / "etc/trio-wsb").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, int(gid), 0o750)
    assert uid != "0"
