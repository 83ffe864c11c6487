"""Metrics as text, made in pieces: the text format of Prometheus and OpenMetrics 1.0.

The client library makes an object of each sample and renders all of them at once. With a thousand backends that is a tenth of
a second for which messages would have to wait, and garbage by the ten thousand. Here a family writes its lines itself, a few hundred
at a time, each in about a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, Literal, TypeAlias

from attrs import frozen
from prometheus_client.metrics_core import Metric

from trio_wsb.http.headers import Headers
from trio_wsb.observe.histogram import Histogram, number

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info"]

Rows: TypeAlias = Iterable[tuple[Sequence[str], float]]
"""Values of labels in their order, and the value. Other tasks run while it is gone through."""

PIECE_LINES: Final = 200
"""Samples in a piece."""

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

END: Final = b"# EOF\n"
"""What ends a page in OpenMetrics."""

_MAX_RANGES: Final = 32
"""Members of an Accept field that are looked at; scrapers send about five."""

_VALUE_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


def content_type_for(headers: Headers) -> str:
    """Return `OPENMETRICS` where a scraper would rather have that (RFC 9110 section 12.5.1), else `TEXT`."""
    return OPENMETRICS if _wants_openmetrics(headers) else TEXT


def accepts_gzip(headers: Headers) -> bool:
    """Whether a body may be sent in gzip (RFC 9110 section 12.5.3)."""
    found = _qualities(headers, "accept-encoding")
    quality = {name: value for name, _, value in reversed(found)}
    return quality.get("gzip", quality.get("*", 0.0)) > 0


@frozen
class Family:
    """The samples of one metric. `name` is the one that queries use; `tails` are the lines without it, to be gone through once."""

    name: str
    kind: Kind
    help: str
    tails: Iterable[str]

    def head(self, *, openmetrics: bool) -> str:
        """Return the lines that describe it; in OpenMetrics counters and infos go without their suffix there."""
        name, kind = self.name, self.kind
        if openmetrics:
            name = name.removesuffix("_total" if kind == "counter" else "_info" if kind == "info" else "")
            return f"# HELP {name} {self.help.translate(_VALUE_ESCAPES)}\n# TYPE {name} {kind}\n"
        shown = "gauge" if kind == "info" else kind
        return f"# HELP {name} {self.help.translate(_HELP_ESCAPES)}\n# TYPE {name} {shown}\n"


def family(name: str, kind: Kind, text: str, labels: Sequence[str], rows: Rows) -> Family:
    """Return the family of a metric that is no histogram."""
    form = _form("", labels)
    return Family(
        name, kind, text, (form % (*map(_escaped, values), number(value)) for values, value in rows)
    )


def histogram_family(
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], Histogram]]
) -> Family:
    """Return the family of a histogram."""
    bucket = _form("_bucket", (*labels, "le"))
    count, total = _form("_count", labels), _form("_sum", labels)

    def tails() -> Iterator[str]:
        for values, histogram in rows:
            escaped = tuple(map(_escaped, values))
            # Of one moment: others run, and count, between two lines.
            ranges, seconds = histogram.cumulative(), histogram.total
            for bound, below in ranges:
                yield bucket % (*escaped, bound, number(below))
            yield count % (*escaped, number(ranges[-1][1]))
            yield total % (*escaped, number(seconds))

    return Family(name, "histogram", text, tails())


def foreign_family(metric: Metric) -> Family:
    """Return what the client library's own collectors give, gauges and counters without labels, as a family."""
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    rows: Rows = [((), sample.value) for sample in metric.samples if sample.name == name]
    return family(name, "counter" if metric.type == "counter" else "gauge", metric.documentation, (), rows)


def render(family: Family, *, openmetrics: bool) -> Iterator[bytes]:
    """Yield the text of one family, at most `PIECE_LINES` samples at a time."""
    name, tails = family.name, iter(family.tails)
    head = family.head(openmetrics=openmetrics)
    while lines := [name + tail for tail in islice(tails, PIECE_LINES)]:
        yield (head + "".join(lines)).encode()
        head = ""
    if head:
        yield head.encode()


def _form(suffix: str, labels: Sequence[str]) -> str:
    """Return the form of a line after the metric's name, with a place for each label's value and the value."""
    if not labels:
        return f"{suffix} %s\n"
    places = ",".join(f'{label}="%s"' for label in labels)
    return f"{suffix}{{{places}}} %s\n"


@lru_cache(maxsize=1 << 14)
def _escaped(value: str) -> str:
    """Return a label's value as it is written. The same few values come again in every family and every scrape."""
    return value.translate(_VALUE_ESCAPES)


def _wants_openmetrics(headers: Headers) -> bool:
    """Whether OpenMetrics 1.0 is more welcome than the text format; named first counts when they are as welcome."""
    best, chosen = 0.0, False
    for name, parameters, value in _qualities(headers, "accept"):
        if name == "application/openmetrics-text":
            if parameters.get("version", "1.0.0") != "1.0.0":
                continue
            openmetrics = True
        elif name in {"text/plain", "text/*", "*/*"}:
            openmetrics = False
        else:
            continue
        if value > best:
            best, chosen = value, openmetrics
    return chosen


def _qualities(headers: Headers, field: str) -> list[tuple[str, dict[str, str], float]]:
    """Return the members of a negotiation field: each name, its parameters and how welcome it is."""
    found: list[tuple[str, dict[str, str], float]] = []
    for member in headers.tokens(field)[:_MAX_RANGES]:
        name, *rest = (part.strip(" \t") for part in member.split(";"))
        parameters = {part.partition("=")[0].strip(): part.partition("=")[2].strip() for part in rest}
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            continue
        if 0 <= quality <= 1:
            found.append((name, parameters, quality))
    return found
