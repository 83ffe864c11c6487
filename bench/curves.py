"""The curves of docs/explanation/rebalance.md: ``python -m bench.curves docs/explanation``.

Simulated in virtual time with the daemon's own code (`bench.fleet`), seeded, so that the same code draws the same pictures.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import structlog
import trio
import trio.testing
from attrs import frozen

from bench.fleet import SERVICE, Fleet, Sample, Scenario, scale_out
from trio_wsb.balancing.moving import RebalancePolicy
from trio_wsb.balancing.rebalance import Figure, Rebalance, Verdict, make_plan

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 34, 34
OLD, NEW, AWAY = "#1f6feb", "#d4650a", "#888888"


@frozen
class Panel:
    """One picture: a scenario and what to call it. `lines` draws each backend, else the range of the old and the new ones."""

    title: str
    scenario: Scenario
    lines: bool = False
    state: Callable[[], Rebalance] | None = None


class Forgetful(Rebalance):
    """What happens without counting sessions on their way back, for comparison."""

    def missing(self, figures: Sequence[Figure], now: float) -> int:  # noqa: ARG002 - its signature
        """See `Rebalance.missing`."""
        return 0

    def look(
        self,
        figures: Sequence[Figure],
        tolerance: float,
        now: float,  # noqa: ARG002
        rng: object,
        *,
        wanted: bool = False,  # noqa: ARG002
    ) -> Verdict:
        """See `Rebalance.look`."""
        if self.plan is not None:
            return Verdict("running")
        return make_plan(figures, tolerance, rng)  # type: ignore[arg-type]  # the same generator


def _policy(rate: float) -> RebalancePolicy:
    return RebalancePolicy(enabled=True, rate=rate, min_age=0.0)


SLOW = scale_out(3, 1, 400, policy=_policy(50.0), reconnect=(5.0, 120.0), duration=900.0)

PICTURES: dict[str, tuple[Panel, ...]] = {
    "rebalance-scale-out.svg": (
        Panel(
            "10 backends, 4 of them new, 10/s",
            scale_out(6, 4, 100, policy=_policy(10.0), duration=120.0),
            lines=True,
        ),
        Panel("100 backends, 40 new, 20/s", scale_out(60, 40, 50, policy=_policy(20.0), duration=150.0)),
        Panel("1,000 backends, 300 new, 50/s", scale_out(700, 300, 20, policy=_policy(50.0), duration=180.0)),
    ),
    "rebalance-stability.svg": (
        Panel("clients that take 5 s to 2 min to return", SLOW, lines=True),
        Panel("the same without counting them", SLOW, lines=True, state=Forgetful),
        Panel(
            "three balancers, reports every 30 s",
            scale_out(6, 4, 300, balancers=3, policy=_policy(5.0), duration=900.0),
            lines=True,
        ),
    ),
}


def simulate(panel: Panel, every: float) -> list[Sample]:
    """Return what happens in a panel's scenario."""
    samples: list[Sample] = []

    async def main() -> None:
        fleet = Fleet(panel.scenario)
        if panel.state is not None:
            for balancer in fleet.balancers:
                balancer.rebalancer.states[SERVICE] = panel.state()
        await fleet.run(every)
        samples.extend(fleet.samples)

    # Trio shuffles tasks that are due together; the pictures must not depend on it.
    scheduler: Any = trio._core._run  # noqa: SLF001
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # noqa: SLF001
    scheduler._r.seed(0)  # noqa: SLF001
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return samples


def picture(panels: Sequence[tuple[Panel, list[Sample]]]) -> str:
    """Return panels beside each other as an SVG document."""
    width = WIDTH * len(panels)
    size = f'viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for number, (panel, samples) in enumerate(panels):
        parts += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(panel, samples), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, samples: list[Sample]) -> list[str]:
    scenario = panel.scenario
    old = [index for index, load in enumerate(scenario.loads) if load]
    new = [index for index, load in enumerate(scenario.loads) if not load]
    end = samples[-1].time
    top = max(load for sample in samples for load in sample.loads) * 1.05

    def point(time: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * time / end
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top
        return f"{x:.1f},{y:.1f}"

    mean = sum(scenario.loads) / len(scenario.loads)
    parts = [
        f'<text x="{LEFT}" y="18" font-weight="bold">{escape(panel.title)}</text>',
        *_axes(point, end, top),
    ]
    for indices, colour in ((old, OLD), (new, NEW)):
        if panel.lines:
            for index in indices:
                points = " ".join(point(sample.time, sample.loads[index]) for sample in samples)
                parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1"/>')
        else:
            high = [point(each.time, max(each.loads[i] for i in indices)) for each in samples]
            low = [point(each.time, min(each.loads[i] for i in indices)) for each in samples]
            shape = " ".join([*high, *reversed(low)])
            parts.append(f'<polygon points="{shape}" fill="{colour}" fill-opacity="0.35" stroke="{colour}"/>')
    first, last = point(0, mean).split(","), point(end, mean).split(",")
    parts.append(
        f'<line x1="{first[0]}" y1="{first[1]}" x2="{last[0]}" y2="{last[1]}" stroke="{AWAY}" stroke-dasharray="4 3"/>'
    )
    return parts


def _axes(point: Callable[[float, float], str], end: float, top: float) -> list[str]:
    left, floor = point(0, 0).split(",")
    right = point(end, 0).split(",")[0]
    ceiling = point(0, top).split(",")[1]
    parts = [
        f'<path d="M{left},{ceiling} V{floor} H{right}" fill="none" stroke="#333333"/>',
        f'<text x="{left}" y="{HEIGHT - 6}">seconds</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        x = point(end * share, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - 20}" text-anchor="middle">{end * share:.0f}</text>')
        y = point(0, top / 1.05 * share).split(",")[1]
        parts.append(f'<text x="{LEFT - 5}" y="{y}" text-anchor="end">{top / 1.05 * share:.0f}</text>')
    return parts


def main(folder: Path) -> None:
    """Draw every picture into `folder`."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for name, panels in PICTURES.items():
        drawn = [(panel, simulate(panel, panel.scenario.duration / 120)) for panel in panels]
        (folder / name).write_text(picture(drawn), "utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
