"""The metrics of a daemon without its network, and scrapes of them as a scraper understands them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from attrs import define
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.daemon.pages import answer_of, head
from tests.daemon.state import World, make_world
from trio_wsb.daemon.metrics.page import Metrics
from trio_wsb.proxy.record import RequestRecord, Stage

Labels = frozenset[tuple[str, str]]


@define
class Scraped:
    """What a scrape has: values by the name of the sample and its labels, and each family's kind and help."""

    values: dict[tuple[str, Labels], float]
    kinds: dict[str, tuple[str, str]]

    def get(self, name: str, /, **labels: str) -> float | None:
        return self.values.get((name, frozenset(labels.items())))

    def __getitem__(self, name: str) -> float:
        return self.values[name, frozenset()]

    def series(self, name: str) -> list[dict[str, str]]:
        """Return the labels of every sample with this name."""
        return [dict(labels) for found, labels in self.values if found == name]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.values}


def understood(text: str, *, openmetrics: bool = False) -> Scraped:
    """Parse a page as the client library does, which is strict about OpenMetrics."""
    families = list((parse_openmetrics if openmetrics else parse_text)(text))
    values: dict[tuple[str, Labels], float] = {}
    for family in families:
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in values, f"{key} is there twice"
            values[key] = sample.value
    return Scraped(values, {family.name: (family.type, family.documentation) for family in families})


@define(eq=False)
class Watched:
    """A daemon's state with its metrics."""

    world: World
    metrics: Metrics

    def configure(self) -> None:
        """Take over the configuration that is in force, as the supervisor does after each reload."""
        current = self.world.reloader.current
        assert current is not None
        steps = self.world.builder._steps.made(current.config)
        self.metrics.configure(current.config, steps)

    async def reload(self, document: dict[str, Any]) -> None:
        self.world.write(document)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.world.reloader.run)
            outcome = await self.world.reloader.reload()
            nursery.cancel_scope.cancel()
        assert outcome.succeeded, outcome.problems
        self.configure()

    async def answer(self, *fields: str, method: str = "GET") -> bytes:
        """Return the answer to a scrape, head and body."""
        return await answer_of(self.world, self.metrics.page, head("/metrics", *fields, method=method))

    async def scrape(self, *, openmetrics: bool = False) -> Scraped:
        fields = ["Accept: application/openmetrics-text; version=1.0.0"] if openmetrics else []
        _, _, body = (await self.answer(*fields)).partition(b"\r\n\r\n")
        return understood(body.decode(), openmetrics=openmetrics)


def watch(tmp_path: Path, document: dict[str, Any] | None = None) -> Watched:
    """Return the state of a daemon with this configuration, whose metrics count."""
    world = make_world(tmp_path, document)
    metrics = Metrics(world.state)
    world.proxy.observers = (metrics.figures,)
    watched = Watched(world, metrics)
    watched.configure()
    return watched


def record(method: str = "GET", **known: Any) -> RequestRecord:
    """Return the record of a request that took a second; `known` replaces its fields."""
    fields: dict[str, Any] = {
        "entry_point": "web",
        "router": "wsbalancer",
        "service": "wsbalancer",
        "head": head("/", method=method),
        "status": 200,
        "stage": Stage.ANSWER,
        "started": 1.0,
        "ended": 2.0,
    }
    return RequestRecord(**(fields | known))


def unzipped(body: bytes) -> bytes:
    return zlib.decompress(body, 16 + zlib.MAX_WBITS)


def monotonic(before: Scraped, after: Scraped) -> Mapping[tuple[str, Labels], tuple[float, float]]:
    """Return the counters that went back from one scrape to the next; a series that is gone did not."""
    return {
        key: (value, after.values[key])
        for key, value in before.values.items()
        if key[0].endswith(("_total", "_bucket", "_count"))
        and key in after.values
        and after.values[key] < value
    }
