"""What `trio-wsb status` and `sessions` look like: the daemon's answers, drawn with rich.

Everything fits 80 columns; a wider terminal gets wider columns. Whatever comes from the daemon is drawn as text, never as
markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

View = Mapping[str, Any]

_NAMES = 3
"""Names of a certificate that are listed."""

KERNEL_NOT_WANTED = {"configured": {"", "auto"}, "every service says stream at the start": {""}}
"""Reasons for no kernel relay that are no news to who wrote the configuration, by what its services want now."""

_STATE_STYLES = {
    "ready": "green",
    "down": "red",
    "cooling_down": "yellow",
    "full": "yellow",
    "removed": "dim",
    "off": "dim",
    "draining": "magenta",
    "drained": "magenta",
}


def status_screen(document: View, *, wide: bool = False) -> RenderableType:
    """Return the screen for an answer to ``GET /status``; a `wide` one has totals, failures and pod names too."""
    parts: list[RenderableType] = [_overview(document), Text()]
    leaves = [each for each in document["services"] if "parts" not in each]
    services = {each["name"]: each["strategy"] for each in leaves}
    rebalances = {each["name"]: each.get("rebalance") for each in leaves}
    by_service: dict[str | None, list[View]] = {name: [] for name in services}
    for backend in document["backends"]:
        by_service.setdefault(backend["service"], []).append(backend)
    for name, backends in by_service.items():
        if name is None:
            heading = Text("no longer configured, with sessions that live on", style="bold")
        else:
            heading = Text.assemble((name, "bold"), f"  {services.get(name, '')}")
            heading.append(_rebalancing(rebalances.get(name)), "magenta")
        problems = [*_drains(backends), *_health_problems(backends), *_report_problems(backends)]
        parts += [heading, _backends(backends, wide=wide), *problems, Text()]
    for each in document["services"]:
        if "parts" in each:
            parts.append(
                Text.assemble((each["name"], "bold"), f"  {each['strategy']} of {', '.join(each['parts'])}")
            )
    return Group(*(parts if parts[-1] else parts[:-1]))


def watch_screen(document: View, trouble: str | None, *, wide: bool = False) -> RenderableType:
    """Return the status screen, below a line that says why it is not of this moment, if there is one."""
    screen = status_screen(document, wide=wide)
    return screen if trouble is None else Group(Text(trouble, style="bold red"), Text(), screen)


def sessions_screen(document: View, *, wide: bool = False) -> RenderableType:
    """Return the screen for an answer to ``GET /sessions``; a `wide` one has host and path, and bytes too."""
    sessions: list[View] = document["sessions"]
    table = _table()
    _columns(table, ("session", True), ("client", False), ("service", False), ("backend", False))
    if wide:
        _columns(table, ("pod", False), ("host and path", False))
    _columns(table, ("duration", True), ("in", True), ("out", True))
    if wide:
        _columns(table, ("bytes in", True), ("bytes out", True))
    for each in sessions:
        backend = short_url(each["backend"]) + (" (draining)" if each.get("draining") else "")
        row = [str(each["session"]), each["client"], each["service"], backend]
        row += [each.get("podName") or "", f"{each['host']}{each['path']}"] if wide else []
        row += [span(each["duration"]), f"{each['messagesIn']:,}", f"{each['messagesOut']:,}"]
        row += [f"{each['bytesIn']:,}", f"{each['bytesOut']:,}"] if wide else []
        table.add_row(*map(Text, row), style="dim" if each["cause"] else None)
    first, last = document["offset"] + 1, document["offset"] + len(sessions)
    which = f"sessions {first:,} to {last:,} of {document['total']:,}" if sessions else "no sessions here"
    if not sessions and document["total"]:
        which += f", {document['total']:,} in all"
    footer = Text(which, style="dim")
    return Group(table, Text(), footer) if sessions else footer


def rebalance_screen(document: View) -> RenderableType:
    """Return the screen for an answer to ``POST /rebalance``: each service with what is to move, or why nothing is."""
    parts: list[RenderableType] = []
    for each in document["services"]:
        parts.append(Text.assemble((each["service"], "bold"), f"  {_outcome(each, dry=document['dryRun'])}"))
        if each["outcome"] != "planned":
            continue
        table = _table()
        _columns(table, ("backend", False), ("load", True), ("live", True), ("share", True), ("moves", True))
        for backend in each["backends"]:
            share = "-" if backend["share"] is None else f"{backend['share']:,.1f}"
            figures = [
                _figure(backend["load"]),
                _figure(backend["live"]),
                Text(share),
                _figure(backend["sheds"]),
            ]
            table.add_row(Text(short_url(backend["url"])), *figures)
        parts.append(table)
    return Group(*parts) if parts else Text("no services")


def _outcome(each: View, *, dry: bool) -> str:
    if each["outcome"] == "planned":
        return f"{each['sessions']:,} sessions {'would move' if dry else 'to move'}"
    return str(each["reason"])


def console() -> Console:
    """Return the console that commands write to: everything is text, nothing is markup."""
    return Console(highlight=False, markup=False, emoji=False)


def short_url(url: str) -> str:
    """Return a backend's URL without the scheme that goes without saying."""
    return url.removeprefix("http://")


def span(seconds: float) -> str:
    """Return a time span in at most two units: ``3d 4h``, ``12m 5s``, ``0.4s``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    rest = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0"))


def _overview(document: View) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    headline = Text(f"{document['version']}, up {span(document['uptime'])}, pid {document['pid']}")
    if document["stopping"]:
        headline.append("  stopping", "bold red")
    grid.add_row("trio-wsb", headline)
    configuration = document["configuration"]
    since = _local(configuration["loadedAt"])
    grid.add_row("configuration", Text(f"{configuration['file']}, in force since {since}"))
    for warning in configuration["warnings"]:
        grid.add_row("", Text(warning, style="yellow"))
    for line in _last_reload(configuration["lastReload"], _now(document)):
        grid.add_row(*line)
    for line in _providers(configuration.get("providers", ()), _now(document)):
        grid.add_row(*line)
    for line in _files(configuration.get("files", ())):
        grid.add_row(*line)
    for index, entry in enumerate(document["entryPoints"]):
        limit = f" of {entry['maxConnections']:,}" if entry["maxConnections"] else ""
        where = ", ".join(entry["addresses"]) or "closed"
        figure = f"{entry['name']}  {where}  {entry['connections']:,}{limit} connections"
        grid.add_row("" if index else "entry points", Text(figure))
        if redirection := entry.get("redirection"):
            grid.add_row("", _redirection(redirection))
        if entry.get("waiting"):
            grid.add_row("", Text("clients wait: no descriptors left", style="bold red"))
    for index, each in enumerate(document.get("certificates", ())):
        grid.add_row("" if index else "certificates", _certificate(each))
    for line in _names(document.get("names", ())):
        grid.add_row(*line)
    for line in _disabled_routers(document.get("routers", ())):
        grid.add_row(*line)
    grid.add_row("sessions", _session_totals(document["sessions"]))
    kernel = document.get("kernelRelay")
    if kernel and kernel["wanted"] not in KERNEL_NOT_WANTED.get(kernel["reason"], ()):
        grid.add_row("kernel relay", _kernel_relay(kernel))
    access_log = document.get("accessLog")
    if access_log and access_log["problem"]:
        waiting, lost = access_log["linesWaiting"], access_log["linesLost"]
        text = f"{access_log['file']}: {access_log['problem']}, {waiting:,} lines wait, {lost:,} lost"
        grid.add_row("access log", Text(text, style="bold red"))
    return grid


def _redirection(each: View) -> Text:
    """Return where an entry point sends requests; routers with a higher priority come before it."""
    status = "permanently" if each["permanent"] else "for now"
    return Text(f"sends requests to {each['scheme']}, port {each['port']}, {status} ({each['router']})")


def _kernel_relay(each: View) -> Text:
    """Return of how many sessions the kernel moves the bytes, or why of none."""
    if not each["available"]:
        return Text(f"none: {each['reason']}", style="dim")
    words = Text(f"{each['sessions']:,} of the sessions, room for {each['capacity']:,}")
    others = [row for row in each["relays"] if row["relay"] != "kernel" and row["sessions"]]
    if others:
        words.append("; not of " + ", ".join(f"{row['sessions']:,} ({row['reason']})" for row in others))
    if each["stalls"]:
        words.append(f"; stuck {each['stalls']:,} times, see the log", style="bold red")
    return words


def _certificate(each: View) -> Text:
    """Return whose a certificate is and until when, in colour when it is time to do something."""
    if each["file"] is None:
        return Text(f"{each['subject']}, made at the start", style="yellow")
    names = ", ".join(each["names"][:_NAMES]) or each["subject"]
    if len(each["names"]) > _NAMES:
        names += f" and {len(each['names']) - _NAMES} more"
    if each["default"]:
        names += " (default)"
    day = each["notAfter"].partition("T")[0]
    ends = {"expired": f"expired on {day}", "expiring": f"expires on {day}"}.get(
        each["state"], f"until {day}"
    )
    return Text(
        f"{names}  {ends}", style={"expired": "bold red", "expiring": "yellow"}.get(each["state"], "")
    )


def _disabled_routers(routers: Sequence[View]) -> Iterable[tuple[str, Text]]:
    disabled = [each for each in routers if each["status"] == "disabled"]
    if disabled:
        words = f", {len(routers) - len(disabled):,} run"
        yield "routers", Text.assemble((f"{len(disabled):,} disabled", "bold red"), words)
    for each in disabled:
        for reason in each["error"]:
            yield "", Text(f"{each['name']}  {reason}", style="red")


def _session_totals(sessions: View) -> Text:
    ended = {cause: count for cause, count in sessions["ended"].items() if count}
    text = Text()
    text.append(f"{sessions['open']:,} open", "bold")
    text.append(f", {sessions['opened']:,} opened, {sum(ended.values()):,} ended")
    if ended:
        text.append(": " + ", ".join(f"{cause} {count:,}" for cause, count in ended.items()))
    return text


def _last_reload(outcome: View | None, now: datetime) -> Iterable[tuple[str, Text]]:
    if outcome is None:
        yield "last reload", Text("none")
        return
    ago = span((now - datetime.fromisoformat(outcome["finishedAt"])).total_seconds())
    if outcome["succeeded"]:
        yield "last reload", Text.assemble(("ok", "green"), f", {ago} ago, in {outcome['duration']:g} s")
        return
    count = len(outcome["problems"])
    words = f", {ago} ago: {count} problem{'' if count == 1 else 's'}, the old configuration stays in force"
    yield "last reload", Text.assemble(("failed", "bold red"), words)
    for problem in outcome["problems"]:
        yield "", Text(problem, style="red")


def _names(names: Sequence[View]) -> Iterable[tuple[str, Text]]:
    """Yield each name of servers that is resolved, with what it stands for and what is wrong."""
    for index, each in enumerate(names):
        count = each["endpoints"]
        words = f"{each['name']}  {count:,} backend{'' if count == 1 else 's'}"
        if each["problem"]:
            words += f", {each['problem']}"
        style = "" if not each["problem"] else "yellow" if count else "red"
        yield "" if index else "names", Text(words, style=style)


def _providers(providers: Sequence[View], now: datetime) -> Iterable[tuple[str, Text]]:
    """Yield how the Docker Engine stands, how many containers count, and each that is bad."""
    for each in providers:
        count = each["containers"]
        words = f"{count['used']:,} containers used, {count['ignored']:,} ignored"
        if each["state"] == "ok":
            line = Text(words)
        else:
            line = Text(f"{each['endpoint']} {each['state']}", style="bold red")
            ago = span((now - datetime.fromisoformat(each["since"])).total_seconds())
            line.append(f" for {ago}: {each['reason']}; {words}" if each["reason"] else f"; {words}", "red")
        if count["bad"]:
            line.append(f", {count['bad']:,} bad", "bold red")
        yield each["name"], line
        for bad in each["bad"]:
            for problem in bad["problems"]:
                yield "", Text(problem, style="red")


def _files(files: Sequence[View]) -> Iterable[tuple[str, Text]]:
    """Yield how many dynamic files there are, and each that is bad."""
    bad = [each for each in files if each["state"] == "bad"]
    if files:
        good = f"{len(files) - len(bad):,} ok"
        yield "dynamic files", Text.assemble(good, (f", {len(bad):,} bad", "bold red") if bad else "")
    for each in bad:
        since = f"{each['path']}  since {_local(each['since'])}, in force: {each['inForce']}"
        yield "", Text(since, style="red")
        for problem in each["problems"]:
            yield "", Text(problem, style="red")


def _backends(backends: list[View], *, wide: bool) -> RenderableType:
    if not backends:
        return Text("no backends", style="dim")
    table = _table()
    _columns(
        table, ("backend", False), ("state", False), ("weight", True), ("live", True), ("handshakes", True)
    )
    _columns(table, ("reported", True), ("foreign", True), ("age", True))
    # An address that DNS gave says little to people.
    pods = wide or any(each.get("dnsName") and each["podName"] for each in backends)
    if wide:
        _columns(table, ("load", True), ("opened", True), ("failures", True), ("drops", True))
    if pods:
        _columns(table, ("pod", False))
    for each in backends:
        stale = "yellow" if each.get("reportStale") else ""
        row = [
            Text(short_url(each["url"])),
            _state(each),
            _figure(each.get("weight")),
            _figure(each["live"]),
            _figure(each["handshakes"]),
            _figure(each.get("reported")),
            _foreign(each),
            Text(_age(each.get("reportAge")), style=stale),
        ]
        if wide:
            row += [_figure(each.get(key)) for key in ("load", "opened", "failures", "drops")]
        if pods:
            row.append(Text(each["podName"] or ""))
        table.add_row(*row)
    return table


def _rebalancing(view: View | None) -> str:
    if view is None or not view["running"]:
        return ""
    plan = view["plan"]
    return f"  rebalancing, {plan['shed'] + plan['kept']:,} of {plan['sessions']:,}"


def _drains(backends: list[View]) -> Iterable[Text]:
    for each in backends:
        drain = each.get("drain")
        if drain:
            words = f"{drain['ended']:,} ended, {drain['cut']:,} cut, {drain['left']:,} left"
            pace = f", {drain['currentRate']:g}/s" if drain["state"] == "draining" else ""
            yield Text(f"{short_url(each['url'])}: {drain['state']}: {words}{pace}", style="magenta")


def _health_problems(backends: list[View]) -> Iterable[Text]:
    for each in backends:
        health = each.get("health")
        if health and health["problem"]:
            style = "yellow" if health["up"] else "red"
            yield Text(f"{short_url(each['url'])}: check failed: {health['problem']}", style=style)


def _report_problems(backends: list[View]) -> Iterable[Text]:
    for each in backends:
        if each.get("reportProblem"):
            yield Text(f"{short_url(each['url'])}: no fresh report: {each['reportProblem']}", style="yellow")


def _state(backend: View) -> Text:
    state: str = backend["state"]
    words = f"cooling {backend['coolDownLeft']:.0f}s" if state == "cooling_down" else state
    return Text(words, style=_STATE_STYLES.get(state, "yellow"), no_wrap=True)


def _foreign(backend: View) -> Text:
    foreign = backend.get("foreign")
    if foreign and backend["reported"] is None:
        return Text(f"~{foreign:,}", style="dim")
    return _figure(foreign)


def _figure(number: int | None) -> Text:
    return Text("-" if number is None else f"{number:,}", style="" if number else "dim")


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else span(seconds).partition(" ")[0]


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), header_style="dim")


def _columns(table: Table, *columns: tuple[str, bool]) -> None:
    """Add columns; those of numbers stand at the right and are never cut, the others are folded if need be."""
    for name, number in columns:
        if number:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")


def _now(document: View) -> datetime:
    """Return the daemon's time: ages do not depend on when the screen is drawn."""
    return datetime.fromisoformat(document["startedAt"]) + timedelta(seconds=document["uptime"])


def _local(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
