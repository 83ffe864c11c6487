"""From samples to medians, ratios, targets and tables."""

from __future__ import annotations

import pytest

from bench.report import (
    BEST_PROXY,
    DIRECT,
    OURS,
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

ECHO = Table("echo", "Echo (messages/s)", "messages_per_s")


def echo(peer: str, *rates: float) -> list[Sample]:
    return [Sample("echo", peer, number, {"messages_per_s": rate}) for number, rate in enumerate(rates, 1)]


def test_summary_is_the_median_and_the_range() -> None:
    samples = echo("nginx", 90.0, 110.0, 100.0) + echo(OURS, 1.0)
    assert summary(samples, "echo", "nginx", "messages_per_s") == Summary(100.0, 90.0, 110.0)


def test_summary_of_what_was_not_measured_is_none() -> None:
    assert summary(echo("nginx", 1.0), "echo", "nginx", "p99_us") is None
    assert summary(echo("nginx", 1.0), "idle", "nginx", "messages_per_s") is None


@pytest.mark.parametrize(("rate", "word"), [(30.0, "ok"), (29.9, "MISSED")])
def test_a_ratio_target_divides_medians(rate: float, word: str) -> None:
    target = Target("echo", "echo", "messages_per_s", at_least=0.30, over="nginx")
    (verdict,) = judge(echo("nginx", 50.0, 100.0, 400.0) + echo(OURS, rate), [target])
    assert verdict.actual == pytest.approx(rate / 100)
    assert verdict.word == word


@pytest.mark.parametrize(("size", "word"), [(14_000.0, "ok"), (14_001.0, "MISSED")])
def test_an_absolute_target_has_an_upper_bound(size: float, word: str) -> None:
    target = Target("rss", "idle", "bytes_per_session", at_most=14_000)
    (verdict,) = judge([Sample("idle", OURS, 1, {"bytes_per_session": size})], [target])
    assert verdict.word == word


def test_the_best_proxy_is_not_the_peer_that_is_judged() -> None:
    target = Target("limit", "echo", "messages_per_s", at_least=2.5, peer=DIRECT, over=BEST_PROXY)
    (verdict,) = judge(echo(DIRECT, 300.0) + echo("nginx", 100.0) + echo(OURS, 40.0), [target])
    assert verdict.actual == pytest.approx(3.0)
    (alone,) = judge(echo(DIRECT, 300.0), [target])
    assert alone == Verdict(target, None)


def test_a_target_without_its_peers_was_not_measured() -> None:
    assert {verdict.word for verdict in judge(echo("nginx", 1.0))} == {"not measured"}


def test_rows_hold_every_peer_and_our_ratio_to_each_other_proxy() -> None:
    samples = echo(DIRECT, 200_000.0) + echo("nginx", 80_000.0) + echo(OURS, 30_000.0, 34_000.0)
    assert rows(samples, [ECHO]) == [
        ["Echo (messages/s)", "200,000", "80,000", "32,000 (30,000–34,000)", "0.40"]  # noqa: RUF001
    ]


def test_rows_leave_out_what_nobody_has() -> None:
    assert rows(echo("nginx", 1.0), [Table("idle", "RSS", "bytes_per_session")]) == []


def test_every_line_of_a_table_has_the_same_number_of_cells() -> None:
    samples = echo(DIRECT, 3.0) + echo("nginx", 2.0) + echo(OURS, 1.0)
    page = markdown(samples, [ECHO], {"Date": "2030-01-02"})
    lines = page.splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("|"))
    assert {line.count("|") for line in lines[head : head + 3]} == {6}
    assert "- Date: 2030-01-02" in lines
    assert sum(line.endswith(("| ok |", "| MISSED |", "| not measured |")) for line in lines) == len(TARGETS)


def test_targets_can_be_left_out() -> None:
    assert "wanted" not in markdown(echo("nginx", 2.0), [ECHO], {}, targets=())


@pytest.mark.parametrize(
    ("value", "text"), [(93_412.4, "93,412"), (412.4, "412"), (41.26, "41.3"), (0.304, "0.30"), (0.0, "0.00")]
)
def test_numbers_keep_about_three_digits(value: float, text: str) -> None:
    assert format_number(value) == text
