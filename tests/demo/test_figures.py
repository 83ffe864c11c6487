"""The demo's arithmetic and pictures: latencies, totals, plan, configuration, verdicts."""

from __future__ import annotations

import io
import math
import socket

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from trio_wsb.demo.latency import Latencies
from trio_wsb.demo.stage import (
    PORTS,
    DemoOptions,
    Reading,
    allowed_spread,
    configuration,
    free_port,
    make_plan,
    spread,
)
from trio_wsb.demo.totals import Totals, add, parse_totals
from trio_wsb.demo.view import Event, Scene, bars, figures, judge, picture, verdict_table


@given(st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_within_a_bucket(values: list[float], fraction: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    exact = sorted(values)[math.ceil(fraction * len(values)) - 1]
    assert exact <= latencies.quantile(fraction) * 1.0001 <= exact * 1.04


def test_quantiles_at_the_edges() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) == 0.0
    latencies.record(0.0)
    latencies.record(1e9)
    assert latencies.quantile(0.5) < 1e-5
    assert latencies.count == 2
    assert latencies.quantile(1.0) > 100


def test_totals_go_through_json() -> None:
    totals = Totals(elapsed=1.5, clients=3, open=2, opened=3, lost={"1006": 1}, p50=0.001, last_failure="x")
    assert parse_totals(totals.json_line("progress")) == totals


@pytest.mark.parametrize("line", ["", "[]", "{}", "nonsense", "3"])
def test_other_lines_are_no_totals(line: str) -> None:
    with pytest.raises(ValueError):
        parse_totals(line)


def test_totals_add_up() -> None:
    total = add(
        Totals(clients=1, opened=1, lost={"1006": 1}, p99=3),
        Totals(clients=2, opened=5, lost={"1006": 2, "1001": 1}, p99=2),
    )
    assert (total.clients, total.opened, total.lost, total.p99) == (3, 6, {"1006": 3, "1001": 1}, 3)
    assert total.lost_sessions == 4
    assert not total.good
    assert Totals(clients=1, opened=1).good
    assert not Totals(wrong=1).good
    assert not Totals(never_opened=1).good


def test_totals_as_text() -> None:
    totals = Totals(
        elapsed=2,
        clients=3,
        open=2,
        opened=3,
        failed=1,
        lost={"1006": 1},
        messages=7,
        p50=0.0012,
        p99=0.02,
        last_failure="refused",
    )
    assert totals.line().strip().split("  ") == [
        "2.0s",
        "open 2/3",
        "lost 1",
        "messages 7",
        "p50 1.2 ms",
        "p99 20 ms",
        "failed 1 (refused)",
    ]
    assert "sessions lost:   1 (1006: 1)" in totals.summary()


@given(st.integers(8, 10_000), st.floats(0, 600))
def test_the_plan_comes_out_even(clients: int, duration: float) -> None:
    """Water-filling with the plan's numbers levels the first three, then all four backends."""
    plan = make_plan(DemoOptions(clients=clients, duration=duration))
    assert plan.first_wave + plan.second_wave == clients
    assert plan.rate > 0
    counts = list(plan.foreign)
    for _ in range(plan.first_wave):
        counts[counts.index(min(counts))] += 1
    assert max(counts) - min(counts) <= 1
    counts.append(0)
    for _ in range(plan.second_wave):
        counts[counts.index(min(counts))] += 1
    assert max(counts) - min(counts) <= 2


def test_spread() -> None:
    readings = [Reading("a", 5, 110), Reading("b", 50, 112), Reading("c", 7, None)]
    assert spread([]) == 0
    assert spread(readings[:2]) == 2
    assert allowed_spread(readings[:2]) == 2
    assert allowed_spread([Reading("a", 0, 1000)]) == 20
    assert [reading.live for reading in readings] == [105, 62, 0]
    assert readings[2].total == 7


def test_the_configuration_is_the_short_form() -> None:
    document = yaml.safe_load(
        configuration(18000, 18001, "/tmp/control.sock", ["http://127.0.0.1:1", "http://127.0.0.1:2"])
    )
    assert document["wsbalancer"] == {
        "metricPath": "/metric",
        "pods": ["http://127.0.0.1:1", "http://127.0.0.1:2"],
        "cacheTTL": "2s",
    }
    assert document["entryPoints"] == {
        "web": {"address": "127.0.0.1:18000"},
        "admin": {"address": "127.0.0.1:18001"},
    }


def test_a_free_port_is_one_that_nobody_has() -> None:
    port = free_port()
    assert port in PORTS
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        choices = iter([port, 18_500, port + 1 if port + 1 in PORTS else port - 1])
        assert free_port([18_500], lambda _: next(choices)) in {port + 1, port - 1}
        with pytest.raises(OSError, match="no free port"):
            free_port((), lambda _: port, attempts=3)


def scene(**values: object) -> Scene:
    made = Scene(
        clients=300,
        caption="What goes on, and what comes next, in a sentence that is as long as any of them will be here.",
        readings=[Reading(f"backend-{n}", foreign, 113) for n, foreign in enumerate((0, 50, 100, 0), 1)],
        totals=Totals(clients=300, open=300, opened=300, messages=12_345, p50=0.0012, p99=0.034),
        events=[Event(n, f"something happened, number {n}") for n in range(20)],
    )
    for name, value in values.items():
        setattr(made, name, value)
    return made


def drawn(renderable: RenderableType, width: int = 80, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(
        file=file, width=width, height=24, force_terminal=False, color_system=None, legacy_windows=False
    )
    console.print(renderable)
    file.flush()
    assert isinstance(file.buffer, io.BytesIO)
    return file.buffer.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_picture_fits(width: int) -> None:
    lines = drawn(picture(scene()), width)
    assert all(len(line) <= width for line in lines)
    if width >= 80:
        assert len(lines) <= 23
        assert any("apart by 0   clients 300/300   lost 0   echoes 12,345" in line for line in lines)
        assert "number 19" in lines[-1]


def test_bars_show_foreign_and_own_connections_to_scale() -> None:
    readings = [Reading("a", 0, 100), Reading("b", 50, 100), Reading("c", 0, 50), Reading("d", 0, None)]
    rows = drawn(bars(readings), 100)[1:]
    live, foreign = [row.count("█") for row in rows], [row.count("▒") for row in rows]
    assert live[0] > 40
    assert live[1] == pytest.approx(live[0] / 2, abs=1)
    assert foreign == [0, pytest.approx(live[0] / 2, abs=1), 0, 0]
    assert live[2] == pytest.approx(live[0] / 2, abs=1)
    assert live[3] == 0
    assert rows[3].split() == ["d", "0", "?", "?"]


def test_nothing_but_ascii_where_there_is_no_more() -> None:
    rows = drawn(picture(scene(), encoding="ascii"), encoding="ascii")
    assert any("#" in row and "---" in row for row in rows)


def test_failures_are_in_the_figures() -> None:
    text = figures(scene(totals=Totals(failed=3, last_failure="status 503 instead of 101"))).plain
    assert "3 attempts to connect failed: status 503 instead of 101" in text


def test_verdicts() -> None:
    assert all(verdict.good for verdict in judge(scene(), complete=True))
    early = {verdict.subject: verdict.good for verdict in judge(scene(), complete=False)}
    assert early["connections"] is None
    assert early["sessions lost"] is True
    apart = scene(readings=[Reading("a", 0, 10), Reading("b", 0, 20)])
    assert judge(apart, complete=True)[0].good is False
    lost = scene(totals=Totals(opened=9, lost={"1006": 2}))
    text = "\n".join(drawn(verdict_table(judge(lost, complete=True))))
    assert "2 of 9 (1006: 2)" in text
    assert "FAIL" in text
    unclean = judge(scene(unclean=["backend-1 with -9"]), complete=True)
    assert [verdict.finding for verdict in unclean if not verdict.good] == ["backend-1 with -9"]
