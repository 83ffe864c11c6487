"""An hour with 500 containers that start, fall ill, pause and die at random, over an Engine that goes away now and then.

Time is virtual. After every step the table is compared with what the simulation itself knows, down to the servers of each service in
the configuration that the daemon would run, and sessions live on as long as their containers do.
"""

from __future__ import annotations

import gc
from pathlib import Path
from random import Random

import trio
from attrs import define

from tests.daemon.state import World, make_world
from tests.providers.engine import Engine, transport
from trio_wsb.addresses import parse_backend_url
from trio_wsb.daemon.build import Prepared, prepare, prepare_again
from trio_wsb.net.memory import MemoryChannel
from trio_wsb.providers.docker import LONGEST_PAUSE, DockerProviderTask

CONTAINERS = 500
SERVICES = 12
STEP = 15.0
STEPS = 120
SESSIONS = 60


@define
class One:
    """A container as the simulation knows it."""

    service: int
    ip: str
    health: str = ""
    paused: bool = False
    bad: bool = False

    @property
    def url(self) -> str:
        return f"http://{self.ip}:9000"

    @property
    def serves(self) -> bool:
        return self.health in {"", "healthy"} and not self.paused and not self.bad


class Fleet:
    """The containers, and what happens to them."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.engine = Engine()
        self.ones: dict[str, One] = {}
        self.addresses = [f"10.1.{number // 250}.{number % 250 + 1}" for number in range(4 * CONTAINERS)]
        rng.shuffle(self.addresses)
        for _ in range(CONTAINERS):
            self.start()

    def start(self) -> None:
        service, ip = self.rng.randrange(SERVICES), self.addresses.pop()
        one = One(service, ip, self.rng.choice(("", "", "starting")), bad=self.rng.random() < 0.03)
        labels = {
            f"traefik.http.routers.r{service}.rule": f"Host(`s{service}.test`)",
            f"traefik.http.services.s{service}.loadbalancer.server.port": "9000",
            f"traefik.http.services.s{service}.loadbalancer.connectioncount.path": "/metric",
        }
        if one.bad:
            labels[f"traefik.http.services.s{service}.loadbalancer.server.wieght"] = "2"
        identity = self.engine.start(f"c-{ip}", labels, ip=ip, health=one.health)
        self.ones[identity] = one

    def step(self) -> None:
        """Let a few things happen."""
        for _ in range(self.rng.randrange(18)):
            identity = self.rng.choice(list(self.ones))
            one = self.ones[identity]
            match self.rng.randrange(4):
                case 0:
                    self.addresses.insert(0, one.ip)
                    self.engine.stop(identity)
                    del self.ones[identity]
                case 1 if one.health:
                    one.health = self.rng.choice(("healthy", "healthy", "unhealthy"))
                    self.engine.turn(identity, one.health)
                case 2:
                    one.paused = not one.paused
                    self.engine.pause(identity, paused=one.paused)
                case _:
                    if len(self.ones) < CONTAINERS + 20:
                        self.start()

    def servers(self) -> dict[str, set[str]]:
        expected: dict[str, set[str]] = {}
        for one in self.ones.values():
            if one.serves:
                expected.setdefault(f"s{one.service}@docker", set()).add(one.url)
        return expected


def configured(prepared: Prepared) -> dict[str, set[str]]:
    balancers = {name: service.load_balancer for name, service in prepared.config.http.services.items()}
    return {
        name: {str(server.url) for server in balancer.servers}
        for name, balancer in balancers.items()
        if balancer is not None
    }


async def test_an_hour(tmp_path: Path, autojump_clock: object) -> None:
    rng = Random(7)
    fleet = Fleet(rng)
    world = make_world(tmp_path, {"providers": {"docker": {}}, "http": {}})
    task = DockerProviderTask(lambda: None, rng=rng, transport=transport(fleet.engine))
    current = prepare(world.path)
    docker = current.config.providers.docker
    assert docker is not None
    task.configure(docker)
    weights = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task.run)
        nursery.start_soon(world.proxy.sweeper.run)
        await task.known(60)
        sessions: dict[str, MemoryChannel] = {}
        for number in range(STEPS):
            away = number % 30 == 29
            fleet.engine.down = away
            if away or number % 10 == 9:
                fleet.engine.hang_up()
            fleet.step()
            await trio.sleep(STEP)
            if away:
                assert task.standing.state == "away"
                fleet.engine.down = False
                await trio.sleep(LONGEST_PAUSE * 1.25 + 1)
            assert task.standing.state == "ok"
            assert task.found is not None
            assert {each.id for each in task.found.containers} == set(fleet.ones)
            current = prepare_again(current, task.found) or current
            assert current.discovered is not None
            assert configured(current) == fleet.servers()
            assert {each.id for each in current.discovered.states if each.verdict == "bad"} == {
                identity
                for identity, one in fleet.ones.items()
                if one.bad and one.health in {"", "healthy"} and not one.paused
            }
            world.apply(current)
            await hold_sessions(world, nursery, fleet, sessions, rng)
            if number % 40 == 39:
                gc.collect()
                weights.append(len(gc.get_objects()))
        assert len(sessions) > SESSIONS // 2
        nursery.cancel_scope.cancel()
    # Of containers that are gone nothing is left: the middle of the hour and its end weigh the same.
    assert max(weights) < 1.1 * min(weights)
    looks = fleet.engine.asked["/containers/ID/json"]
    assert looks < 40 * CONTAINERS


async def hold_sessions(
    world: World, nursery: trio.Nursery, fleet: Fleet, sessions: dict[str, MemoryChannel], rng: Random
) -> None:
    """Open a few more sessions, end those of containers that have died, and see that the others are counted where they are."""
    living = {one.url for one in fleet.ones.values()}
    for url in [url for url in sessions if url not in living]:
        client = sessions.pop(url)
        client.abort()
    await trio.sleep(STEP)  # what a backend may take to take its Close
    free = [one.url for one in fleet.ones.values() if one.serves and one.url not in sessions]
    for url in rng.sample(sorted(free), 2 if len(sessions) < SESSIONS else 0):
        sessions[url] = await world.open(nursery, url)
    assert len(world.proxy.sessions) == len(sessions)
    for url in sessions:
        assert world.backends.get(parse_backend_url(url)).live == 1
