"""More stories: clients with cookies, plain requests, mirrors, much traffic, and lies in the middle of a storm."""

from __future__ import annotations

from random import Random
from typing import Final

import trio

from tests.simulation.crowd import Habits
from tests.simulation.stories import (
    CHECKING,
    TROUBLES,
    Setting,
    Stage,
    Story,
    drains,
    lies,
    limited,
    setting,
    urls,
    weather,
    wild,
)
from tests.simulation.world import COPIES_AT, Document
from trio_wsb.balancing.moving import DrainPolicy

STICKY: Final[Document] = {"cookie": {"name": "home"}}


def returning(rng: Random) -> Setting:
    habits = Habits(
        lifetime=4.0, gap=2.0, pause=rng.choice((0.1, 1.0)), ends={"client": 3, "backend": 1, "drop": 1}
    )
    return setting(rng, servers=4, most=7, bound=False, sticky=STICKY, habits=habits)


async def cookies(stage: Stage) -> None:
    """Clients come back, and their cookies lead them home wherever home is open, whatever the counts say."""
    rng, world = stage.rng, stage.world
    await trio.sleep(rng.uniform(8, 15))
    if rng.random() < 0.5:
        stage.any_backend().reports = rng.choice(("zero", "high", "garbage"))
    if rng.random() < 0.5:
        stage.reload([*stage.servers, 5])
    await trio.sleep(rng.uniform(5, 10))
    away = stage.any_backend()
    stage.crowd.disturbed.add(away.url)
    if rng.random() < 0.5:
        world.drain(away.url, DrainPolicy(rng.choice((2.0, 50.0)), 1012, 5.0))
    else:
        away.reach = "refuses"
    await trio.sleep(rng.uniform(3, 8))
    away.reach = "up"
    for drain in list(world.drains):
        world.ready(drain.key.url, service=drain.key.service)
    await trio.sleep(rng.uniform(4, 10))


def asking(rng: Random) -> Setting:
    habits = Habits(lifetime=6.0, plain=0.7, pause=0.5)
    return setting(rng, servers=4, most=8, bound=False, healthCheck=CHECKING, habits=habits, healthy=False)


async def requests(stage: Stage) -> None:
    """Plain requests of every kind, while backends fall over."""
    rng = stage.rng
    for _ in range(rng.randint(2, 5)):
        await trio.sleep(rng.uniform(2, 6))
        server = stage.any_backend()
        server.answers = rng.choice(("accepts", "slow", "silent", "dies", "forbids", "garbage"))
        server.reach = rng.choice(("up", "up", "refuses"))
        if rng.random() < 0.4:
            stage.crowd.break_down(server, rng.choice(("reset", "drop", "vanish")))
        if rng.random() < 0.3:
            stage.reload()
    for number in stage.servers:
        server = stage.backend(number)
        server.answers, server.reach = "accepts", "up"
    await trio.sleep(8)


def mirrored(rng: Random) -> Setting:
    copies = {"servers": urls(list(COPIES_AT)), "percent": rng.choice((40, 100))}
    habits = Habits(lifetime=10.0, gap=1.0, plain=0.1, sizes=(0, 5, 126, 3000))
    return setting(rng, most=7, habits=habits, copies=copies)


async def mirrors(stage: Stage) -> None:
    """What becomes of the copies is nobody's concern but theirs."""
    rng, copies = stage.rng, stage.crowd.copies
    for _ in range(rng.randint(2, 5)):
        await trio.sleep(rng.uniform(3, 8))
        server = stage.backend(rng.choice(COPIES_AT))
        server.answers = rng.choice(("accepts", "accepts", "silent", "dies", "forbids", "garbage"))
        server.reach = rng.choice(("up", "up", "refuses", "blackhole"))
        copies.trouble = rng.choice(("", "", "slow", "deaf", "reset", "drop"))
        if rng.random() < 0.3:
            stage.world.drain(server.url, DrainPolicy(10.0, 1001, 3.0))
            await trio.sleep(rng.uniform(0.5, 3))
            stage.world.ready(server.url)
        if rng.random() < 0.3:
            stage.reload([*stage.servers, 4])
    for number in COPIES_AT:
        server = stage.backend(number)
        server.answers, server.reach = "accepts", "up"
    copies.trouble = ""
    await trio.sleep(8)


def busy(rng: Random) -> Setting:
    session = limited(rng).document["http"]["services"]["chat"]["loadBalancer"].get("session", {})
    session.pop("maxMessageBytes", None)
    habits = Habits(
        lifetime=9.0,
        gap=0.4,
        sizes=(0, 1, 5, 125, 126, 2000, 30_000),
        pushes=0.9,
        echoes=0.5,
        ends=wild(rng).ends,
        manners={"polite": 4, "dozy": 4, "slow": 0.5, "deaf": 0.3},
        stalls=0.1,
    )
    return setting(rng, most=5, habits=habits, rough=rng.choice((0.0, 0.5)), healthy=False, session=session)


def surging(rng: Random) -> Setting:
    habits = Habits(lifetime=30.0, pause=0.02)
    return setting(rng, servers=4, healthy=False, bound=False, habits=habits, healthCheck=CHECKING)


async def storm(stage: Stage) -> None:
    """Everybody comes back at once, while backends are drained and their reports cannot be believed."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drains, stage)
        nursery.start_soon(lies, stage)


ERRANDS: Final[tuple[Story, ...]] = (
    Story("sticky", returning, cookies),
    Story("requests", asking, requests),
    Story("mirrors", mirrored, mirrors),
    Story("traffic", busy, weather),
    Story("storm", surging, storm),
)

STORIES: Final[tuple[Story, ...]] = TROUBLES + ERRANDS
