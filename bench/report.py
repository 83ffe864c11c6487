"""From samples to what is shown: medians, ratios, targets, and the tables. Pure: nothing here is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from attrs import frozen

from bench.native import Figures

OURS = "trio-wsb"
DIRECT = "direct"


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
    """What trio-wsb has to reach: a median, as it is or in proportion to another peer's.

    With `over`, the figure of `peer` is divided by that of `over`; "best proxy" means the best peer that is
    not direct.
    """

    title: str
    scenario: str
    figure: str
    at_least: float | None = None
    at_most: float | None = None
    peer: str = OURS
    over: str | None = None


BEST_PROXY = "best proxy"

ROUTED = "trio-wsb-routed"

TARGETS = (
    Target("Echo beside nginx", "echo", "messages_per_s", at_least=0.30, over="nginx"),
    Target(
        "Handshakes with ten routers, rate limit and headers beside those without",
        "handshakes",
        "handshakes_per_s",
        at_least=0.87,  # at most 15 % more time for each
        peer=ROUTED,
        over=OURS,
    ),
    Target("RSS per idle session (bytes)", "idle", "bytes_per_session", at_most=14_000),
    Target(
        "Direct beside the best proxy (is the bench itself the limit?)",
        "echo",
        "messages_per_s",
        at_least=2.5,
        peer=DIRECT,
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
    """One scenario for the report: its name in `Sample`, its title, and its main figure."""

    scenario: str
    title: str
    figure: str


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
    others = peers_of(samples) if target.over == BEST_PROXY else [target.over]
    found = [
        other.median
        for peer in others
        if peer != target.peer and (other := summary(samples, target.scenario, peer, target.figure))
    ]
    return own.median / max(found) if found and max(found) > 0 else None


def peers_of(samples: Iterable[Sample]) -> list[str]:
    """Return the peers that were measured, in the order of their first sample."""
    return list(dict.fromkeys(sample.peer for sample in samples))


_PREFACE = (
    "Written by `make bench`. All on one machine and loopback addresses, load generator and backends included, "
    "so that only the proportions between the columns say something about another machine. "
    "The peers take turns in every round, each with a freshly started process and the same three echo backends; "
    "figures are medians over the rounds, with the lowest and the highest. "
    "Every echoed byte and every `Sec-WebSocket-Accept` was checked while measuring."
)

_NOTES = (
    "*Echo* is a closed loop: each session sends its next message when the last one is back. "
    "*Handshakes* connect, upgrade with a head as browsers send it, and drop the connection. "
    "*RSS per idle session* is how much the proxy's processes grow for each session beyond the first hundred, "
    "which stay open; what is allocated once is not in it, nor what the kernel keeps for the sockets. "
    "*Proxy CPU* is in cores: near 1.00, one worker or one Python thread has nothing left."
)


def markdown(
    samples: Sequence[Sample],
    tables: Sequence[Table],
    about: Mapping[str, str],
    targets: Sequence[Target] = TARGETS,
) -> str:
    """Return the report as a Markdown page: what was measured on what, the figures, the targets if any."""
    peers = peers_of(samples)
    lines = [
        "# Benchmarks",
        "",
        _PREFACE,
        "",
        *(f"- {name}: {value}" for name, value in about.items()),
        "",
        _row(["", *peers, *_ratio_heads(peers)]),
        _row(["---", *("---:" for _ in [*peers, *_ratio_heads(peers)])]),
        *(_row(row) for row in rows(samples, tables)),
        "",
        _NOTES,
        "",
    ]
    if targets:
        lines += ["| target | wanted | measured | |", "| --- | ---: | ---: | --- |"]
        lines += [_row(_verdict_row(verdict)) for verdict in judge(samples, targets)]
        lines += [""]
    return "\n".join(lines)


_DETAILS = (
    ("p50_us", "p50 (µs)"),
    ("p99_us", "p99 (µs)"),
    ("p999_us", "p99.9 (µs)"),
    ("proxy_cores", "proxy CPU (cores)"),
)


def rows(samples: Sequence[Sample], tables: Sequence[Table]) -> list[list[str]]:
    """One row a figure: its title, each peer's, and our ratio to each other proxy."""
    peers = peers_of(samples)
    made = []
    for table in tables:
        for figure, title in ((table.figure, table.title), *((name, f"- {text}") for name, text in _DETAILS)):
            found = {peer: summary(samples, table.scenario, peer, figure) for peer in peers}
            if not any(found.values()):
                continue
            ours = found.get(OURS)
            ratios = [
                f"{ours.median / other.median:.2f}"
                if ours and (other := found[peer]) and other.median
                else ""
                for peer in _compared(peers)
            ]
            made.append([title, *(_cell(found[peer]) for peer in peers), *ratios])
    return made


def _compared(peers: Sequence[str]) -> list[str]:
    return [peer for peer in peers if peer not in (OURS, DIRECT)] if OURS in peers else []


def _ratio_heads(peers: Sequence[str]) -> list[str]:
    return [f"{OURS} / {peer}" for peer in _compared(peers)]


def _verdict_row(verdict: Verdict) -> list[str]:
    target = verdict.target
    wanted = f"≥ {format_number(target.at_least)}" if target.at_least is not None else ""
    if target.at_most is not None:
        wanted = f"≤ {format_number(target.at_most)}"
    return [
        target.title,
        wanted,
        "" if verdict.actual is None else format_number(verdict.actual),
        verdict.word,
    ]


def _cell(found: Summary | None) -> str:
    if found is None:
        return ""
    if found.lowest == found.highest:
        return format_number(found.median)
    return f"{format_number(found.median)} ({format_number(found.lowest)}–{format_number(found.highest)})"  # noqa: RUF001


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def format_number(value: float) -> str:
    """Three or more significant digits, thousands apart: ``93,400``, ``412``, ``2.31``."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
