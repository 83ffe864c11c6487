"""Completion scripts, and what a shell gets from them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_wsb.cli.main import COMMANDS, main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell], prog_name="trio-wsb")
    assert result.exit_code == 0
    assert "trio-wsb" in result.stdout
    assert "_TRIO_WSB_COMPLETE" in result.stdout


def test_another_shell_is_wrong_usage() -> None:
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


def complete(line: str, word: int, **environment: str) -> list[str]:
    """Return what bash would be offered for the word of that number."""
    done = subprocess.run(
        [sys.executable, "-c", "from trio_wsb.cli.main import main; main(prog_name='trio-wsb')"],
        env=os.environ
        | {"_TRIO_WSB_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(word)}
        | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [offer.partition(",")[2] for offer in done.stdout.split()]


def test_commands_and_options() -> None:
    assert complete("trio-wsb ", 1) == list(COMMANDS)
    assert complete("trio-wsb rel", 1) == ["reload"]
    assert complete("trio-wsb re", 1) == ["reload", "ready", "rebalance"]
    assert complete("trio-wsb drain --", 2)[:2] == ["--socket", "--json"]
    assert complete("trio-wsb sessions --cl", 2) == ["--client"]


def test_without_a_daemon_no_backends_are_offered(tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    assert complete("trio-wsb sessions --backend ", 3, TRIO_WSB_SOCKET=none) == []
    assert complete("trio-wsb drain ", 2, TRIO_WSB_SOCKET=none) == []
    assert complete("trio-wsb rebalance ", 2, TRIO_WSB_SOCKET=none) == []
