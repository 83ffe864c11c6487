"""What happens: each story is drawn from its seed, and every seed is another one of its kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

import trio
from attrs import define, evolve, field

from tests.simulation.backend import SimBackend
from tests.simulation.balance import Balance
from tests.simulation.crowd import Crowd, Habits
from tests.simulation.ledger import Violation
from tests.simulation.world import SERVICE, Document, World, document
from trio_wsb.balancing.moving import DrainPolicy

COUNTING: Final[Document] = {"path": "/metric", "interval": "3s", "timeout": "1s"}
CHECKING: Final[Document] = {"path": "/health", "interval": "2s", "timeout": "1s"}
REBALANCING: Final[Document] = {"enabled": True, "minAge": "5s", "rate": "20/s", "tolerance": "20%"}


@define
class Setting:
    """How a story begins."""

    document: Document
    habits: Habits
    clients: int
    arrival: float
    """Seconds over which the clients come."""
    rough: float = 0.0
    healthy: bool = True
    """Whether no handshake may fail."""
    bound: bool = True
    """Whether the bound of the load formula holds: every report is true."""
    each: Document = field(factory=dict)
    """Keys of each server."""
    copies: Document | None = None
    """The load balancer that gets copies, and how many."""
    tls: float = 0.2
    """How many connections are TLS, which neither half-closes nor goes to the kernel, where nothing else is wrong with them."""


@define(eq=False)
class Stage:
    """What a story works with."""

    world: World
    crowd: Crowd
    rng: Random
    balance: Balance
    setting: Setting
    balancer: Document = field(factory=dict)
    servers: list[int] = field(factory=list)

    def backend(self, number: int) -> SimBackend:
        return self.world.server(number)

    def any_backend(self) -> SimBackend:
        return self.backend(self.rng.choice(self.servers))

    def reload(self, servers: list[int] | None = None, **changes: Any) -> None:
        """Change the configuration: the servers, or keys of the load balancer."""
        if servers is not None:
            self.servers = servers
        self.balancer |= changes
        self.world.say(f"reload servers={self.servers} {changes}")
        made_of = document(
            urls(self.servers, **self.setting.each), copies=self.setting.copies, **self.balancer
        )
        self.world.reload(made_of)

    def come(self, count: int, over: float) -> None:
        """Let more clients come."""
        for _ in range(count):
            self.world.nursery.start_soon(self.crowd.run, self.rng.uniform(0, over))


Play = Callable[[Stage], Awaitable[None]]


@define(frozen=True)
class Story:
    """One kind of story: its setting, drawn, and what is done."""

    name: str
    set_up: Callable[[Random], Setting]
    play: Play


def urls(servers: list[int], **each: int) -> list[Document]:
    return [{"url": f"http://10.0.0.{number}:8080", **each} for number in servers]


def some(rng: Random, count: int = 3) -> list[int]:
    return list(range(1, rng.randint(2, count) + 1))


def setting(rng: Random, *, servers: int = 3, habits: Habits | None = None, **changes: Any) -> Setting:
    """Return a setting with truthful backends and polite clients; `changes` are keys of the load balancer, or fields."""
    fields = {
        name: changes.pop(name)
        for name in ("rough", "healthy", "bound", "grace", "each", "copies")
        if name in changes
    }
    grace, most = fields.pop("grace", "12s"), changes.pop("most", 11)
    balancer = {"connectionCount": COUNTING} | changes
    return Setting(
        document(
            urls(some(rng, servers), **fields.get("each", {})),
            grace=grace,
            copies=fields.get("copies"),
            **balancer,
        ),
        habits or Habits(),
        clients=rng.randint(4, most),
        arrival=rng.choice((0.0, 1.0, 10.0)),
        **fields,
    )


def wild(rng: Random) -> Habits:
    """Return the habits of clients and backends of every kind."""
    return Habits(
        lifetime=rng.choice((4.0, 15.0)),
        gap=rng.choice((1.0, 4.0)),
        sizes=(0, 1, 125, 126, 2000, 30_000),
        ends={
            "client": 4, "backend": 2, "both": 1, "reset": 1, "drop": 1, "vanish": 1, "half": 1, "backend reset": 1,
            "backend drop": 1, "backend vanish": 0.5,
        },
        manners={"polite": 8, "slow": 2, "deaf": 0.5, "mute": 0.5},
        stalls=0.2,
    )  # fmt: skip


# Stories.


async def burst(stage: Stage) -> None:
    """Clients come and stay: the real counts differ by one at most, whatever the reports' moments."""
    rng = stage.rng
    await trio.sleep(2.5)  # every backend has reported once
    for _ in range(rng.randint(1, 3)):
        stage.come(rng.randint(3, 15), rng.choice((0.0, 0.1, 2.0)))
        await trio.sleep(rng.uniform(3.0, 6.0))
        counts = [len(stage.backend(number).open) for number in stage.servers]
        if stage.world.table is not None and stage.world.table.maps.confused:
            return
        if max(counts) - min(counts) > 1:
            raise Violation(f"nobody left, and the counts are {counts}")


async def scale_out(stage: Stage) -> None:
    rng = stage.rng
    await trio.sleep(rng.uniform(8, 20))
    stage.reload([*stage.servers, 4], **({"rebalance": REBALANCING} if rng.random() < 0.7 else {}))
    if rng.random() < 0.3:
        stage.reload([*stage.servers, 5])
    await trio.sleep(rng.uniform(5, 15))
    if rng.random() < 0.5:
        stage.world.mover.rebalancer.start(stage.world.service)
    await trio.sleep(rng.uniform(10, 30))


async def crash(stage: Stage) -> None:
    rng = stage.rng
    for _ in range(rng.randint(1, 3)):
        await trio.sleep(rng.uniform(2, 10))
        server = stage.any_backend()
        server.reach = rng.choice(("refuses", "refuses", "blackhole"))
        how = rng.choice(("reset", "drop", "vanish"))
        stage.world.say(f"{server.url} {how}, {server.reach}")
        stage.crowd.break_down(server, how)
        await trio.sleep(rng.uniform(0.5, 12))
        server.reach = "up"


async def flapping(stage: Stage) -> None:
    rng, server = stage.rng, stage.any_backend()
    for _ in range(rng.randint(3, 12)):
        server.healthy = not server.healthy
        await trio.sleep(rng.choice((0.1, 1.0, 2.5, 5.0)))
        if rng.random() < 0.2:
            server = stage.any_backend()
    for number in stage.servers:
        stage.backend(number).healthy = True
    await trio.sleep(5)


async def lies(stage: Stage) -> None:
    rng = stage.rng
    for _ in range(rng.randint(2, 6)):
        server = stage.any_backend()
        server.reports = rng.choice(
            ("true", "zero", "high", "random", "stale", "garbage", "error", "hangs", "broken")
        )
        server.report_delay = rng.choice((0.002, 0.4, 2.0))
        server.foreign = rng.choice((0, 0, 5, 40))
        server.note()
        await trio.sleep(rng.uniform(1, 8))


async def reload_storm(stage: Stage) -> None:
    rng, world = stage.rng, stage.world
    for _ in range(rng.randint(5, 25)):
        roll = rng.random()
        if roll < 0.15:
            world.say("a reload that cannot work")
            world.reload(
                {**world.document, "http": {"services": {SERVICE: {"loadBalancer": {"servers": 5}}}}}
            )
        elif roll < 0.5:
            stage.reload(rng.sample(range(1, 6), rng.randint(1, 4)))
        elif roll < 0.7:
            stage.reload(onRemove=rng.choice(("drain", "keep")))
        elif roll < 0.8:
            stage.reload(strategy=rng.choice(("leastconn", "wrr", "p2c", "hrw", "iphash")))
        elif roll < 0.9:
            stage.reload(connectionCount={**COUNTING, "path": rng.choice(("/metric", "/other"))})
        else:
            for _ in range(rng.randint(1, 20)):
                world.reloader.request()
        await trio.sleep(rng.choice((0.0, 0.01, 0.3, 3.0)))
    stage.reload([1, 2, 3], strategy="leastconn")
    await trio.sleep(5)


async def drains(stage: Stage) -> None:
    """Drain during a reconnect storm."""
    rng, world = stage.rng, stage.world
    await trio.sleep(rng.uniform(3, 12))
    for _ in range(rng.randint(1, 3)):
        server = stage.any_backend()
        policy = DrainPolicy(
            rng.choice((1.0, 5.0, 50.0)), rng.choice((1001, 1012, 4000)), rng.choice((0.0, 3.0, 30.0))
        )
        world.drain(server.url, policy, service=rng.choice((None, SERVICE)))
        if rng.random() < 0.6:
            other = stage.any_backend()
            stage.crowd.break_down(other, rng.choice(("reset", "drop")))
            world.say(f"storm: {other.url} breaks down")
        await trio.sleep(rng.choice((0.05, 1.0, 10.0)))
        if rng.random() < 0.7:
            for drain in list(world.drains):
                world.ready(drain.key.url, service=drain.key.service)
    await trio.sleep(rng.uniform(1, 15))
    for drain in list(world.drains):
        world.ready(drain.key.url, service=drain.key.service)


async def rebalancing(stage: Stage) -> None:
    rng, world = stage.rng, stage.world
    await trio.sleep(rng.uniform(6, 12))
    away = stage.any_backend()
    world.drain(away.url, DrainPolicy(50.0, 1001, 10.0))
    await trio.sleep(rng.uniform(4, 12))
    world.ready(away.url)
    for _ in range(rng.randint(2, 6)):
        await trio.sleep(rng.uniform(1, 6))
        if rng.random() < 0.5:
            world.mover.rebalancer.start(world.service)
        if rng.random() < 0.3:
            stage.come(3, 0.0)
        if rng.random() < 0.2:
            stage.crowd.break_down(stage.any_backend(), "reset")


async def idle_by(stage: Stage) -> None:
    """Let time pass: limits, manners and the network do the rest."""
    await trio.sleep(stage.rng.uniform(15, 40))


async def weather(stage: Stage) -> None:
    """Take sessions away in the middle of it, while frames are in pieces on their way."""
    rng, world = stage.rng, stage.world
    for _ in range(rng.randint(2, 5)):
        await trio.sleep(rng.uniform(2, 8))
        server = stage.any_backend()
        world.drain(server.url, DrainPolicy(50.0, rng.choice((1001, 1012)), 20.0))
        await trio.sleep(rng.uniform(0.5, 4))
        world.ready(server.url)


async def handshakes(stage: Stage) -> None:
    rng = stage.rng
    for _ in range(rng.randint(2, 6)):
        server = stage.any_backend()
        server.answers = rng.choice(("accepts", "slow", "silent", "dies", "forbids", "garbage", "drops"))
        server.reach = rng.choice(("up", "up", "refuses", "blackhole"))
        await trio.sleep(rng.uniform(1, 6))
    for number in stage.servers:
        server = stage.backend(number)
        server.answers, server.reach = "accepts", "up"
    await trio.sleep(15)


async def stop_amid(stage: Stage) -> None:
    await trio.sleep(stage.rng.uniform(2, 15))
    stage.crowd.habits = evolve(stage.crowd.habits, returns=False)
    await stage.world.stop()


CHAOS: Final[tuple[Play, ...]] = (crash, flapping, lies, reload_storm, drains, rebalancing, handshakes)


async def chaos(stage: Stage) -> None:
    """Several of the others at once."""
    async with trio.open_nursery() as nursery:
        for play in stage.rng.sample(CHAOS, 3):
            stage.world.say(f"chaos: {play.__name__}")
            nursery.start_soon(play, stage)


# Their settings.


def calm(rng: Random) -> Setting:
    return setting(rng, servers=5, habits=Habits(ends={"stay": 1}, lifetime=1e6, gap=5.0), grace="10s")


def loyal(rng: Random) -> Setting:
    return setting(rng, habits=Habits(lifetime=60.0, gap=6.0), slowStart=rng.choice(("0s", "5s")))


def broken(rng: Random) -> Setting:
    each = rng.choice(({}, {"maxPending": 1}, {"maxPending": 2, "maxConnections": 4}))
    return setting(rng, healthCheck=CHECKING, rough=0.2, healthy=False, bound=False, each=each)


def doubtful(rng: Random) -> Setting:
    return setting(rng, healthCheck=CHECKING, healthy=False, bound=False)


def lying(rng: Random) -> Setting:
    return setting(rng, bound=False)


def draining(rng: Random) -> Setting:
    return setting(rng, servers=4, healthy=False, habits=Habits(lifetime=30.0, pause=rng.choice((0.02, 1.0))))


def shifting(rng: Random) -> Setting:
    return setting(rng, servers=4, healthy=False, rebalance=REBALANCING, habits=Habits(lifetime=60.0))


def limited(rng: Random) -> Setting:
    session: Document = {}
    if rng.random() < 0.6:
        session |= {"pingInterval": rng.choice(("1s", "3s")), "pongTimeout": rng.choice(("6s", "9s"))}
    if rng.random() < 0.4:
        session["idleTimeout"] = rng.choice(("3s", "8s"))
    if rng.random() < 0.4:
        session |= {"maxLifetime": rng.choice(("5s", "20s")), "lifetimeJitter": "50%"}
    if rng.random() < 0.3:
        session["maxMessageBytes"] = rng.choice((125, 699, 4000))
    if rng.random() < 0.3:
        session["messageRate"] = rng.choice(("2/s", "20/s"))
    if rng.random() < 0.2:
        session["byteRate"] = rng.choice((1024, 5000))
    habits = Habits(
        gap=rng.choice((1.5, 5.0)),
        manners={"polite": 4, "mute": 1, "deaf": 0.5} if rng.random() < 0.5 else {"polite": 1},
        sizes=(0, 5, 125, 126, 700, 3000),
    )
    return setting(rng, most=8, habits=habits, session=session, rough=rng.choice((0.0, 0.3)))


def rough(rng: Random) -> Setting:
    return setting(rng, most=9, habits=wild(rng), rough=0.6, healthy=False, session={"writeTimeout": "5s"})


def anything(rng: Random) -> Setting:
    session = limited(rng).document["http"]["services"][SERVICE]["loadBalancer"].get("session", {})
    return setting(
        rng,
        servers=4,
        most=7,
        habits=wild(rng),
        rough=0.3,
        healthy=False,
        bound=False,
        healthCheck=CHECKING,
        session=session,
    )


TROUBLES: Final[tuple[Story, ...]] = (
    Story("burst", calm, burst),
    Story("scale-out", loyal, scale_out),
    Story("crash", broken, crash),
    Story("flapping", doubtful, flapping),
    Story("lies", lying, lies),
    Story("reload-storm", doubtful, reload_storm),
    Story("drain", draining, drains),
    Story("rebalance", shifting, rebalancing),
    Story("limits", limited, idle_by),
    Story("network", rough, weather),
    Story("handshakes", broken, handshakes),
    Story("stop", limited, stop_amid),
    Story("chaos", anything, chaos),
)
