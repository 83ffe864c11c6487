"""`trio-wsb status`, `sessions` and `reload`: a running daemon, asked and told through its control socket."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.live import Live

from trio_wsb.cli.ask import (
    ask,
    ask_or_fail,
    complete_backend,
    complete_service,
    json_option,
    refusal,
    socket_option,
)
from trio_wsb.cli.screens import console, sessions_screen, status_screen, watch_screen

WATCH_INTERVAL = 1.0
"""Seconds between two looks."""

RELOAD_TIMEOUT = 70.0
"""Seconds for a reload: the daemon's own bound and some more, so that its words arrive."""

WIDE = 120
"""Columns from which on tables have more of them."""

_MANY = 10**9


@click.command
@socket_option
@json_option
@click.option(
    "--watch", is_flag=True, help="Look again every second until Ctrl-C; with --json a line each time."
)
def status(path: str, *, as_json: bool, watch: bool) -> None:
    """Show the running daemon: configuration, backends, sessions.

    Of each backend: whether it gets new sessions (state), our own sessions there (live) and those being opened
    (handshakes), the connections that it reported and how old that report is (age), and how many of them are not ours
    (foreign; with ~ an estimate, as long as it has never reported).

    Exit status: 0 shown, 1 refused, 2 no daemon or no permission.
    """
    screen = console()
    document = ask_or_fail(path, "GET", "/status")
    try:
        if watch and screen.is_terminal and not as_json:
            _watch(path, screen, document)
        _print_status(screen, document, as_json=as_json, watch=watch)
        while watch:
            time.sleep(WATCH_INTERVAL)
            _print_status(screen, ask_or_fail(path, "GET", "/status"), as_json=as_json, watch=watch)
    except KeyboardInterrupt:
        # The normal end of a watch, and of nothing else.
        if not watch:
            raise


def _print_status(screen: Console, document: Any, *, as_json: bool, watch: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=None if watch else 2))
        return
    screen.print(status_screen(document, wide=screen.width >= WIDE))
    if watch:
        screen.print()


def _watch(path: str, screen: Console, document: Any) -> NoReturn:
    """Draw the status over and over, in the place of what the terminal showed, which is there again afterwards."""
    with Live(console=screen, screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live:
        trouble = None
        while True:
            live.update(watch_screen(document, trouble, wide=screen.width >= WIDE), refresh=True)
            time.sleep(WATCH_INTERVAL)
            try:
                document, trouble = ask_or_fail(path, "GET", "/status"), None
            except click.ClickException as error:
                # It may be restarted; whoever watches wants to see it come back.
                trouble = error.message


@click.command
@socket_option
@json_option
@click.option(
    "--backend",
    metavar="BACKEND",
    shell_complete=complete_backend,
    help="Only those at this backend: its URL, host and port, host, or pod name.",
)
@click.option(
    "--service", metavar="SERVICE", shell_complete=complete_service, help="Only those of this service."
)
@click.option(
    "--client",
    metavar="CLIENT",
    help="Only those of this client: its address, address and port, or a network.",
)
@click.option(
    "--limit", type=click.IntRange(0, 1000), default=50, show_default=True, help="List at most so many."
)
@click.option(
    "--offset", type=click.IntRange(0, _MANY), default=0, help="Leave out so many at the beginning."
)
def sessions(
    path: str,
    *,
    as_json: bool,
    backend: str | None,
    service: str | None,
    client: str | None,
    limit: int,
    offset: int,
) -> None:
    """List live sessions, the oldest first.

    Messages and bytes count from the client's side: in is what it sent.

    Exit status: 0 listed, 1 refused, 2 no daemon or no permission.
    """
    parameters = {"limit": str(limit), "offset": str(offset)}
    filters = {"backend": backend, "service": service, "client": client}
    parameters |= {name: value for name, value in filters.items() if value is not None}
    document = ask_or_fail(path, "GET", "/sessions", parameters)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        screen = console()
        screen.print(sessions_screen(document, wide=screen.width >= WIDE))


@click.command("reload")
@socket_option
def reload_command(path: str) -> None:
    """Make the running daemon read its configuration again, and wait for the outcome.

    Live sessions stay. A configuration with a problem changes nothing; every problem is printed with its line. A dynamic
    file with a problem stays as it was, and the rest comes into force.

    Exit status: 0 reloaded, 1 not reloaded, or not all of it, 2 no daemon or no permission.
    """
    answer = ask(path, "POST", "/reload", timeout=RELOAD_TIMEOUT)
    if answer.status not in {200, 422}:
        raise click.ClickException(refusal(answer))
    outcome: dict[str, Any] = answer.document
    for warning in outcome["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if outcome["succeeded"]:
        for each in outcome["badFiles"]:
            for problem in each["problems"]:
                click.echo(problem, err=True)
        for each in outcome.get("badContainers", ()):
            for problem in each["problems"]:
                click.echo(problem, err=True)
        click.echo(f"reloaded in {outcome['duration']:g} s")
        if outcome["badFiles"]:
            bad = ", ".join(f"{each['path']} (in force: {each['inForce']})" for each in outcome["badFiles"])
            click.echo(f"not in force as it is now: {bad}", err=True)
            sys.exit(1)
        return
    for problem in outcome["problems"]:
        click.echo(problem, err=True)
    click.echo("not reloaded: the old configuration stays in force", err=True)
    sys.exit(1)
