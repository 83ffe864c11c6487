"""What the demo looks like: its state as a `Scene`, and how a scene is drawn with rich.

Everything fits 80 columns and 24 lines; wider terminals get longer bars. Without colours, or without
Unicode, the bars' characters tell foreign connections and sessions apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field, frozen
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from trio_wsb.demo.stage import Reading, allowed_spread, spread
from trio_wsb.demo.totals import Totals, milliseconds

EVENTS_SHOWN = 7
MAX_WIDTH = 140
"""Columns; beyond them bars only get harder to compare with their figures."""

_FOREIGN = Style(color="yellow")
_LIVE = Style(color="green")


@frozen
class Event:
    """Something that happened, `at` seconds from the start."""

    at: float
    text: str


@define
class Scene:
    """What there is to see at one moment. Times are seconds."""

    clients: int
    elapsed: float = 0.0
    caption: str = ""
    """What is going on and what comes next, in a sentence or two."""
    readings: list[Reading] = field(factory=list)
    totals: Totals = field(factory=Totals)
    events: list[Event] = field(factory=list)
    unclean: list[str] = field(factory=list)
    """Processes that did not end as they should when asked to."""


@frozen
class Bar:
    """A backend's connections, foreign first, on a scale where `scale` fills the width."""

    reading: Reading
    scale: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw as wide as there is room."""
        unicode = options.encoding.startswith("utf")
        width = max(1, options.max_width - 1)
        total = round(width * self.reading.total / max(1, self.scale))
        foreign = min(total, round(width * self.reading.foreign / max(1, self.scale)))
        yield Segment(("▒" if unicode else "-") * foreign, _FOREIGN)
        yield Segment(("█" if unicode else "#") * (total - foreign), _LIVE)
        yield Segment(" " * (width - total))
        yield Segment.line()


def bars(readings: Sequence[Reading]) -> Table:
    """Return the table of backends."""
    table = Table(expand=True, box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("backend", no_wrap=True)
    table.add_column("connections", ratio=1, no_wrap=True)
    table.add_column("foreign", justify="right", no_wrap=True)
    table.add_column("sessions", justify="right", no_wrap=True)
    table.add_column("total", justify="right", no_wrap=True)
    scale = max([reading.total for reading in readings], default=0)
    for reading in readings:
        known = reading.reported is not None
        table.add_row(
            Text(reading.name, style="bold"),
            Bar(reading, scale),
            Text(str(reading.foreign), style=_FOREIGN),
            Text(str(reading.live) if known else "?", style=_LIVE),
            Text(str(reading.total) if known else "?", style="bold"),
        )
    return table


def figures(scene: Scene) -> Text:
    """Return the lines below the table: how far the counts are apart, and how the clients fare."""
    totals = scene.totals
    apart = spread(scene.readings)
    lost_style = "bold red" if totals.lost_sessions else "bold green"
    text = Text()
    text.append("apart by ")
    text.append(str(apart), "bold green" if apart <= allowed_spread(scene.readings) else "bold yellow")
    text.append(f"   clients {totals.open}/{scene.clients}   lost ")
    text.append(str(totals.lost_sessions), lost_style)
    text.append(f"   echoes {totals.messages:,}   p50 {milliseconds(totals.p50)}")
    text.append(f"  p99 {milliseconds(totals.p99)}")
    if totals.failed:
        text.append(f"\n{totals.failed} attempts to connect failed: {totals.last_failure}", "bold red")
    return text


def legend(encoding: str) -> Text:
    """Return what the bars' characters mean."""
    foreign, live = ("▒", "█") if encoding.startswith("utf") else ("-", "#")
    text = Text()
    text.append(foreign * 2, _FOREIGN)
    text.append(" foreign: connections that did not come through the balancer   ", "dim")
    text.append(live * 2, _LIVE)
    text.append(" our sessions", "dim")
    return text


def picture(scene: Scene, encoding: str = "utf-8") -> RenderableType:
    """Return the whole live picture."""
    title = Table.grid(expand=True)
    title.add_column()
    title.add_column(justify="right")
    title.add_row(Text("trio-wsb demo", style="bold"), Text(f"{scene.elapsed:.0f} s", style="dim"))
    return Group(
        title,
        Padding(Text(scene.caption), (1, 0)),
        bars(scene.readings),
        Text(),
        figures(scene),
        legend(encoding),
        Text(),
        *(event_line(event) for event in scene.events[-EVENTS_SHOWN:]),
    )


def event_line(event: Event) -> Text:
    """Return an event as a line."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{event.at:6.1f} s  ", "dim")
    text.append(event.text)
    return text


@frozen
class Verdict:
    """One thing that the demo judges; `good` is None when it ended too early to judge."""

    subject: str
    finding: str
    good: bool | None


def judge(scene: Scene, *, complete: bool) -> list[Verdict]:
    """Return the verdicts on a demo that has ended; `complete` when every client had connected."""
    totals = scene.totals
    apart, allowed = spread(scene.readings), allowed_spread(scene.readings)
    counts = ", ".join(str(reading.total) for reading in scene.readings) or "none"
    codes = ", ".join(f"{code}: {count}" for code, count in totals.lost.items())
    level = (apart <= allowed) if complete else None
    return [
        Verdict("connections", f"{counts}: apart by {apart}, allowed {allowed}", level),
        Verdict("sessions lost", f"{totals.lost_sessions} of {totals.opened}{f' ({codes})' if codes else ''}", not totals.lost_sessions),
        Verdict("clients refused", f"{totals.never_opened} of {scene.clients}", (not totals.never_opened) if complete else None),
        Verdict("wrong echoes", f"{totals.wrong} of {totals.messages:,}", not totals.wrong),
        Verdict("processes", ", ".join(scene.unclean) or "all ended when asked", not scene.unclean),
    ]  # fmt: skip


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the verdicts as a table."""
    words = {
        True: Text("PASS", style="bold green"),
        False: Text("FAIL", style="bold red"),
        None: Text("ended too early", style="yellow"),
    }
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column()
    table.add_column(no_wrap=True)
    for verdict in verdicts:
        table.add_row(verdict.subject, Text(verdict.finding, style="bold"), words[verdict.good])
    return table
