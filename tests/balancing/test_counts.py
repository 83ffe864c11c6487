from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.counts import CountEntry, CountKey, CountTable, foreign_figures


def key(number: int = 1) -> CountKey:
    return CountKey(BackendURL("http", f"10.0.0.{number}", 8080), "/metric", "agentsConnections")


def exchange(
    table: CountTable, reported: int, before: int, after: int | None = None, pending: int = 0
) -> int | None:
    sample = table.start(key(), before, 0.0)
    table.finish(sample, reported, before if after is None else after, pending, 1.0)
    return table.foreign(key())


def test_never_reported() -> None:
    table = CountTable()
    assert table.foreign(key()) is None
    assert table.age(key(), 5.0) == inf
    assert table.stale(key(), 5.0, 90.0)
    entry = table.entry(key())
    assert entry.foreign is None
    assert entry.stale(5.0, 90.0)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_when_nothing_moves_foreign_is_reported_less_own(first: int, second: int, own: int) -> None:
    table = CountTable()
    assert exchange(table, first, own) == max(0, first - own)
    assert exchange(table, second, own) == max(0, second - own)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 50), st.integers(0, 300), st.data())
def test_a_report_that_a_burst_crosses_changes_nothing(
    before: int, after: int, pending: int, foreign: int, data: st.DataObject
) -> None:
    table = CountTable()
    assert exchange(table, foreign + before, before) == foreign
    ours = data.draw(st.integers(min(before, after), max(before, after) + pending))
    assert exchange(table, foreign + ours, before, after, pending) == foreign


@given(
    st.integers(0, 500), st.integers(0, 500), st.integers(0, 50), st.integers(0, 300), st.integers(0, 1500)
)
def test_foreign_moves_no_further_than_the_report_demands(
    before: int, after: int, pending: int, earlier: int, reported: int
) -> None:
    table = CountTable()
    exchange(table, earlier, 0)
    least = max(0, reported - max(before, after) - pending)
    most = max(0, reported - min(before, after))
    assert exchange(table, reported, before, after, pending) == min(
        range(least, most + 1), key=lambda figure: abs(figure - earlier)
    )


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 300), st.floats(0, 1))
def test_first_report_errs_by_half_of_what_moved_at_most(
    before: int, after: int, foreign: int, moment: float
) -> None:
    ours = round(before + (after - before) * moment)
    estimate = exchange(CountTable(), foreign + ours, before, after)
    assert estimate is not None
    assert abs(estimate - foreign) <= (abs(after - before) + 1) // 2


def test_age_and_staleness_keep_the_figure() -> None:
    table = CountTable()
    table.finish(table.start(key(), 0, 10.0), 200, 0, 0, 10.5)
    assert table.age(key(), 30.5) == 20.0
    assert not table.stale(key(), 100.5, 90.0)
    assert table.stale(key(), 100.6, 90.0)
    table.fail(key(), "no complete answer within 5 s", 100.0)
    assert table.foreign(key()) == 200
    assert table.entry(key()).failed_at == 100.0


def test_failures_are_news_once() -> None:
    table = CountTable()
    table.entry(key())
    assert table.fail(key(), "answered 500", 1.0)
    assert not table.fail(key(), "answered 500", 2.0)
    assert table.fail(key(), "the connection was lost", 3.0)
    assert not table.fail(key(), "answered 500", 4.0)
    entry = table.entry(key())
    assert (entry.failures, entry.reason) == (4, "answered 500")


def test_recovery_is_news_once_and_makes_failures_news_again() -> None:
    table = CountTable()
    assert not table.finish(table.start(key(), 0, 0.0), 1, 0, 0, 0.0)
    table.fail(key(), "answered 500", 1.0)
    assert table.finish(table.start(key(), 0, 2.0), 1, 0, 0, 2.0)
    assert not table.finish(table.start(key(), 0, 3.0), 1, 0, 0, 3.0)
    assert table.fail(key(), "answered 500", 4.0)
    assert table.entry(key()).reports_total == 3


def test_reasons_without_end_are_not_news_without_end() -> None:
    table = CountTable()
    table.entry(key())
    assert sum(table.fail(key(), f"answered {status}", 0.0) for status in range(400, 600)) == 16


def test_retain() -> None:
    table = CountTable()
    kept, dropped = table.entry(key(1)), table.start(key(2), 0, 0.0)
    table.retain([key(1), key(3)])
    assert [entry.key for entry in table] == [key(1)]
    assert len(table) == 1
    assert table.entry(key(1)) is kept
    assert not table.finish(dropped, 7, 0, 0, 1.0)
    assert not table.fail(key(2), "answered 500", 1.0)
    assert table.foreign(key(2)) is None


def test_version_rises_with_figures_only() -> None:
    table = CountTable()
    versions = []
    for reported in (5, 5, 6):
        exchange(table, reported, 0)
        versions.append(table.version)
    table.fail(key(), "answered 500", 1.0)
    assert versions == [1, 1, 2]
    assert table.version == 2


@pytest.mark.parametrize(
    ("foreign", "expected"),
    [
        ([], []),
        ([None, None], [0, 0]),
        ([4, None], [4, 4]),
        ([0, 100, None, 200], [0, 100, 100, 200]),
        ([0, None, 5], [0, 3, 5]),
        ([0, 0, None, 900], [0, 0, 0, 900]),
    ],
)
def test_the_median_stands_in_for_no_report(foreign: list[int | None], expected: list[int]) -> None:
    entries = [CountEntry(key(number)) for number in range(len(foreign))]
    for entry, figure in zip(entries, foreign, strict=True):
        entry.foreign = figure
    assert foreign_figures(entries) == expected
