"""The state of a daemon without its network: real tables, a real runtime snapshot, sessions over memory."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import trio
import yaml
from attrs import define

from trio_wsb.addresses import parse_backend_url
from trio_wsb.balancing.backend import Backend, BackendTable
from trio_wsb.balancing.counts import CountKey, CountTable
from trio_wsb.balancing.drain import DrainTable
from trio_wsb.balancing.health import HealthTable
from trio_wsb.daemon.api.pages import APIPages
from trio_wsb.daemon.build import Builder, Prepared, prepare
from trio_wsb.daemon.mover import Mover
from trio_wsb.daemon.reload import Reloader
from trio_wsb.daemon.views import DaemonState, Moment
from trio_wsb.net.memory import MemoryChannel, memory_channel_pair
from trio_wsb.observe.events import EventLog
from trio_wsb.proxy.relay import SCRATCH_SIZE, Relay
from trio_wsb.proxy.runtime import Proxy, Runtime
from trio_wsb.proxy.session import Session

STARTED = 1_700_000_000.0
"""When these daemons started, in seconds since 1970: 2023-11-14T22:13:20Z."""

PODS = ["http://10.0.0.1:8080", "http://10.0.0.2:8080", "https://10.0.0.3"]


async def never_dial(*_: object) -> MemoryChannel:
    raise AssertionError("nobody dials here")


@define(eq=False)
class World:
    """A daemon's tables and what looks at them. `now` of its start is 0."""

    path: Path
    proxy: Proxy
    backends: BackendTable
    counts: CountTable
    health: HealthTable
    builder: Builder
    reloader: Reloader
    state: DaemonState
    api: APIPages

    def write(self, document: dict[str, Any]) -> None:
        self.path.write_text(yaml.safe_dump(document))

    def apply(self, prepared: Prepared) -> None:
        built = self.builder.build(prepared)
        before = self.proxy.runtime.services
        self.proxy.runtime = built.runtime
        self.builder.install(built)
        self.api.configure(built.steps)
        self.state.mover.configuration_changed(before, built.runtime.services)

    def backend(self, url: str) -> Backend:
        return self.backends.get(parse_backend_url(url))

    def report(self, url: str, number: int, *, at: float, path: str = "/metric") -> None:
        """Let a backend report `number` connections."""
        backend = self.backend(url)
        sample = self.counts.start(CountKey(backend.url, path, "agentsConnections"), backend.live, at)
        self.counts.finish(sample, number, backend.live, backend.pending, at)

    async def open(self, nursery: trio.Nursery, url: str, **fields: Any) -> MemoryChannel:
        """Open a session at a backend and return the client's end of it, whose end ends the session."""
        client, near = memory_channel_pair()
        far, _ = memory_channel_pair()
        relay = Relay(
            near,
            far,
            scratch=memoryview(bytearray(SCRATCH_SIZE)),
            write_timeout=0,
            watch=self.proxy.sweeper.watch,
        )
        backend = self.backend(url)
        backend.begin_handshake()
        known: dict[str, Any] = {
            "service": "wsbalancer",
            "router": "wsbalancer",
            "entry_point": "web",
            "peer": "192.0.2.7",
            "client": "192.0.2.1:40000",
            "host": "chat.example",
            "path": "/chat",
            "tries": 1,
        }
        nursery.start_soon(self.proxy.sessions.run, Session(relay, backend, **(known | fields)))
        await trio.testing.wait_all_tasks_blocked()
        return client


def make_world(tmp_path: Path, document: dict[str, Any] | None = None) -> World:
    """Return the daemon's state with the configuration `document`, by default the short form over `PODS`."""
    path = tmp_path / "trio-wsb.yaml"
    path.write_text(yaml.safe_dump(document or {"wsbalancer": {"pods": PODS}}))
    proxy = Proxy(Runtime({}), dial=never_dial)
    backends, counts, health = BackendTable(), CountTable(), HealthTable()
    drains = DrainTable()
    builder = Builder(backends, counts, health, Random(1), drains)
    events = EventLog()
    mover = Mover(proxy, backends, drains, Random(1), events)

    def apply(prepared: Prepared) -> None:
        world.apply(prepared)

    reloader = Reloader(path, apply)
    state = DaemonState(
        proxy,
        backends,
        reloader,
        lambda: [("web", "127.0.0.1:9000")],
        Moment(0.0, STARTED),
        events,
        mover=mover,
    )
    api = APIPages(state)
    proxy.observers = (api.tally,)
    world = World(path, proxy, backends, counts, health, builder, reloader, state, api)
    builder.serve_internal(api.services)
    first = prepare(path)
    world.apply(first)
    reloader.begin(first)
    return world
