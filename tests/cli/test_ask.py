"""What the commands that ask a daemon say when there is none, or none that may be asked."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.privileges import open_folder, unprivileged
from trio_wsb.cli.ask import UnreachableError, ask
from trio_wsb.cli.main import main
from trio_wsb.net.unix import UnixListener

COMMANDS = [
    ["status"],
    ["sessions"],
    ["reload"],
    ["drain", "http://10.0.0.1:8080"],
    ["ready", "http://10.0.0.1:8080"],
    ["rebalance"],
]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments, prog_name="trio-wsb")
    assert result.stdout == ""
    return result.exit_code, result.stderr


@contextmanager
def answering(folder: Path, answer: bytes) -> Iterator[str]:
    """Run something that reads one request and gives `answer`, whatever that is."""
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(folder / "control.sock")
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass  # a body; closing with it unread would be a reset

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_daemon(tmp_path: Path, command: list[str]) -> None:
    path = str(tmp_path / "control.sock")
    status, err = run(*command, "--socket", path)
    assert status == 2
    assert err.startswith(f"Error: there is no daemon at {path}: is it running")
    assert "--socket or TRIO_WSB_SOCKET" in err
    assert err.count("\n") == 1


def test_a_daemon_that_has_ended(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    status, err = run("status", "--socket", path)
    assert (status, err) == (
        2,
        f"Error: nobody listens at {path} any more: the daemon that made it has ended\n",
    )


def test_a_socket_that_is_not_permitted() -> None:
    with open_folder() as folder:
        listener = UnixListener(folder / "control.sock")
        listener.path.chmod(0o000 if os.geteuid() else 0o600)
        with unprivileged():
            status, err = run("reload", "--socket", str(listener.path))
        assert status == 2
        assert err.startswith(f"Error: you may not use {listener.path} (it belongs to ")
        assert "control.group" in err
        listener.close()


def test_a_folder_that_is_not_permitted() -> None:
    with open_folder() as folder:
        (folder / "closed").mkdir(mode=0o000)
        with unprivileged():
            status, err = run("reload", "--socket", str(folder / "closed" / "control.sock"))
        assert status == 2
        assert err.startswith(f"Error: you may not use {folder}/closed/control.sock: run this with sudo")


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    status, err = run("status", "--socket", "/" + "x" * 200)
    assert status == 2
    assert "AF_UNIX path too long" in err
    status, err = run("status", "--socket", str(tmp_path))
    assert status == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
    ],
)
def test_something_else_that_listens_there(tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path, answer) as path:
        status, err = run("status", "--socket", path)
    assert (status, err) == (2, f"Error: what listens at {path} does not answer as the daemon does\n")


def test_a_daemon_that_hangs(tmp_path: Path) -> None:
    listener = UnixListener(tmp_path / "control.sock")
    with pytest.raises(UnreachableError, match=r"does not answer within 0\.05 s"):
        ask(str(listener.path), "GET", "/status", timeout=0.05)
    listener.close()


def test_a_refusal_is_the_daemons_words(tmp_path: Path) -> None:
    body = b'{"error": "too many control connections"}'
    answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    for command in COMMANDS:
        folder = tmp_path / command[0]
        folder.mkdir()
        with answering(folder, answer) as path:
            assert run(*command, "--socket", path) == (1, "Error: too many control connections\n")


def test_the_environment_names_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "from-environment.sock")
    monkeypatch.setenv("TRIO_WSB_SOCKET", path)
    assert path in run("status")[1]
    assert "/other.sock" in run("status", "--socket", "/other.sock")[1]
