"""From samples to what is shown: medians, ratios, targets, and the tables. Pure: nothing here is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from attrs import frozen

from bench.native import Figures

DIRECT = "direct"
NGINX = "nginx"
KERNEL = "trio-wsb-kernel"
STREAM = "trio-wsb-stream"
ROUTED = "trio-wsb-routed"
BLIND = "trio-wsb-blind"
OURS = frozenset({KERNEL, STREAM, ROUTED, BLIND})

CARD = "packets as from a network card"
"""How the second measurement of small messages differs from the first, in titles."""

BEST_OTHER = "the best other proxy"
"""In `Target.over`: the best of those that are neither ours nor direct."""
BEST_PROXY = "the best proxy"
"""In `Target.over`: the best of all that are not direct."""


@frozen
class Sample:
    """What one peer reached in one scenario of one round."""

    scenario: str
    peer: str
    round: int
    figures: Figures


@frozen
class Summary:
    """One figure over all rounds."""

    median: float
    lowest: float
    highest: float


@frozen
class Target:
    """What a peer, one of ours most of the time, has to reach: a median, as it is or in proportion to another peer's.

    With `over`, the figure of `peer` is divided by that peer's, or by the best of several; the best is the lowest where
    the bound is `at_most`.
    """

    title: str
    scenario: str
    figure: str
    peer: str
    at_least: float | None = None
    at_most: float | None = None
    over: str | tuple[str, ...] | None = None


TARGETS = (
    Target("64 B beside nginx", "echo-64-20", "messages_per_s", KERNEL, at_least=0.85, over=NGINX),
    Target("1 KiB beside nginx", "echo-1k-20", "messages_per_s", KERNEL, at_least=0.85, over=NGINX),
    Target("16 KiB beside the best", "echo-16k-20", "messages_per_s", KERNEL, at_least=1.0, over=BEST_OTHER),
    Target("64 KiB beside the best", "echo-64k-20", "messages_per_s", KERNEL, at_least=1.3, over=BEST_OTHER),
    Target("p99.9 at 64 B beside the best", "echo-64-20", "p999_us", KERNEL, at_most=1.0, over=BEST_OTHER),
    Target("CPU for each message of 64 B beside nginx", "rate-64", "cpu_us", KERNEL, at_most=1.0, over=NGINX),
    Target(
        f"64 B beside nginx, {CARD}", "echo-64-20-card", "messages_per_s", KERNEL, at_least=0.85, over=NGINX
    ),
    Target(
        f"1 KiB beside nginx, {CARD}", "echo-1k-20-card", "messages_per_s", KERNEL, at_least=0.85, over=NGINX
    ),
    Target(
        f"p99.9 at 64 B beside the best, {CARD}",
        "echo-64-20-card",
        "p999_us",
        KERNEL,
        at_most=1.0,
        over=BEST_OTHER,
    ),
    Target(
        f"CPU for each message of 64 B beside nginx, {CARD}",
        "rate-64-card",
        "cpu_us",
        KERNEL,
        at_most=1.0,
        over=NGINX,
    ),
    Target(
        "64 B beside one that does not follow frames",
        "echo-64-20",
        "messages_per_s",
        KERNEL,
        at_least=0.95,
        over=BLIND,
    ),
    Target(
        "64 KiB beside one that does not follow frames",
        "echo-64k-20",
        "messages_per_s",
        KERNEL,
        at_least=0.97,
        over=BLIND,
    ),
    Target("64 B beside nginx", "echo-64-20", "messages_per_s", STREAM, at_least=0.33, over=NGINX),
    Target(
        "64 KiB beside nginx and HAProxy",
        "echo-64k-20",
        "messages_per_s",
        STREAM,
        at_least=1.0,
        over=(NGINX, "haproxy"),
    ),
    Target(
        "Handshakes beside Traefik", "handshakes", "handshakes_per_s", STREAM, at_least=0.8, over="traefik"
    ),
    Target(
        "Handshakes beside Traefik", "handshakes", "handshakes_per_s", KERNEL, at_least=0.8, over="traefik"
    ),
    Target(
        "Handshakes with ten routers, rate limit and headers beside those without",
        "handshakes",
        "handshakes_per_s",
        ROUTED,
        at_least=0.87,  # at most 15 % more time for each
        over=STREAM,
    ),
    Target("RSS of an idle session (bytes)", "idle", "bytes_per_session", STREAM, at_most=13_000),
    Target("RSS of an idle session (bytes)", "idle", "bytes_per_session", KERNEL, at_most=13_000),
    Target("Choosing among 1,000 backends adds (µs)", "choose", "added_us", STREAM, at_most=50),
    Target("A reload stalls a message for (µs)", "reload", "max_us", STREAM, at_most=50_000),
    Target("A reload stalls a message for (µs)", "reload", "max_us", KERNEL, at_most=50_000),
    Target(
        "64 B beside the best proxy: is the bench itself the limit?",
        "echo-64-20",
        "messages_per_s",
        DIRECT,
        at_least=2.5,
        over=BEST_PROXY,
    ),
)


@frozen
class Verdict:
    """How a target fared; `actual` is None when it was not measured in this run."""

    target: Target
    actual: float | None

    @property
    def met(self) -> bool:
        """Whether the target was measured and reached."""
        target = self.target
        return (
            self.actual is not None
            and (target.at_least is None or self.actual >= target.at_least)
            and (target.at_most is None or self.actual <= target.at_most)
        )

    @property
    def word(self) -> str:
        """``ok``, ``MISSED`` or ``not measured``."""
        return "not measured" if self.actual is None else "ok" if self.met else "MISSED"


@frozen
class Table:
    """One scenario for the report: its name in `Sample`, its title, its main figure with the unit, and further ones."""

    scenario: str
    title: str
    figure: str
    unit: str
    columns: tuple[tuple[str, str], ...] = ()


def summary(samples: Iterable[Sample], scenario: str, peer: str, figure: str) -> Summary | None:
    """Return the median and the range of one figure of one peer, or None where nothing has it."""
    values = [
        sample.figures[figure]
        for sample in samples
        if sample.scenario == scenario and sample.peer == peer and figure in sample.figures
    ]
    return Summary(median(values), min(values), max(values)) if values else None


def judge(samples: Sequence[Sample], targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """How each target fared."""
    return [Verdict(target, _actual(samples, target)) for target in targets]


def _actual(samples: Sequence[Sample], target: Target) -> float | None:
    own = summary(samples, target.scenario, target.peer, target.figure)
    if own is None or target.over is None:
        return own.median if own else None
    found = [
        other.median
        for peer in _others(samples, target)
        if (other := summary(samples, target.scenario, peer, target.figure))
    ]
    if not found:
        return None
    best = max(found) if target.at_most is None else min(found)
    return own.median / best if best > 0 else None


def _others(samples: Sequence[Sample], target: Target) -> Sequence[str]:
    match target.over:
        case str() as name if name == BEST_OTHER:
            return [peer for peer in peers_of(samples) if peer != DIRECT and peer not in OURS]
        case str() as name if name == BEST_PROXY:
            return [peer for peer in peers_of(samples) if peer not in {DIRECT, target.peer}]
        case str() as name:
            return [name]
        case names:
            return names or ()


def peers_of(samples: Iterable[Sample]) -> list[str]:
    """Return the peers that were measured, in the order of their first sample."""
    return list(dict.fromkeys(sample.peer for sample in samples))


_PREFACE = (
    "Written by `make bench`. All on one machine and loopback addresses, load generator and backends included, "
    "so that only the proportions say something about another machine. "
    "The peers take turns in every round, each with a freshly started process and the same three echo backends; "
    "figures are medians over the rounds, with the lowest and the highest. "
    "Every echoed byte and every `Sec-WebSocket-Accept` was checked while measuring."
)

_NOTES = (
    "*trio-wsb-kernel* and *trio-wsb-stream* differ in `relay` alone; *trio-wsb-blind* is the former with a program that does not "
    "look at frames; *trio-wsb-routed* is *trio-wsb-stream* with ten routers, a rate limit and a headers middleware. *nginx* has one worker, *nginx-auto* one for each CPU, as HAProxy, Traefik and Caddy have threads. "
    "*Echo* is a closed loop: each session sends its next message when the last one is back. "
    "*Packets as from a network card*: on the loopback interface a packet is received inside the call that sends it, on the sender's CPU, "
    "so that whatever a proxy does in the kernel interrupts the sender; from a network card it comes by an interrupt, on the CPU that its flow belongs to, and so it "
    "does there, by receive packet steering in a network namespace of its own. "
    "A proxy has had a second and a half since its start by then. "
    "A message through a proxy passes two connections, *direct* one: where the kernel's TCP is nearly all the cost, as with small messages, "
    "a proxy that took no time itself would come to half of *direct*. The bench's own programs use a twentieth of what it costs. "
    "*Handshakes* connect, upgrade with a head as browsers send it, and drop the connection. "
    "*RSS* is how much the proxy's processes grow for each session beyond the first hundred, which stay open; what is "
    "allocated once is not in it, nor what the kernel keeps for the sockets. "
    "*Proxy CPU* is in cores: near 1.00, one worker or one Python thread has nothing left. What the kernel does for a session "
    "in nobody's name is not in it; *µs of all CPUs* has everything."
)


def markdown(
    samples: Sequence[Sample],
    tables: Sequence[Table],
    about: Mapping[str, str],
    targets: Sequence[Target] = TARGETS,
    pictures: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the report as a Markdown page.

    Args:
      samples: what was measured.
      tables: what to show of it.
      about: date, machine and the like.
      targets: what is to be judged, if anything.
      pictures: titles and paths of plots.

    """
    lines = ["# Benchmarks", "", _PREFACE, "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    if targets:
        lines += [
            "## Targets",
            "",
            "| who | what | wanted | measured | |",
            "| --- | --- | ---: | ---: | --- |",
        ]
        lines += [_row(_verdict_row(verdict)) for verdict in judge(samples, targets)]
        lines += [""]
    for title, path in pictures:
        lines += [f"![{title}]({path})", ""]
    for table in tables:
        found = rows(samples, table)
        if found:
            lines += [f"## {table.title}", "", *map(_row, found), ""]
    return "\n".join([*lines, "## What the words mean", "", _NOTES, ""])


def rows(samples: Sequence[Sample], table: Table) -> list[list[str]]:
    """Return the table: a head, its line, and a row for each peer that has the figure, with its ratio to nginx."""
    columns = [
        (name, title)
        for name, title in table.columns
        if any(summary(samples, table.scenario, peer, name) for peer in peers_of(samples))
    ]
    head = ["", table.unit, "beside nginx", *(title for _, title in columns)]
    made = [head, ["---", *("---:" for _ in head[1:])]]
    nginx = summary(samples, table.scenario, NGINX, table.figure)
    for peer in peers_of(samples):
        found = summary(samples, table.scenario, peer, table.figure)
        if found is None:
            continue
        ratio = f"{found.median / nginx.median:.2f}" if nginx and nginx.median > 0 < found.median else ""
        further = (summary(samples, table.scenario, peer, name) for name, _ in columns)
        made.append(
            [
                peer,
                _cell(found),
                ratio,
                *("" if each is None else format_number(each.median) for each in further),
            ]
        )
    return made if len(made) > 2 else []


def _verdict_row(verdict: Verdict) -> list[str]:
    target = verdict.target
    wanted = f"≥ {format_number(target.at_least)}" if target.at_least is not None else ""
    if target.at_most is not None:
        wanted = f"≤ {format_number(target.at_most)}"
    actual = "" if verdict.actual is None else format_number(verdict.actual)
    return [target.peer, target.title, wanted, actual, verdict.word]


def _cell(found: Summary) -> str:
    if found.lowest == found.highest:
        return format_number(found.median)
    return f"{format_number(found.median)} ({format_number(found.lowest)}–{format_number(found.highest)})"  # noqa: RUF001


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def format_number(value: float) -> str:
    """Three or more significant digits, thousands apart: ``93,400``, ``412``, ``2.31``."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
