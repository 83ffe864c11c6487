"""Pictures of a run: a chart of bars for each question, as SVG, written without a library. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from attrs import frozen

from bench.report import DIRECT, NGINX, OURS, ROUTED, Sample, Table, format_number, peers_of, summary

WIDTH, LABELS, NUMBERS = 860, 150, 150
BAR, GAP, TITLE, PANEL_GAP = 15, 5, 30, 18

OURS_COLOUR, OTHERS_COLOUR, INK = "#0b7285", "#adb5bd", "#343a40"


@frozen
class Picture:
    """Charts on one sheet: the file's name without its ending, a title, and the names of the scenarios."""

    name: str
    title: str
    scenarios: tuple[str, ...]


PICTURES = (
    Picture(
        "bench-echo",
        "Messages per second in a closed loop",
        (
            "echo-64-20",
            "echo-1k-20",
            "echo-16k-20",
            "echo-64k-20",
            "echo-1k-1000",
            "echo-64-20-card",
            "echo-1k-20-card",
        ),
    ),
    Picture(
        "bench-cost",
        "What a message, a handshake and an idle session cost",
        ("rate-64", "rate-64-card", "handshakes", "idle", "storm"),
    ),
)


def picture(samples: Sequence[Sample], tables: Sequence[Table], which: Picture) -> str | None:
    """Return the SVG, or None where nothing of it was measured.

    `direct` is left out: it is a limit, and beside it the others would all look alike.
    """
    parts: list[str] = []
    top = TITLE + PANEL_GAP
    for table in tables:
        if table.scenario not in which.scenarios:
            continue
        bars = [
            (peer, found.median)
            for peer in peers_of(samples)
            if peer not in {DIRECT, ROUTED}
            and (found := summary(samples, table.scenario, peer, table.figure))
        ]
        if bars:
            drawn, height = _panel(table, bars, top)
            parts += drawn
            top += height + PANEL_GAP
    if not parts:
        return None
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="17" font-weight="bold" fill="{INK}">{escape(which.title)}</text>',
        *parts,
        "</svg>",
        "",
    ])  # fmt: skip


def _panel(table: Table, bars: Sequence[tuple[str, float]], top: int) -> tuple[list[str], int]:
    most = max(value for _, value in bars) or 1.0
    nginx = dict(bars).get(NGINX)
    room = WIDTH - LABELS - NUMBERS
    made = [
        f'<text x="12" y="{top + 14}" font-weight="bold" fill="{INK}">{escape(f"{table.title}: {table.unit}")}</text>'
    ]
    y = top + TITLE - 6
    for peer, value in bars:
        colour = OURS_COLOUR if peer in OURS else OTHERS_COLOUR
        width = max(1.0, room * max(0.0, value) / most)
        ratio = f" ({value / nginx:.2f})" if nginx and nginx > 0 else ""
        base = y + BAR - 3
        made += [
            f'<text x="{LABELS - 8}" y="{base}" text-anchor="end" fill="{INK}">{escape(peer)}</text>',
            f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LABELS + width + 6:.1f}" y="{base}" fill="{INK}">{format_number(value)}{ratio}</text>',
        ]
        y += BAR + GAP
    return made, y - top
