"""The command's frame: help, errors, exit statuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from trio_wsb import __version__
from trio_wsb.addresses import ListenAddress
from trio_wsb.cli.main import COMMANDS, Entry, main
from trio_wsb.cli.parameters import DURATION, LISTEN, SIZE, WEBSOCKET_URL
from trio_wsb.errors import Error


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments, prog_name="trio-wsb")
    return result.exit_code, result.stdout, result.stderr


def test_help_names_every_command_and_imports_none() -> None:
    program = (
        "import sys; from trio_wsb.cli.main import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    text, _, modules = done.stdout.rstrip().rpartition("\n")
    for name, entry in COMMANDS.items():
        assert f"{name} " in text
        assert entry.summary in text
        assert entry.module not in modules.split()
    assert "trio" not in modules.split()


def test_version() -> None:
    assert run("--version") == (0, f"trio-wsb {__version__}\n", "")


def test_unknown_commands_are_wrong_usage() -> None:
    status, _, err = run("dmeo")
    assert status == 2
    assert "dmeo" in err


@pytest.mark.parametrize("name", ["demo", "demo-backend", "demo-client"])
def test_commands_explain_themselves(name: str) -> None:
    status, out, _ = run(name, "-h")
    assert status == 0
    assert f"Usage: trio-wsb {name} [OPTIONS]" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--clients", "7"],
        ["demo", "--duration", "soon"],
        ["demo-client", "--url", "ftp://x"],
        ["demo-client", "--clients", "0"],
        ["demo-backend", "--listen", "127.0.0.1"],
        ["demo-backend", "--metric-fail", "other"],
        ["demo-backend", "--refuse-status", "101"],
        ["demo-backend", "--max-message", "big"],
        ["demo-backend", "--certificate", "/does/not/exist"],
    ],
)
def test_wrong_options_are_wrong_usage(arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert arguments[1] in err


def failing(error: BaseException) -> type[object]:
    @click.command
    def command() -> None:
        raise error

    return type("holder", (), {"command": command})


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (Error("the reason"), 1, "Error: the reason\n"),
        (OSError(98, "Address already in use"), 1, "Error: [Errno 98] Address already in use\n"),
        (ExceptionGroup("", [ExceptionGroup("", [Error("a")]), Error("b")]), 1, "Error: a\nb\n"),
        (KeyboardInterrupt(), 130, ""),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, ""),
    ],
)
def test_what_users_cause_has_no_traceback(
    error: BaseException, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trio_wsb_failing", failing(error))
    monkeypatch.setitem(COMMANDS, "fail", Entry("trio_wsb_failing", "command", "Fail."))
    assert run("fail") == (status, "", message)


def test_our_own_faults_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = ExceptionGroup("", [Error("a"), ZeroDivisionError()])
    monkeypatch.setitem(sys.modules, "trio_wsb_failing", failing(fault))
    monkeypatch.setitem(COMMANDS, "fail", Entry("trio_wsb_failing", "command", "Fail."))
    assert CliRunner().invoke(main, ["fail"]).exception is fault


def test_every_command_exists_where_it_is_said_to_be() -> None:
    for name in COMMANDS:
        assert isinstance(main.get_command(click.Context(main), name), click.Command)


def test_a_reader_that_has_enough_is_no_fault(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m trio_wsb demo-client --url ws://127.0.0.1:1/ | true",
        shell=True, capture_output=True, text=True, check=False, cwd=Path.cwd(),
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_option_types() -> None:
    assert DURATION.convert("1m30s", None, None) == 90
    assert DURATION.convert("2", None, None) == 2
    assert SIZE.convert("64KiB", None, None) == 65536
    assert SIZE.convert("64", None, None) == 64
    assert LISTEN.convert("[::1]:80", None, None) == ListenAddress("::1", 80)
    assert WEBSOCKET_URL.convert("ws://h/p", None, None) == "ws://h/p"
    for kind in (DURATION, SIZE, LISTEN, WEBSOCKET_URL):
        with pytest.raises(click.UsageError, match="nonsense"):
            kind.convert("nonsense", None, None)
