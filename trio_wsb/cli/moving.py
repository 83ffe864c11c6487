"""`trio-wsb drain`, `ready` and `rebalance`: moving sessions, with their progress in sight.

The daemon does the work and goes on without us: these commands ask it to begin, and then only look.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from attrs import frozen
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from trio_wsb.cli.ask import ask_or_fail, complete_backend, complete_service, json_option, socket_option
from trio_wsb.cli.parameters import DURATION, RATE
from trio_wsb.cli.screens import console, rebalance_screen, short_url, span

LOOK_INTERVAL = 0.25
"""Seconds between two looks at a terminal."""

LINE_INTERVAL = 1.0
"""Seconds between two lines where there is no terminal."""

View = dict[str, Any]

_service_option = click.option(
    "--service", metavar="SERVICE", shell_complete=complete_service, help="Only in this service."
)
_backend_argument = click.argument("backend", shell_complete=complete_backend)
_detach_option = click.option("--detach", is_flag=True, help="Begin, and do not wait for the end.")


@frozen
class Look:
    """One look at what is under way: how many are done of how many, in words, and whether it is over."""

    done: int
    total: int
    words: str
    over: bool
    document: View


@click.command
@_backend_argument
@socket_option
@json_option
@_service_option
@click.option("--rate", type=RATE, metavar="RATE", help="Sessions told to go per second, such as 50/s.")
@click.option("--code", type=click.IntRange(1000, 4999), help="Close code that clients get, such as 1001.")
@click.option(
    "--timeout", type=DURATION, metavar="DURATION", help="Cut what is left after this time; 0 is never."
)
@_detach_option
def drain(
    backend: str,
    path: str,
    *,
    as_json: bool,
    service: str | None,
    rate: float | None,
    code: int | None,
    timeout: float | None,
    detach: bool,
) -> None:
    """Take BACKEND away: it gets no new sessions, and its live ones end at a pace.

    BACKEND is a URL, a host and port, a host, or a pod name, as long as that means one backend. What is not said here says
    loadBalancer.drain in the configuration. Ctrl-C ends this command and not the drain; the same command shows it again, and
    another --rate applies at once. `trio-wsb ready BACKEND` takes it back. A restart of the daemon forgets it, a reload
    does not.

    Exit status: 0 drained, 1 refused, taken back, or over its timeout with something left; 2 no daemon; 130 interrupted.
    """
    wanted: dict[str, object] = {"backend": backend, "service": service}
    wanted |= {"rate": rate, "closeCode": code, "timeout": timeout}
    document = {key: value for key, value in wanted.items() if value is not None}
    begun: View = ask_or_fail(path, "POST", "/drain", document=document)
    if detach:
        _tell(begun, _drain_words(begun), as_json=as_json)
        return

    def look() -> Look:
        found: list[View] = ask_or_fail(path, "GET", "/drain")["drains"]
        for each in found:
            if (each["backend"], each["service"]) == (begun["backend"], begun["service"]):
                gone = each["ended"] + each["cut"]
                return Look(gone, each["total"], _drain_words(each), each["state"] == "drained", each)
        raise click.ClickException(f"{begun['backend']} was made ready again")

    name = short_url(begun["backend"])
    try:
        last = _watch(look, f"draining {name}", as_json=as_json)
    except KeyboardInterrupt:
        click.echo(f"the drain goes on; `trio-wsb ready {name}` takes it back", err=True)
        raise
    if last["left"]:
        sys.exit(1)


def _drain_words(each: View) -> str:
    words = f"{each['ended']:,} ended, {each['cut']:,} cut, {each['left']:,} left"
    if each["state"] == "drained":
        return f"{short_url(each['backend'])} drained in {span(each['duration'])}: {words}"
    return f"{words}, {each['currentRate']:g}/s"


@click.command
@_backend_argument
@socket_option
@json_option
@_service_option
def ready(backend: str, path: str, *, as_json: bool, service: str | None) -> None:
    """Give BACKEND new sessions again, also while it is being drained.

    Sessions that were told to go still go, the others stay.

    Exit status: 0 ready (also if it was before), 1 refused, 2 no daemon or no permission.
    """
    document: dict[str, object] = {"backend": backend}
    if service is not None:
        document["service"] = service
    answer: View = ask_or_fail(path, "POST", "/ready", document=document)
    name = short_url(answer["backend"])
    words = f"{name} gets new sessions again" if answer["drains"] else f"{name} was not being drained"
    _tell(answer, words, as_json=as_json)


@click.command
@click.argument("service", required=False, shell_complete=complete_service)
@socket_option
@json_option
@click.option("--dry-run", is_flag=True, help="Only show what would move.")
@_detach_option
def rebalance(service: str | None, path: str, *, as_json: bool, dry_run: bool, detach: bool) -> None:
    """Let backends that have too many sessions of SERVICE, or of every service, shed some.

    A backend that is above its share by more than loadBalancer.rebalance.tolerance sheds down to it; the clients reconnect and
    go to the others. Only sessions older than minAge are moved. Ctrl-C ends this command and not the move.

    Exit status: 0 moved, or nothing to move; 1 refused, or it cannot be done; 2 no daemon; 130 interrupted.
    """
    document: dict[str, object] = {"dryRun": dry_run}
    if service is not None:
        document["service"] = service
    answer: View = ask_or_fail(path, "POST", "/rebalance", document=document)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        console().print(rebalance_screen(answer))
    outcomes = {each["service"]: each["outcome"] for each in answer["services"]}
    for name, outcome in outcomes.items():
        if not (dry_run or detach) and outcome in {"planned", "running"}:
            _follow(path, name, as_json=as_json)
    if service is not None and "impossible" in outcomes.values():
        sys.exit(1)


def _follow(path: str, service: str, *, as_json: bool) -> None:
    def look() -> Look:
        found: list[View] = ask_or_fail(path, "GET", "/rebalance")["services"]
        for each in found:
            plan = each["plan"]
            if each["service"] == service and plan is not None:
                words = f"{plan['shed']:,} moved, {plan['kept']:,} not needed any more"
                if not each["running"]:
                    words = f"{service} rebalanced in {span(plan['duration'])}: {words}"
                return Look(plan["shed"] + plan["kept"], plan["sessions"], words, not each["running"], each)
        raise click.ClickException(f"the service {service} has left the configuration")

    try:
        _watch(look, f"rebalancing {service}", as_json=as_json)
    except KeyboardInterrupt:
        click.echo("the rebalancing goes on", err=True)
        raise


def _tell(document: View, words: str, *, as_json: bool) -> None:
    click.echo(json.dumps(document) if as_json else words)


def _watch(look: Callable[[], Look], title: str, *, as_json: bool) -> View:
    """Show what is under way until it is over: a bar at a terminal, else lines; return the last document."""
    screen = console()
    now = look()
    if as_json or not screen.is_terminal:
        return _watch_lines(look, now, title, as_json=as_json)
    with _bar(screen) as progress:
        task = progress.add_task(title, total=None, words=now.words)
        while not now.over:
            progress.update(task, completed=now.done, total=now.total or None, words=now.words, refresh=True)
            time.sleep(LOOK_INTERVAL)
            now = look()
        progress.update(task, completed=1, total=1, words="", refresh=True)
    click.echo(now.words)
    return now.document


def _watch_lines(look: Callable[[], Look], now: Look, title: str, *, as_json: bool) -> View:
    told = ""
    while not now.over:
        if as_json or now.words != told:
            _tell(now.document, f"{title}: {now.words}", as_json=as_json)
            told = now.words
        time.sleep(LINE_INTERVAL)
        now = look()
    _tell(now.document, now.words, as_json=as_json)
    return now.document


def _bar(screen: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[words]}", markup=False),
        console=screen,
        auto_refresh=False,
        transient=True,
        expand=True,
    )
