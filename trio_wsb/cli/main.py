"""The command `trio-wsb`: a group whose commands are imported when they run, so that `--help` is quick.

Exit statuses, of every command:

0    it did what was asked
1    it could not, or the answer is no: a configuration with problems, a lost session; standard error says why
2    the command line is wrong, or there is no daemon that could be asked
130  interrupted from the keyboard where stopping is not the normal end
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from trio_wsb import __version__
from trio_wsb.errors import Error

INTERRUPTED = 130
"""Exit status after SIGINT: 128 plus the signal's number, as shells have it."""


class Entry(NamedTuple):
    """Where a command is found, and its line in the help."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "run": Entry("trio_wsb.cli.run", "run", "Run the daemon."),
    "check": Entry("trio_wsb.cli.check", "check", "Check configuration files and print every problem."),
    "status": Entry("trio_wsb.cli.status", "status", "Show the running daemon: configuration, backends, sessions."),
    "sessions": Entry("trio_wsb.cli.status", "sessions", "List the running daemon's live sessions."),
    "reload": Entry("trio_wsb.cli.status", "reload_command", "Make the running daemon read its configuration again."),
    "drain": Entry("trio_wsb.cli.moving", "drain", "Take a backend away: its sessions end at a pace."),
    "ready": Entry("trio_wsb.cli.moving", "ready", "Give a drained backend new sessions again."),
    "rebalance": Entry("trio_wsb.cli.moving", "rebalance", "Move sessions from backends that have too many."),
    "demo": Entry("trio_wsb.cli.demo", "demo", "Watch clients being balanced over demo backends, live."),
    "demo-backend": Entry("trio_wsb.cli.demo", "demo_backend", "Run a WebSocket echo server that reports its connections."),
    "demo-client": Entry("trio_wsb.cli.demo", "demo_client", "Open many WebSocket sessions and check every echo."),
    "completion": Entry("trio_wsb.cli.completion", "completion", "Print the completion script for a shell."),
}  # fmt: skip


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import and return a command, or None when there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}:{entry.attribute} is no command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return completions of a command's name without importing the commands."""
        names = [
            CompletionItem(name, help=entry.summary)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what the user can mend is one line on standard error, never a traceback."""
        try:
            return super().invoke(ctx)
        except BaseExceptionGroup as group:
            # Trio's nurseries wrap even a single error.
            self._fail(ctx, group)
            raise
        except (Error, OSError, KeyboardInterrupt) as error:
            self._fail(ctx, error)
            raise

    @staticmethod
    def _fail(ctx: click.Context, error: BaseException) -> None:
        """Leave with the status that `error` deserves, or return when it is our own fault and needs a traceback."""
        leaves = _leaves(error)
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            ctx.exit(INTERRUPTED)
        if any(isinstance(leaf, (BrokenPipeError, SystemExit)) for leaf in leaves):
            # Standard output is gone (rich says so by SystemExit): whoever read it has seen enough.
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open until the end
            ctx.exit(1)
        if all(isinstance(leaf, (Error, OSError)) for leaf in leaves):
            raise click.ClickException("\n".join(dict.fromkeys(map(str, leaves)))) from None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 not done or the answer is no, 2 wrong usage or no daemon, 130 interrupted.",
)
@click.version_option(__version__, prog_name="trio-wsb", message="%(prog)s %(version)s")
def main() -> None:
    """Balance WebSocket connections by how many each backend really has."""
