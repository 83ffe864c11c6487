"""The requests that move sessions: what they mean, what they answer, and every way in which they can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.herd import herd
from tests.daemon.state import PODS, World, make_world
from trio_wsb.daemon.build import prepare
from trio_wsb.daemon.control import ControlRequest
from trio_wsb.daemon.operations import Operations
from trio_wsb.errors import HTTPError
from trio_wsb.observe.events import Kind

SERVICES = {
    "http": {
        "services": {
            "chat": {
                "loadBalancer": {
                    "servers": [{"url": pod} for pod in PODS],
                    "drain": {"rate": "5/s", "closeCode": 4001, "timeout": "1h"},
                    "rebalance": {"minAge": 0},
                }
            },
            "site": {"loadBalancer": {"servers": [{"url": PODS[0]}], "drain": {"rate": "7/s"}}},
            "both": {"failover": {"service": "chat", "fallback": "site"}},
        }
    }
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, SERVICES)


async def ask(world: World, method: str, path: str, **document: object) -> dict[str, Any]:
    answer = await Operations(world.state).routes[method, path](ControlRequest({}, document))
    assert answer.status == 200
    assert isinstance(answer.document, dict)
    return answer.document


async def refused(world: World, path: str, **document: object) -> tuple[int, str]:
    with pytest.raises(HTTPError) as caught:
        await ask(world, "POST", path, **document)
    return caught.value.status, caught.value.reason


async def test_a_drain_and_its_view(world: World, autojump_clock: object) -> None:
    async with herd(world, 30, service="chat"):
        began = await ask(world, "POST", "/drain", backend=PODS[0], rate="2/s")
        assert began == {
            "backend": PODS[0],
            "service": None,
            "state": "draining",
            "onRemove": False,
            "rate": 2.0,
            "currentRate": 2.0,
            "closeCode": 4001,
            "timeout": 3600.0,
            "timedOut": False,
            "total": 0,
            "closing": 0,
            "ended": 0,
            "cut": 0,
            "left": 10,
            "duration": 0.0,
        }
        await trio.sleep(2.5)
        (seen,) = (await ask(world, "GET", "/drain"))["drains"]
        assert seen["total"] == 10
        assert seen["ended"] + seen["left"] == 10
        assert 4 <= seen["ended"] <= 6
        status = await ask(world, "GET", "/status")
        states = [(each["service"], each["state"], each["drain"] is None) for each in status["backends"]]
        assert states == [
            ("chat", "draining", False),
            ("chat", "ready", True),
            ("chat", "ready", True),
            ("site", "draining", False),
        ]
        listed = await ask(world, "GET", "/sessions")
        assert {(each["backend"], each["draining"]) for each in listed["sessions"]} == {
            (PODS[0], True),
            (PODS[1], False),
            (PODS[2], False),
        }
        # Again, with another rate and what it had.
        again = await ask(world, "POST", "/drain", backend=PODS[0], rate=100)
        assert (again["rate"], again["closeCode"], again["timeout"]) == (100.0, 4001, 3600.0)
        await trio.sleep(3)
        (seen,) = (await ask(world, "GET", "/drain"))["drains"]
        assert (seen["state"], seen["ended"], seen["left"]) == ("drained", 10, 0)
        status = await ask(world, "GET", "/status")
        assert status["backends"][0]["state"] == "drained"
        ready = await ask(world, "POST", "/ready", backend=PODS[0])
        assert ready["backend"] == PODS[0]
        assert [each["ended"] for each in ready["drains"]] == [10]
        assert (await ask(world, "POST", "/ready", backend=PODS[0]))["drains"] == []
        assert (await ask(world, "GET", "/status"))["backends"][0]["state"] == "ready"
        told = [(event.kind.value, event.details["backend"]) for event in world.state.events]
        assert told == [(kind, PODS[0]) for kind in ("drain_started", "drain_done", "backend_ready")]


async def test_the_gentlest_policy_where_services_share_a_backend(world: World) -> None:
    assert (await ask(world, "POST", "/drain", backend=PODS[0]))["rate"] == 5.0
    assert (await ask(world, "POST", "/drain", backend=PODS[0], service="site"))["rate"] == 7.0


async def test_ready_in_one_service(world: World) -> None:
    await ask(world, "POST", "/drain", backend=PODS[0], service="chat")
    await ask(world, "POST", "/drain", backend=PODS[0], service="site")
    gone = await ask(world, "POST", "/ready", backend=PODS[0], service="site")
    assert [each["service"] for each in gone["drains"]] == ["site"]
    await ask(world, "POST", "/drain", backend=PODS[0])
    assert await refused(world, "/ready", backend=PODS[0], service="chat") == (
        409,
        f"{PODS[0]} is drained in every service; make it ready without naming one",
    )
    gone = await ask(world, "POST", "/ready", backend=PODS[0])
    assert [each["service"] for each in gone["drains"]] == ["chat", None]


@pytest.mark.parametrize(
    "name", ["http://10.0.0.2:8080", "10.0.0.2:8080", "10.0.0.2", "pod-2", "ws://10.0.0.2:8080/"]
)
async def test_names_of_a_backend(world: World, name: str) -> None:
    world.backend(PODS[1]).pod_name = "pod-2"
    assert (await ask(world, "POST", "/drain", backend=name))["backend"] == PODS[1]


async def test_one_that_has_left_the_configuration_can_be_made_ready(world: World) -> None:
    await ask(world, "POST", "/drain", backend=PODS[1])
    world.write({"wsbalancer": {"pods": [PODS[0]]}})
    world.apply(prepare(world.path))
    assert len((await ask(world, "POST", "/ready", backend=PODS[1]))["drains"]) == 1
    assert (await refused(world, "/ready", backend=PODS[1]))[0] == 404


@pytest.mark.parametrize(
    ("document", "status", "reason"),
    [
        ({}, 400, 'the body must have "backend"'),
        ({"backend": 5}, 400, "backend must be a string"),
        ({"backend": "x", "force": True}, 400, 'there is no key "force"; there are backend, closeCode, rate, service, timeout'),
        ({"backend": "10.0.0.4:8080"}, 404, 'no backend "10.0.0.4:8080"; did you mean "10.0.0.'),
        ({"backend": "zebra"}, 404, 'no backend "zebra"; there are http://10.0.0.1:8080, http://10.0.0.2:8080, https://10.0.0.3'),
        ({"backend": "10.0.0.2", "service": "site"}, 404, 'no backend "10.0.0.2" in the service "site"; did you mean "10.0.0.1"?'),
        ({"backend": "10.0.0.2", "service": "chta"}, 404, 'no service "chta"; did you mean "chat"?'),
        ({"backend": "10.0.0.2", "service": "both"}, 404, '"both" has no backends of its own; name one of its parts'),
        ({"backend": "10.0.0.2", "rate": 0}, 400, "rate: is no pace that sessions can be ended at (write a rate such as"),
        ({"backend": "10.0.0.2", "rate": "x"}, 400, "rate: is not a rate (write a rate such as"),
        ({"backend": "10.0.0.2", "rate": [1]}, 400, "rate: is not a rate"),
        ({"backend": "10.0.0.2", "closeCode": 1006}, 400, "closeCode: is not a close code that may be sent"),
        ({"backend": "10.0.0.2", "closeCode": "1001"}, 400, "closeCode: is not a whole number"),
        ({"backend": "10.0.0.2", "closeCode": True}, 400, "closeCode: is not a whole number"),
        ({"backend": "10.0.0.2", "timeout": "soon"}, 400, "timeout: is not a duration"),
        ({"backend": "10.0.0.2", "timeout": -1}, 400, "timeout: is negative"),
    ],
)  # fmt: skip
async def test_wrong_requests(world: World, document: dict[str, object], status: int, reason: str) -> None:
    found = await refused(world, "/drain", **document)
    assert found[0] == status
    assert found[1].startswith(reason)
    assert len(world.state.mover.drains) == 0


async def test_one_that_means_several(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"wsbalancer": {"pods": ["http://10.0.0.1:81", "http://10.0.0.1:82"]}})
    assert await refused(world, "/drain", backend="10.0.0.1") == (
        409,
        '"10.0.0.1" means 2 backends: http://10.0.0.1:81 and http://10.0.0.1:82; write which',
    )


async def test_a_daemon_that_stops_drains_nothing(world: World) -> None:
    world.proxy.stop()
    assert await refused(world, "/drain", backend=PODS[0]) == (503, "the daemon is stopping")


async def test_parameters_are_not_for_these(world: World) -> None:
    for key, handler in Operations(world.state).routes.items():
        if key[1] in {"/drain", "/ready", "/rebalance"}:
            with pytest.raises(HTTPError, match="there is no parameter of that name"):
                await handler(ControlRequest({"backend": "x"}, {}))


async def test_rebalancing(world: World, autojump_clock: object) -> None:
    async with herd(world, 30, service="chat") as clients:
        await ask(world, "POST", "/drain", backend=PODS[2], rate="100/s")
        await trio.sleep(5)
        await ask(world, "POST", "/ready", backend=PODS[2])
        dry = await ask(world, "POST", "/rebalance", service="chat", dryRun=True)
        assert dry == {
            "dryRun": True,
            "services": [
                {
                    "service": "chat",
                    "outcome": "planned",
                    "reason": "",
                    "sessions": 10,
                    "backends": [
                        {"url": PODS[0], "load": 15, "live": 15, "share": 10.0, "sheds": 5},
                        {"url": PODS[1], "load": 15, "live": 15, "share": 10.0, "sheds": 5},
                        {"url": PODS[2], "load": 0, "live": 0, "share": 10.0, "sheds": 0},
                    ],
                }
            ],
        }
        assert (await ask(world, "GET", "/rebalance"))["services"] == [
            {"service": name, "enabled": False, "running": False, "quietFor": 0.0, "plan": None}
            for name in ("chat", "site")
        ]
        both = await ask(world, "POST", "/rebalance")
        assert [(each["service"], each["outcome"]) for each in both["services"]] == [
            ("chat", "planned"),
            ("site", "impossible"),
        ]
        services = (await ask(world, "GET", "/status"))["services"]
        assert services[0]["rebalance"]["running"] is True
        await trio.sleep(10)
        (chat, _) = (await ask(world, "GET", "/rebalance"))["services"]
        assert (chat["running"], chat["plan"]["shed"], chat["plan"]["askedFor"]) == (False, 10, True)
        assert 0 < chat["quietFor"] <= 30
        assert list(clients.live().values()) == [10, 10, 10]
        done = list(world.state.events)[-1]
        assert (done.kind, done.details["shed"]) == (Kind.REBALANCE_DONE, 10)


@pytest.mark.parametrize(
    ("document", "status", "reason"),
    [
        ({"service": "zebra"}, 404, 'no service "zebra"; there are chat, site'),
        ({"service": 1}, 400, "service must be a string"),
        ({"dryRun": "yes"}, 400, "dryRun must be true or false"),
        ({"backend": "x"}, 400, 'there is no key "backend"; there are dryRun, service'),
    ],
)
async def test_wrong_rebalancing(world: World, document: dict[str, object], status: int, reason: str) -> None:
    assert await refused(world, "/rebalance", **document) == (status, reason)
