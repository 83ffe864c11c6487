"""``trio-wsb check``: everything that is wrong with configuration files, before a daemon reads them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from textwrap import indent

import click


@click.command(short_help="Say everything that is wrong with configuration files.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--strict", is_flag=True, help="Take warnings for errors.")
@click.option(
    "--resolve",
    is_flag=True,
    help="Print the effective configuration too, secrets left out; problems then go to standard error.",
)
def check(files: tuple[str, ...], *, strict: bool, resolve: bool) -> None:
    """Say everything that is wrong with configuration files.

    Each problem is a line FILE:LINE:COLUMN key.path: what is wrong (what would be right); under
    a wrong rule stands where in it. The dynamic files of a main file
    are checked with it. Files that are checked
    together may refer to each other's services and entry points; a reference that none of them defines is a warning.
    The exit status is 0 when there are no errors, else 1.
    """
    from trio_wsb.config.effective import to_yaml
    from trio_wsb.config.load import check as check_configuration
    from trio_wsb.config.problems import printable

    checked = check_configuration(files, strict=strict, now=datetime.now(UTC))
    problems = [problem for each in checked for problem in each.problems]
    for problem in problems:
        suffix = " [warning]" if problem.severity == "warning" else ""
        click.echo(f"{problem}{suffix}", err=resolve)
        if problem.shown:
            click.echo(indent(problem.shown, "    "), err=resolve)
    if resolve:
        for each in checked:
            if each.config is not None:
                click.echo(f"---\n# {printable(each.file)}\n{to_yaml(each.config)}", nl=False)
    errors = sum(problem.severity == "error" for problem in problems)
    if problems:
        click.echo(_summary(errors, len(problems) - errors), err=True)
    sys.exit(1 if errors else 0)


def _summary(errors: int, warnings: int) -> str:
    """Return the count in words: ``2 errors, 1 warning``."""
    return ", ".join(
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((errors, "error"), (warnings, "warning"))
        if count
    )
