"""The page's text: what the client library would say, in pieces, in the format that the scraper wants."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from trio_wsb.http.headers import Headers
from trio_wsb.observe.exposition import (
    END,
    OPENMETRICS,
    PIECE_LINES,
    TEXT,
    Family,
    accepts_gzip,
    content_type_for,
    family,
    foreign_family,
    histogram_family,
    render,
)
from trio_wsb.observe.histogram import Histogram

LABEL = st.text(st.characters(codec="utf-8") | st.sampled_from('\\"\n{},=%'), max_size=12)


class Given(Collector):
    """A collector of given families."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return list(self._families)


def theirs(help_text: str, labels: list[str], value: float) -> list[Metric]:
    """Return families as the client library has them."""
    counter = CounterMetricFamily("things_total", help_text, labels=["who", "why"])
    gauge = GaugeMetricFamily("level", help_text, labels=["who"])
    info = InfoMetricFamily("what", help_text, labels=[])
    histogram = HistogramMetricFamily("seconds", help_text, labels=["who"])
    for label in labels:
        counter.add_metric([label, "x"], abs(value))
        gauge.add_metric([label], value)
        info.add_metric([], {"who": label, "version": label})
        histogram.add_metric([label], [("1.0", 1), ("+Inf", 2)], 3.5)
    return [counter, gauge, info, histogram, GaugeMetricFamily("plain", help_text, value=value)]


def ours(help_text: str, labels: list[str], value: float) -> list[Family]:
    """Return the same as this module has them."""
    histogram = Histogram([1.0])
    histogram.observe(0.5)
    histogram.observe(3.0)
    return [
        family(
            "things_total",
            "counter",
            help_text,
            ["who", "why"],
            [([label, "x"], abs(value)) for label in labels],
        ),
        family("level", "gauge", help_text, ["who"], [([label], value) for label in labels]),
        family("what_info", "info", help_text, ["who", "version"], [([label, label], 1) for label in labels]),
        histogram_family("seconds", help_text, ["who"], [([label], histogram) for label in labels]),
        family("plain", "gauge", help_text, [], [((), value)]),
    ]


def text_of(families: Iterable[Family], *, openmetrics: bool) -> str:
    return b"".join(piece for each in families for piece in render(each, openmetrics=openmetrics)).decode()


def comments(text: str) -> list[str]:
    # A line may begin with a # within a label only behind an escaped line end, so never.
    return [line for line in text.split("\n") if line.startswith("#")]


@given(LABEL, st.lists(LABEL, max_size=4, unique=True), st.floats(allow_nan=False) | st.integers(0, 10**15))
def test_the_text_means_what_the_client_librarys_does(
    help_text: str, labels: list[str], value: float
) -> None:
    registry = CollectorRegistry()
    registry.register(Given(*theirs(help_text, labels, value)))
    mine, other = (
        text_of(ours(help_text, labels, value), openmetrics=False),
        generate_latest(registry).decode(),
    )
    assert comments(mine) == comments(other)
    assert list(parse_text(mine)) == list(parse_text(other))
    mine = text_of(ours(help_text, labels, value), openmetrics=True) + END.decode()
    other = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]  # the library has no types here
    assert comments(mine) == comments(other)
    understood = [list(parse_openmetrics(text)) for text in (mine, other)]  # type: ignore[no-untyped-call]
    assert understood[0] == understood[1]


def test_the_client_librarys_own_families_are_taken_over() -> None:
    families = [
        CounterMetricFamily("cpu_seconds_total", "CPU.", value=1.5),
        GaugeMetricFamily("open_fds", "Descriptors.", value=7),
    ]
    registry = CollectorRegistry()
    registry.register(Given(*families))
    mine = text_of(map(foreign_family, families), openmetrics=False)
    assert list(parse_text(mine)) == list(parse_text(generate_latest(registry).decode()))


def test_pieces_are_small() -> None:
    many = family("level", "gauge", "Level.", ["who"], (([str(i)], i) for i in range(2 * PIECE_LINES + 1)))
    pieces = list(render(many, openmetrics=False))
    assert [piece.count(b"\n") for piece in pieces] == [PIECE_LINES + 2, PIECE_LINES, 1]


def test_a_histogram_is_of_one_moment() -> None:
    """Whatever is counted between two pieces, its last range and its count agree."""
    histograms = [Histogram([1.0]) for _ in range(PIECE_LINES)]
    named = [([str(number)], each) for number, each in enumerate(histograms)]
    text = ""
    for piece in render(histogram_family("s", "S.", ["who"], named), openmetrics=False):
        text += piece.decode()
        for each in histograms:
            each.observe(0.5)
    (found,) = parse_text(text)
    values = {
        (sample.name, sample.labels["who"], sample.labels.get("le")): sample.value for sample in found.samples
    }
    for number in range(len(histograms)):
        who = str(number)
        assert values["s_bucket", who, "+Inf"] == values["s_count", who, None]
        assert values["s_sum", who, None] == 0.5 * values["s_count", who, None]


def test_a_family_without_samples_is_still_described() -> None:
    assert text_of([family("x_total", "counter", "X.", [], [])], openmetrics=False) == (
        "# HELP x_total X.\n# TYPE x_total counter\n"
    )


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        # What Prometheus 2.42 and 3 send.
        (
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
                "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
            ),
            OPENMETRICS,
        ),
        (
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
                "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
                "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
            ),
            OPENMETRICS,
        ),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=0.0.1", TEXT),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.9", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=much, ,;;=", TEXT),
        (", ".join(["text/x"] * 500 + ["application/openmetrics-text"]), TEXT),
    ],
)
def test_format(accept: str | None, expected: str) -> None:
    assert content_type_for(Headers([] if accept is None else [("Accept", accept)])) == expected


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (None, False),
        ("gzip", True),
        ("GZIP, br", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("*", True),
        ("identity", False),
    ],
)
def test_coding(accepted: str | None, expected: bool) -> None:
    assert accepts_gzip(Headers([] if accepted is None else [("Accept-Encoding", accepted)])) == expected
