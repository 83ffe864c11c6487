"""From services in a file to the tree that requests go through, over a reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.config.helpers import config
from tests.daemon.state import World, make_world
from trio_wsb.background.probe import HealthTarget
from trio_wsb.balancing.discovery import NameTable
from trio_wsb.balancing.health import Question
from trio_wsb.balancing.passive import PassivePolicy
from trio_wsb.balancing.sticky import sticky_value
from trio_wsb.daemon.build import prepare
from trio_wsb.daemon.services import health_targets, passive_policies
from trio_wsb.daemon.views import Moment, services, status
from trio_wsb.proxy.services import MirroringRuntime, WeightedRuntime

SERVERS = {"servers": [{"url": "http://10.0.0.1/"}]}
QUIET = {"enabled": False, "running": False, "quietFor": 0.0, "plan": None}


def document(**services: Any) -> dict[str, Any]:
    return {"http": {"services": services}}


def part(*names: str) -> dict[str, Any]:
    return {"weighted": {"services": [{"name": name} for name in names]}}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(
        tmp_path,
        document(
            top=part("spare", "copied"),
            spare={"failover": {"service": "one", "fallback": "two"}},
            copied={"mirroring": {"service": "one", "mirrors": [{"name": "two", "percent": 25}]}},
            one={"loadBalancer": {**SERVERS, "healthCheck": {"path": "/health"}, "sticky": {"cookie": {}}}},
            two={"loadBalancer": {"servers": [{"url": "http://10.0.0.2"}]}},
        ),
    )


def test_the_tree(world: World) -> None:
    runtime = world.proxy.runtime
    assert list(runtime.services) == ["one", "two"]
    top = runtime.parents["top"]
    assert isinstance(top, WeightedRuntime)
    assert top.parts[1][0] is runtime.parents["copied"]
    copied = runtime.parents["copied"]
    assert isinstance(copied, MirroringRuntime)
    assert copied.service is runtime.services["one"]
    assert [mirror.share for mirror in copied.mirrors] == [0.25]
    assert copied.max_body == 1 << 20
    one = runtime.services["one"]
    assert one.sticky is not None
    assert one.sticky.name.startswith("_")
    (member,) = one.pool.members
    assert (member.sticky, member.max_pending) == (sticky_value("http://10.0.0.1/"), 256)


def test_the_view(world: World) -> None:
    assert services(world.state) == [
        {"name": "one", "strategy": "leastconn", "rebalance": QUIET},
        {"name": "two", "strategy": "leastconn", "rebalance": QUIET},
        {"name": "copied", "strategy": "mirroring", "parts": ["one", "two"]},
        {"name": "spare", "strategy": "failover", "parts": ["one", "two"]},
        {"name": "top", "strategy": "weighted", "parts": ["spare", "copied"]},
    ]


def health_of(world: World, now: float) -> tuple[Any, Any]:
    found: Any = status(world.state, Moment(now, 1e9))["backends"]
    (one,) = [each for each in found if each["service"] == "one"]
    return one["state"], one["health"]


def test_health_in_the_view_and_over_a_reload(world: World) -> None:
    unknown = {"path": "/health", "mode": "http", "up": None, "checkedAgo": None, "problem": None}
    assert health_of(world, 1.0) == ("ready", unknown)
    (entry,) = world.health
    world.health.failed(entry.key, "answered 503", 5.0, fall=1)
    down = {"path": "/health", "mode": "http", "up": False, "checkedAgo": 2.5, "problem": "answered 503"}
    assert health_of(world, 7.5) == ("down", down)
    world.apply(prepare(world.path))
    assert health_of(world, 7.5) == ("down", down)


def test_the_round_of_a_weighted_service_goes_on_over_a_reload(world: World) -> None:
    before = world.proxy.runtime.parents["top"]
    assert isinstance(before, WeightedRuntime)
    first = before.choose(0.0)
    world.apply(prepare(world.path))
    after = world.proxy.runtime.parents["top"]
    assert isinstance(after, WeightedRuntime)
    assert after.choose(0.0).name != first.name


CHECKED = """\
http:
  services:
    one:
      loadBalancer:
        servers: [{url: http://10.0.0.1}]
        healthCheck: {path: /h, mode: websocket, port: 81, interval: 10s, rise: 3, headers: {X-One: "1"}}
        passiveHealthCheck: {maxFailedAttempts: 5, failureWindow: 30s}
    two:
      loadBalancer:
        servers: [{url: http://10.0.0.1}, {url: http://10.0.0.2}]
        passiveHealthCheck: {maxFailedAttempts: 3, failureWindow: 60s}
"""


def test_what_is_checked() -> None:
    http = config(CHECKED).http
    (target,) = health_targets(http, lambda _: None, NameTable())
    question = Question("/h", mode="websocket", port=81, headers=(("X-One", "1"),))
    url = target.url
    assert target == HealthTarget(url, question, 10.0, 10.0, 5.0, rise=3, fall=2)
    assert str(target.address) == "http://10.0.0.1:81"


def test_the_stricter_passive_policy_counts() -> None:
    policies = passive_policies(config(CHECKED).http, NameTable())
    assert {url.host: policy for url, policy in policies.items()} == {
        "10.0.0.1": PassivePolicy(3, 60.0),
        "10.0.0.2": PassivePolicy(3, 60.0),
    }
