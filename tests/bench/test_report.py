"""From samples to medians, ratios, targets and tables."""

from __future__ import annotations

import pytest

from bench.report import (
    BEST_OTHER,
    BEST_PROXY,
    DIRECT,
    KERNEL,
    STREAM,
    TARGETS,
    Sample,
    Summary,
    Table,
    Target,
    Verdict,
    format_number,
    judge,
    markdown,
    rows,
    summary,
)

ECHO = Table("echo", "Echo", "messages_per_s", "messages/s", (("p99_us", "p99 (µs)"),))


def echo(peer: str, *rates: float) -> list[Sample]:
    return [Sample("echo", peer, number, {"messages_per_s": rate}) for number, rate in enumerate(rates, 1)]


def test_summary_is_the_median_and_the_range() -> None:
    samples = echo("nginx", 90.0, 110.0, 100.0) + echo(STREAM, 1.0)
    assert summary(samples, "echo", "nginx", "messages_per_s") == Summary(100.0, 90.0, 110.0)


def test_summary_of_what_was_not_measured_is_none() -> None:
    assert summary(echo("nginx", 1.0), "echo", "nginx", "p99_us") is None
    assert summary(echo("nginx", 1.0), "idle", "nginx", "messages_per_s") is None


@pytest.mark.parametrize(("rate", "word"), [(30.0, "ok"), (29.9, "MISSED")])
def test_a_ratio_target_divides_medians(rate: float, word: str) -> None:
    target = Target("echo", "echo", "messages_per_s", STREAM, at_least=0.30, over="nginx")
    (verdict,) = judge(echo("nginx", 50.0, 100.0, 400.0) + echo(STREAM, rate), [target])
    assert verdict.actual == pytest.approx(rate / 100)
    assert verdict.word == word


@pytest.mark.parametrize(("size", "word"), [(14_000.0, "ok"), (14_001.0, "MISSED")])
def test_an_absolute_target_has_an_upper_bound(size: float, word: str) -> None:
    target = Target("rss", "idle", "bytes_per_session", STREAM, at_most=14_000)
    (verdict,) = judge([Sample("idle", STREAM, 1, {"bytes_per_session": size})], [target])
    assert verdict.word == word


@pytest.mark.parametrize(
    ("over", "best"),
    [(BEST_PROXY, 120.0), (BEST_OTHER, 100.0), (("nginx", "caddy"), 100.0), (("caddy",), 90.0)],
)
def test_the_best_of_several(over: str | tuple[str, ...], best: float) -> None:
    samples = echo(DIRECT, 300.0) + echo("nginx", 100.0) + echo("caddy", 90.0) + echo(KERNEL, 120.0)
    target = Target("limit", "echo", "messages_per_s", DIRECT, at_least=2.5, over=over)
    (verdict,) = judge(samples, [target])
    assert verdict.actual == pytest.approx(300.0 / best)
    (alone,) = judge(echo(DIRECT, 300.0), [target])
    assert alone == Verdict(target, None)


def test_the_best_is_the_lowest_where_less_is_better() -> None:
    samples = echo("nginx", 100.0) + echo("caddy", 90.0) + echo(KERNEL, 45.0)
    (verdict,) = judge(
        samples, [Target("tail", "echo", "messages_per_s", KERNEL, at_most=1.0, over=BEST_OTHER)]
    )
    assert verdict.actual == pytest.approx(0.5)
    assert verdict.word == "ok"


def test_a_target_without_its_peers_was_not_measured() -> None:
    assert {verdict.word for verdict in judge(echo("nginx", 1.0))} == {"not measured"}


def test_rows_hold_every_peer_its_ratio_to_nginx_and_further_figures() -> None:
    samples = [*echo(DIRECT, 200_000.0), *echo("nginx", 80_000.0), *echo(STREAM, 30_000.0, 34_000.0)]
    samples[-1].figures["p99_us"] = 412.0
    assert rows(samples, ECHO) == [
        ["", "messages/s", "beside nginx", "p99 (µs)"],
        ["---", "---:", "---:", "---:"],
        [DIRECT, "200,000", "2.50", ""],
        ["nginx", "80,000", "1.00", ""],
        [STREAM, "32,000 (30,000–34,000)", "0.40", "412"],  # noqa: RUF001
    ]


def test_rows_leave_out_what_nobody_has() -> None:
    assert rows(echo("nginx", 1.0), Table("idle", "RSS", "bytes_per_session", "bytes")) == []
    assert rows(echo("caddy", 1.0), ECHO)[2:] == [["caddy", "1.00", ""]]


def test_a_page_has_targets_pictures_and_tables() -> None:
    samples = echo(DIRECT, 3.0) + echo("nginx", 2.0) + echo(KERNEL, 1.0)
    page = markdown(samples, [ECHO], {"Date": "2030-01-02"}, pictures=[("Speed", "images/a.svg")])
    lines = page.splitlines()
    assert "- Date: 2030-01-02" in lines
    assert "![Speed](images/a.svg)" in lines
    assert sum(line.endswith(("| ok |", "| MISSED |", "| not measured |")) for line in lines) == len(TARGETS)
    table = lines[lines.index("## Echo") + 2 :][:5]
    assert {line.count("|") for line in table} == {4}


def test_targets_can_be_left_out() -> None:
    assert "wanted" not in markdown(echo("nginx", 2.0), [ECHO], {}, targets=())


@pytest.mark.parametrize(
    ("value", "text"), [(93_412.4, "93,412"), (412.4, "412"), (41.26, "41.3"), (0.304, "0.30"), (0.0, "0.00")]
)
def test_numbers_keep_about_three_digits(value: float, text: str) -> None:
    assert format_number(value) == text
