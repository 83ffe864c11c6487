"""Reloads come one at a time, everybody gets the outcome of one that began after asking, and none ends the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import yaml
from structlog.testing import capture_logs

from tests.daemon.state import PODS, World, make_world
from trio_wsb.daemon.build import Prepared, prepare
from trio_wsb.daemon.reload import Reloader, ReloadOutcome
from trio_wsb.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("_patience")


@pytest.fixture
async def _patience(nursery: trio.Nursery) -> None:
    """Bound the test: a reload that is never answered must not hang it."""
    nursery.cancel_scope.deadline = trio.current_time() + 30


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


async def test_an_outcome_says_what_happened(world: World, nursery: trio.Nursery) -> None:
    nursery.start_soon(world.reloader.run)
    good = await world.reloader.reload()
    assert (good.succeeded, good.problems, good.warnings) == (True, (), ())
    assert world.reloader.last is good
    assert world.reloader.loaded_at <= good.finished_at
    loaded_at, current = world.reloader.loaded_at, world.reloader.current
    world.path.write_text("wsbalancer: {pods: [], x: 1}")
    bad = await world.reloader.reload()
    assert not bad.succeeded
    assert [problem.partition(" ")[0] for problem in bad.problems] == [
        f"{world.path}:1:20",
        f"{world.path}:1:24",
    ]
    assert (world.reloader.loaded_at, world.reloader.current) == (loaded_at, current)
    assert (world.reloader.succeeded, world.reloader.failed) == (1, 1)


async def test_who_asks_while_one_is_under_way_gets_the_next_and_shares_it(
    world: World, nursery: trio.Nursery
) -> None:
    entered, rounds = trio.Event(), 0

    def begins() -> None:
        nonlocal rounds
        rounds += 1
        entered.set()

    reloader = Reloader(world.path, world.apply, begins=begins)
    outcomes: list[ReloadOutcome] = []

    async def ask() -> None:
        outcomes.append(await reloader.reload())

    nursery.start_soon(reloader.run)
    async with trio.open_nursery() as asking:
        asking.start_soon(ask)
        await entered.wait()
        # From here on the first reload is under way: it may have read the file before this is written.
        world.write({"wsbalancer": {"pods": PODS[:1]}})
        reloader.request()
        for _ in range(50):
            asking.start_soon(ask)
    assert rounds == 2
    assert len({id(outcome) for outcome in outcomes}) == 2
    assert len([outcome for outcome in outcomes if outcome is reloader.last]) == 50
    assert len(world.proxy.runtime.services["wsbalancer"].pool.members) == 1


async def test_requests_before_the_first_round_share_it(world: World, nursery: trio.Nursery) -> None:
    for _ in range(100):
        world.reloader.request()
    nursery.start_soon(world.reloader.run)
    await world.reloader.reload()
    assert world.reloader.succeeded == 1


async def test_who_stops_waiting_has_still_asked(world: World, nursery: trio.Nursery) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await world.reloader.reload()
    assert scope.cancelled_caught
    nursery.start_soon(world.reloader.run)
    await world.reloader.reload()
    assert world.reloader.succeeded == 1


@pytest.mark.parametrize("fault", [ValueError("secret"), RuntimeError(), OSError(5, "I/O error")])
async def test_a_fault_of_our_own_is_an_outcome_too(
    world: World, nursery: trio.Nursery, fault: Exception
) -> None:
    def apply(_: Prepared) -> None:
        raise fault

    reloader = Reloader(world.path, apply)
    nursery.start_soon(reloader.run)
    with capture_logs() as logged:
        outcome = await reloader.reload()
    assert outcome.problems == (f"internal error: {type(fault).__name__}; the log has more",)
    assert next(line["event"] for line in logged if line["log_level"] == "error") == (
        "internal error in a reload"
    )
    again = await reloader.reload()
    assert not again.succeeded
    assert reloader.failed == 2


async def test_what_apply_refuses_is_a_problem(world: World, nursery: trio.Nursery) -> None:
    def apply(_: Prepared) -> None:
        raise ConfigurationError(["entryPoints.web.address: cannot listen on :80: permission denied"])

    reloader = Reloader(world.path, apply)
    nursery.start_soon(reloader.run)
    assert (await reloader.reload()).problems == (
        "entryPoints.web.address: cannot listen on :80: permission denied",
    )


async def test_a_moved_control_socket_waits_for_a_restart(world: World, nursery: trio.Nursery) -> None:
    nursery.start_soon(world.reloader.run)
    document = yaml.safe_load(world.path.read_text())
    world.write(document | {"control": {"socket": "/run/elsewhere.sock"}})
    for _ in range(2):  # as long as it is so, it is said
        outcome = await world.reloader.reload()
        assert outcome.succeeded
        assert outcome.warnings == ("control: the control socket stays where it is until a restart",)
    world.write(document)
    assert (await world.reloader.reload()).warnings == ()


async def test_what_the_kernel_relay_is_waits_for_a_restart(world: World, nursery: trio.Nursery) -> None:
    nursery.start_soon(world.reloader.run)
    document = yaml.safe_load(world.path.read_text())
    world.write(document | {"kernelRelay": {"inFlight": "64KiB"}})
    outcome = await world.reloader.reload()
    assert outcome.warnings == ("kernelRelay: the relay in the kernel stays as it is until a restart",)
    world.write(document)
    assert (await world.reloader.reload()).warnings == ()


async def test_who_wants_the_kernel_relay_too_late_is_told(tmp_path: Path, nursery: trio.Nursery) -> None:
    servers = {"servers": [{"url": PODS[0]}]}

    def write(relay: str) -> None:
        services = {"s": {"loadBalancer": {**servers, "relay": relay}}}
        path.write_text(yaml.safe_dump({"http": {"services": services}}))

    path = tmp_path / "f.yaml"
    write("stream")
    reloader = Reloader(path, lambda _: None)
    nursery.start_soon(reloader.run)
    reloader.begin(prepare(path))
    for relay in ("kernel", "auto"):
        write(relay)
        assert (await reloader.reload()).warnings == (
            "relay: no service wanted the relay in the kernel at the start, so there is none until a restart",
        )
    write("stream")
    assert (await reloader.reload()).warnings == ()
