"""Where the control socket goes, and what is said when it cannot."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.privileges import open_folder, unprivileged
from trio_wsb.config.model import Control
from trio_wsb.daemon.controlsocket import open_control_socket
from trio_wsb.errors import ConfigurationError
from trio_wsb.net.unix import UnixListener


def test_the_default_one(tmp_path: Path) -> None:
    listener = open_control_socket(Control(), default=tmp_path / "control.sock")
    assert listener is not None
    assert listener.path.is_socket()
    listener.close()


def test_the_default_one_is_done_without(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "control.sock"
    with capture_logs() as logged:
        assert open_control_socket(Control(), default=missing) is None
    (line,) = logged
    assert (line["event"], line["log_level"]) == ("no control socket", "warning")
    assert (line["path"], line["reason"]) == (str(missing), "its directory is not there")


def test_the_default_one_beside_another_daemon(tmp_path: Path) -> None:
    first = UnixListener(tmp_path / "control.sock")
    with capture_logs() as logged:
        assert open_control_socket(Control(), default=first.path) is None
    assert logged[0]["reason"] == "another daemon listens there"
    first.close()


@pytest.mark.parametrize("socket_path", ["no/control.sock", "live.sock", "file"])
def test_a_configured_one_must_work(tmp_path: Path, socket_path: str) -> None:
    (tmp_path / "file").touch()
    live = UnixListener(tmp_path / "live.sock")
    path = tmp_path / socket_path
    with pytest.raises(ConfigurationError) as caught:
        open_control_socket(Control(socket=str(path)))
    (problem,) = caught.value.problems
    assert problem.startswith(f"control.socket: cannot listen at {path}: ")
    live.close()


def test_a_configured_one_replaces_what_a_dead_daemon_has_left(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = open_control_socket(Control(socket=str(path), group=str(os.getgid())))
    assert listener is not None
    assert path.stat().st_mode & 0o777 == 0o660
    listener.close()


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'control\.group: there is no group "nosuchgroup"'):
        open_control_socket(Control(socket=str(tmp_path / "s"), group="nosuchgroup"))


def test_a_group_that_the_daemon_is_not_in() -> None:
    with open_folder() as folder, unprivileged():
        control = Control(socket=str(folder / "s"), group="1" if os.getgid() != 1 else "0")
        with pytest.raises(
            ConfigurationError, match=r"control\.group: cannot listen at .*: this process is neither"
        ):
            open_control_socket(control)
