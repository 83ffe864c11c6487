"""Histograms count every value once, in the first range that it fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as TheirHistogram

from trio_wsb.observe.histogram import Histogram, number

BOUNDS = (0.1, 0.3, 1.2, 5.0)

VALUES = st.lists(st.floats(0, 100) | st.sampled_from(BOUNDS), max_size=30)


@given(VALUES)
def test_counts_as_the_client_library_does(values: list[float]) -> None:
    registry = CollectorRegistry()
    theirs = TheirHistogram("seconds", "Seconds.", buckets=BOUNDS, registry=registry)
    ours = Histogram(BOUNDS)
    for value in values:
        theirs.observe(value)
        ours.observe(value)
    assert ours.count == len(values)
    for bound, count in ours.cumulative():
        assert registry.get_sample_value("seconds_bucket", {"le": bound}) == count
    assert registry.get_sample_value("seconds_sum") == ours.total


@given(VALUES, VALUES)
def test_a_sum_is_the_histogram_of_all(first: list[float], second: list[float]) -> None:
    parts, whole = [Histogram(BOUNDS), Histogram(BOUNDS)], Histogram(BOUNDS)
    for part, values in zip(parts, (first, second), strict=True):
        for value in values:
            part.observe(value)
            whole.observe(value)
    found = Histogram.sum_of(parts)
    assert found.counts == whole.counts
    assert abs(found.total - whole.total) < 1e-6
    assert [part.count for part in parts] == [len(first), len(second)]


def test_numbers_are_written_as_the_formats_have_them() -> None:
    values = (0, True, 12_000_000, 1.5, 1e30, float("inf"), float("-inf"), float("nan"))
    assert [number(value) for value in values] == [
        "0",
        "1",
        "12000000",
        "1.5",
        "1e+30",
        "+Inf",
        "-Inf",
        "NaN",
    ]
