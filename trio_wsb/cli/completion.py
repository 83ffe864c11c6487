"""`trio-wsb completion`: what a shell must know to complete our commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

PROGRAM = "trio-wsb"

_WHERE = """\b
bash  trio-wsb completion bash > ~/.local/share/bash-completion/completions/trio-wsb
      (for everybody: /etc/bash_completion.d/trio-wsb)
zsh   trio-wsb completion zsh > ~/.zfunc/_trio-wsb   with ~/.zfunc in fpath
fish  trio-wsb completion fish > ~/.config/fish/completions/trio-wsb.fish"""


@click.command(epilog=_WHERE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    It completes commands, options, and the backends and services of the running daemon.
    """
    made = get_completion_class(shell)
    assert made is not None
    # The classes of some shells look for the shell itself first, which a packager may not have.
    complete = made(ctx.find_root().command, {}, PROGRAM, "_TRIO_WSB_COMPLETE")
    click.echo(ShellComplete.source(complete))
