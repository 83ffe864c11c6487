"""What a metric is: its name, its kind, what it means and its labels; and how its samples become a family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from trio_wsb.observe.exposition import Family, Kind, Rows, family, histogram_family
from trio_wsb.observe.histogram import Histogram


@frozen
class Definition:
    """A metric. `name` is the one that queries use, for a histogram without _bucket, _count or _sum."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def of(self, value: float) -> Family:
        """Return the family of a metric without labels."""
        return self.family([((), value)])

    def family(self, rows: Rows) -> Family:
        """Return the family with these samples."""
        return family(self.name, self.kind, self.help, self.labels, rows)

    def histograms(self, rows: Iterable[tuple[Sequence[str], Histogram]]) -> Family:
        """Return the family of a histogram."""
        return histogram_family(self.name, self.help, self.labels, rows)


@frozen
class Group:
    """Metrics that belong together; `when` says when they are exported, "" always."""

    title: str
    when: str
    definitions: tuple[Definition, ...]


def counter(name: str, text: str, *labels: str) -> Definition:
    """Return the definition of what only grows."""
    return Definition(name, "counter", text, labels)


def gauge(name: str, text: str, *labels: str) -> Definition:
    """Return the definition of what goes up and down."""
    return Definition(name, "gauge", text, labels)


def histogram(name: str, text: str, *labels: str) -> Definition:
    """Return the definition of how often values fell into ranges."""
    return Definition(name, "histogram", text, labels)
