"""The page that Prometheus scrapes: made in pieces, so that no message waits for it, and for one scraper at a time.

A scrape costs about a microsecond for each session and five for each line. Whoever asks while one is being made shares the next
one with all who ask meanwhile, so that scrapers, however many, cost no more than one that never rests.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

import trio
from attrs import frozen
from prometheus_client.process_collector import ProcessCollector

from trio_wsb.config.metrics import Prometheus
from trio_wsb.config.model import Config
from trio_wsb.daemon.metrics import collect
from trio_wsb.daemon.metrics.backends import BackendRow, backends, look_at_backends, service_backends
from trio_wsb.daemon.metrics.collect import Scene
from trio_wsb.daemon.metrics.figures import Figures
from trio_wsb.daemon.metrics.traefik import traefik
from trio_wsb.daemon.metrics.traffic import live_traffic
from trio_wsb.daemon.metrics.turns import Spent, Turns, without_collection
from trio_wsb.daemon.middlewares import MadeStep
from trio_wsb.daemon.views import DaemonState
from trio_wsb.errors import HTTPError
from trio_wsb.http.headers import Field
from trio_wsb.observe.exposition import (
    END,
    OPENMETRICS,
    Family,
    accepts_gzip,
    content_type_for,
    foreign_family,
    render,
)
from trio_wsb.observe.looplag import LoopLag
from trio_wsb.proxy.internal import READING, InternalRequest

PATH: Final = "/metrics"

MAX_WAITING: Final = 16
"""Scrapes that wait for one that is being made; more are told 503."""

GZIP_LEVEL: Final = 4
"""Metrics shrink to a twentieth at this level; the best one takes three times as long for little more."""

_VARY: Final[Field] = ("Vary", "Accept, Accept-Encoding")


@frozen
class Made:
    """A page, and when its making began on Trio's clock."""

    begun: float
    body: bytes


class Metrics:
    """The metrics of a daemon: what counts, what samples, and the page. One for its whole life."""

    def __init__(self, state: DaemonState) -> None:
        """Begin to count; `state` is what a scrape looks at."""
        self._state = state
        self.figures = Figures()
        """Make it one of `Proxy.observers`."""
        self.lag = LoopLag()
        self._options = Prometheus()
        self._steps: Sequence[MadeStep] = ()
        self._process = ProcessCollector(registry=None)
        self._making = trio.Lock()
        self._made: dict[tuple[str, bool], Made] = {}
        self._last_scrape = Spent()

    def configure(self, config: Config, steps: Sequence[MadeStep]) -> None:
        """Take over a configuration that is in force now, with the steps of its middlewares."""
        self._options = options = config.metrics.prometheus
        self._steps = steps
        self.figures.configure(
            entry_points=config.entry_points,
            routers={name: router.service for name, router in config.http.routers.items()},
            services=config.http.services,
            middlewares={made.step: (made.middleware, made.kind) for made in steps},
            buckets=options.buckets,
            session_buckets=options.session_buckets,
            internals=config.metrics.add_internals,
        )

    def answers_at(self, entry_point: str, default: str) -> bool:
        """Whether the page is at `PATH` of this entry point without a router; `default` is where it is unless told."""
        return not self._options.manual_routing and entry_point == (self._options.entry_point or default)

    async def run(self) -> None:
        """Sample until cancelled."""
        await self.lag.run()

    async def page(self, request: InternalRequest) -> bool:
        """Answer a scrape: a `Handler`.

        Raises:
          HTTPError: 405 for what is neither GET nor HEAD, 503 when too many scrapers wait.
          ClientLeft: the scraper did.

        """
        head = request.head
        if head.method not in READING or request.upgrade:
            raise HTTPError(405, "metrics are read with GET", (("Allow", "GET, HEAD"),))
        content_type, gzip = content_type_for(head.headers), accepts_gzip(head.headers)
        fields = [_VARY, ("Content-Encoding", "gzip")] if gzip else [_VARY]
        if request.head_only:
            # Not worth a scrape, without which the length is not known: whoever asks wants to know whether there is a page.
            return await request.answer_pieces(200, content_type, _nothing(), fields)
        return await request.answer(200, content_type, await self._scrape(content_type, gzip=gzip), fields)

    async def _scrape(self, content_type: str, *, gzip: bool) -> bytes:
        """Make the page, or share one that was begun after this call."""
        if self._making.statistics().tasks_waiting >= MAX_WAITING:
            raise HTTPError(503, "too many scrapes at once", (("Retry-After", "1"),))
        arrived, variant = trio.current_time(), (content_type, gzip)
        async with self._making:
            made = self._made.get(variant)
            if made is None or made.begun < arrived:
                with without_collection():
                    made = self._made[variant] = await self._make(content_type, gzip=gzip)
            if not self._making.statistics().tasks_waiting:
                self._made.clear()
            return made.body

    async def _make(self, content_type: str, *, gzip: bool) -> Made:
        begun = trio.current_time()
        coder = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS) if gzip else None
        openmetrics = content_type == OPENMETRICS
        pieces: list[bytes] = []

        def add(piece: bytes) -> None:
            pieces.append(piece if coder is None else coder.compress(piece))

        # It counts open descriptors one by one, of which there are two for each session.
        process = await trio.to_thread.run_sync(lambda: list(self._process.collect()))
        for metric in process:
            for piece in render(foreign_family(metric), openmetrics=openmetrics):
                add(piece)
        turns = Turns()
        scene, rows = await self._look(turns)
        await turns.rest()
        for each in self._families(scene, rows):
            for piece in render(each, openmetrics=openmetrics):
                add(piece)
                await turns.rest()
        if openmetrics:
            add(END)
        if coder is not None:
            pieces.append(coder.flush())
        body = b"".join(pieces)
        self._last_scrape = turns.spent()
        return Made(begun, body)

    async def _look(self, turns: Turns) -> tuple[Scene, list[BackendRow]]:
        """Look at everything that takes its time."""
        state = self._state
        scene = Scene(
            state=state,
            figures=self.figures,
            lag=self.lag,
            traffic=await live_traffic(self.figures, state.proxy.sessions, turns),
            steps=self._steps,
            now=trio.current_time(),
            last_scrape=self._last_scrape,
        )
        return scene, await look_at_backends(state, scene, turns)

    def _families(self, scene: Scene, rows: Sequence[BackendRow]) -> Iterator[Family]:
        options = self._options
        parts: list[Callable[[Scene], Iterator[Family]]] = [
            collect.instance,
            collect.configuration,
            collect.middlewares,
        ]
        if options.add_entry_points_labels:
            parts.append(collect.entry_points)
        if options.add_routers_labels:
            parts.append(collect.routers)
        for part in parts:
            yield from part(scene)
        if options.add_services_labels:
            yield from collect.services(scene)
            yield from service_backends(rows)
            yield from backends(rows, scene.state, scene.now)
        if options.traefik_names:
            yield from traefik(
                scene,
                rows,
                entry_points=options.add_entry_points_labels,
                routers=options.add_routers_labels,
                services=options.add_services_labels,
            )


async def _nothing() -> AsyncIterator[bytes]:
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece
