"""The families: all that the catalogue promises is exported, with what is true at this moment."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.daemon.metrics.scene import Scraped, Watched, record, watch
from tests.daemon.state import PODS
from trio_wsb.balancing.discovery import Answer, Name, Query
from trio_wsb.balancing.drain import DrainKey
from trio_wsb.balancing.moving import DrainPolicy
from trio_wsb.daemon.metrics.catalogue import GROUPS
from trio_wsb.daemon.metrics.definition import Definition
from trio_wsb.errors import DialError
from trio_wsb.middleware.breaker import State
from trio_wsb.net.resolver import Resolved
from trio_wsb.proxy.record import Stage
from trio_wsb.proxy.steps import BreakerStep

EVERYTHING: dict[str, Any] = {
    "entryPoints": {
        "web": {"address": "127.0.0.1:9000", "http": {"tls": {}}},
        "admin": {"address": "127.0.0.1:9001"},
    },
    "metrics": {"prometheus": {"addRoutersLabels": True, "traefikNames": True}},
    "http": {
        "routers": {
            "chat": {
                "rule": "PathPrefix(`/`)",
                "service": "chat",
                "middlewares": ["limit", "flight", "breaker"],
            }
        },
        "services": {
            "chat": {
                "loadBalancer": {
                    "servers": [
                        {"url": PODS[0], "maxConnections": 7},
                        {"url": PODS[1], "weight": 3},
                        {"url": PODS[2], "weight": 0},
                    ],
                    "connectionCount": {"path": "/metric", "interval": "10s"},
                }
            }
        },
        "middlewares": {
            "limit": {"rateLimit": {"average": 10}},
            "flight": {"inFlightReq": {"amount": 5}},
            "breaker": {"circuitBreaker": {"expression": "NetworkErrorRatio() > 0.5"}},
        },
    },
}

WAY = {"router": "chat", "service": "chat"}


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return watch(tmp_path, EVERYTHING)


def of(url: str) -> dict[str, str]:
    return {"service": "chat", "backend": url}


def definitions() -> list[Definition]:
    return [definition for group in GROUPS for definition in group.definitions]


async def busy(watched: Watched) -> Scraped:
    """Let everything happen that there is a metric for, and scrape."""
    world, figures = watched.world, watched.metrics.figures
    world.report(PODS[0], 3, at=trio.current_time())
    backend = world.backend(PODS[0])
    backend.pod_name, backend.pod_ip, backend.node_name = "pod-1", "10.1.0.1", "node-1"
    world.state.names.entry(Name("pods.example", "srv"))
    world.proxy.mirrors.dropped_total["slow"] += 2
    world.proxy.handshakes.failed_total["web"] += 4
    key = DrainKey(world.backend(PODS[1]).url, None)
    world.state.mover.drains.begin(key, DrainPolicy(), trio.current_time()).left = 5
    figures.request_ended(record(**WAY, upgrade=True, status=503, stage=Stage.CHOOSING, reason="none"))
    figures.request_ended(record(**WAY, status=502, stage=Stage.DIAL, reason="none"))
    figures.request_ended(record(**WAY))
    async with trio.open_nursery() as nursery:
        await world.open(nursery, PODS[0], **WAY)
        found = await watched.scrape()
        nursery.cancel_scope.cancel()
    return found


async def test_all_of_the_catalogue_is_there_and_nothing_else(watched: Watched) -> None:
    found = await busy(watched)
    exported = {name for name in found.names if not name.startswith("process_")}
    promised: set[str] = set()
    for definition in definitions():
        suffixes = ("_bucket", "_count", "_sum") if definition.kind == "histogram" else ("",)
        promised |= {definition.name + suffix for suffix in suffixes}
    assert exported == promised
    for definition in definitions():
        name = definition.name + ("_count" if definition.kind == "histogram" else "")
        for labels in found.series(name):
            assert set(labels) == set(definition.labels), name
        kind, text = found.kinds[definition.name.removesuffix("_total")]
        assert kind == ("gauge" if definition.kind == "info" else definition.kind)
        assert text == definition.help


def test_names_follow_the_rules() -> None:
    found = definitions()
    assert len({each.name for each in found}) == len(found)
    for each in found:
        assert each.name.startswith(("trio_wsb_", "traefik_"))
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert each.help
        if each.kind == "histogram":
            assert each.name.endswith("_seconds")


async def test_backends(watched: Watched) -> None:
    found = await busy(watched)

    def value(name: str, url: str) -> float | None:
        return found.get(f"trio_wsb_backend_{name}", **of(url))

    assert value("connections_reported", PODS[0]) == 3
    assert value("connections_foreign", PODS[0]) == 3
    assert value("load", PODS[0]) == 4
    assert value("report_stale", PODS[0]) == 0
    age = value("report_age_seconds", PODS[0])
    assert age is not None
    assert 0 <= age < 60
    assert value("reports_total", PODS[0]) == 1
    assert value("connections_reported", PODS[1]) is None, "it has never reported"
    assert value("report_age_seconds", PODS[1]) is None
    assert value("report_stale", PODS[1]) == 1
    assert value("connections_limit", PODS[0]) == 7
    assert value("weight", PODS[1]) == 3
    assert [value("ready", url) for url in PODS] == [1, 0, 0]
    assert [value("draining", url) for url in PODS] == [0, 1, 0]
    assert [value("up", url) for url in PODS] == [1, 1, 1]
    assert [value("sessions_open", url) for url in PODS] == [1, 0, 0]
    assert found.get("trio_wsb_drain_sessions_left", service="", backend=PODS[1]) == 5
    names = {"pod_name": "pod-1", "pod_ip": "10.1.0.1", "node_name": "node-1"}
    assert found.get("trio_wsb_backend_info", **of(PODS[0]), **names) == 1
    states = {each["state"]: each for each in found.series("trio_wsb_service_backends")}
    count = {state: found.get("trio_wsb_service_backends", **labels) for state, labels in states.items()}
    assert count == {
        "ready": 1, "off": 1, "draining": 1, "drained": 0, "down": 0, "full": 0, "cooling_down": 0,
    }  # fmt: skip


async def test_a_backend_that_is_down_or_failing(watched: Watched) -> None:
    backend = watched.world.backend(PODS[0])
    backend.begin_handshake()
    backend.handshake_failed(trio.current_time())
    found = await watched.scrape()
    assert found.get("trio_wsb_backend_failures_total", **of(PODS[0])) == 1
    assert found.get("trio_wsb_backend_cooling_down", **of(PODS[0])) == 1
    assert found.get("trio_wsb_backend_ready", **of(PODS[0])) == 0
    assert found.get("traefik_service_server_up", service="chat@file", url=PODS[0]) == 0


async def test_names(watched: Watched) -> None:
    table, resolver = watched.world.state.names, watched.world.state.resolver
    now, query = trio.current_time(), Query("pods.example", "A")
    entry = table.entry(Name("pods.example", "all"))
    entry.answered(query, Answer(("10.0.0.1", "10.0.0.2"), 30.0), now)
    entry.settle()
    table.answered_total += 1

    async def source(name: str, port: int) -> Resolved:
        if name == "gone.example":
            raise DialError("resolve", "no such name")
        return Resolved([(socket.AF_INET, ("10.0.0.3", port))])

    resolver._source = source
    await resolver.addresses("chat.example", 80)
    for port in (80, 81):
        with pytest.raises(DialError):
            await resolver.addresses("gone.example", port)
    found = await watched.scrape()

    def lookups(of: Scraped) -> dict[tuple[str, str], float | None]:
        name = "trio_wsb_name_lookups_total"
        return {(each["source"], each["result"]): of.get(name, **each) for each in of.series(name)}

    def failing(of: Scraped) -> dict[str, float | None]:
        name = "trio_wsb_name_failing"
        return {each["name"]: of.get(name, **each) for each in of.series(name)}

    assert lookups(found) == {
        ("discovery", "answered"): 1, ("discovery", "failed"): 0, ("system", "answered"): 1, ("system", "failed"): 2,
    }  # fmt: skip
    assert failing(found) == {"chat.example": 0, "gone.example": 1, "pods.example": 0}
    assert found.get("trio_wsb_name_endpoints", name="pods.example", resolve="all") == 2
    # What was known stays, and so does its number.
    entry.failed(query, "no answer within 5 s", now)
    entry.settle()
    table.failed_total += 1
    found = await watched.scrape()
    assert failing(found)["pods.example"] == 1
    assert lookups(found)["discovery", "failed"] == 1
    assert found.get("trio_wsb_name_endpoints", name="pods.example", resolve="all") == 2


async def test_middlewares(watched: Watched) -> None:
    metrics, now = watched.metrics, trio.current_time()
    steps = {made.middleware: made for made in metrics._steps}
    metrics.figures.request_ended(record(status=429, answered_by=steps["limit"].step, reason="too many"))
    metrics.figures.request_ended(record(status=418, answered_by=object, reason="unknown"))
    breaker = steps["breaker"].step
    assert isinstance(breaker, BreakerStep)
    ticket = breaker.breaker.admit(now)
    assert ticket is not None
    assert breaker.breaker.record(ticket, now, 502, 0.1, network_error=True)
    found = await watched.scrape()
    name = "trio_wsb_middleware_answers_total"
    assert found.get(name, middleware="limit", kind="rateLimit", code="429") == 1
    assert found.get(name, middleware="flight", kind="inFlightReq", code="429") == 0
    assert found.get(name, middleware="other", kind="other", code="418") == 1
    place = {"middleware": "breaker", "router": "chat"}
    states = {
        state: found.get("trio_wsb_circuit_breaker_state", state=state.value, **place) for state in State
    }
    assert states == {State.CLOSED: 0, State.OPEN: 1, State.RECOVERING: 0}
    assert found.get("trio_wsb_circuit_breaker_opened_total", **place) == 1
    assert found.get("trio_wsb_circuit_breaker_passing_ratio", **place) == 0


async def test_what_a_step_of_before_answers_still_has_its_name(watched: Watched) -> None:
    old = {made.middleware: made.step for made in watched.metrics._steps}["limit"]
    changed = {**EVERYTHING["http"]["middlewares"], "limit": {"rateLimit": {"average": 99}}}
    await watched.reload({**EVERYTHING, "http": {**EVERYTHING["http"], "middlewares": changed}})
    assert old not in {made.step for made in watched.metrics._steps}
    watched.metrics.figures.request_ended(record(status=429, answered_by=old, reason="too many"))
    found = await watched.scrape()
    labels = {"middleware": "limit", "kind": "rateLimit", "code": "429"}
    assert found.get("trio_wsb_middleware_answers_total", **labels) == 1


async def test_reloads(watched: Watched) -> None:
    found = await watched.scrape()
    assert found["trio_wsb_config_last_reload_success"] == 1
    assert found["traefik_config_reloads_total"] == 1
    await watched.reload(EVERYTHING)
    watched.world.path.write_text("nonsense: 1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.world.reloader.run)
        await watched.world.reloader.reload()
        nursery.cancel_scope.cancel()
    found = await watched.scrape()
    assert found.get("trio_wsb_config_reloads_total", result="success") == 1
    assert found.get("trio_wsb_config_reloads_total", result="failure") == 1
    assert found["trio_wsb_config_last_reload_success"] == 0
    assert found["trio_wsb_config_loaded_timestamp_seconds"] > 1.7e9
    assert found["traefik_config_reloads_total"] == 3


@pytest.mark.parametrize(
    ("key", "prefixes"),
    [
        ("addEntryPointsLabels", ("trio_wsb_entrypoint_", "traefik_entrypoint_")),
        ("addRoutersLabels", ("trio_wsb_router_", "traefik_router_")),
        ("addServicesLabels", ("trio_wsb_service_", "trio_wsb_backend_", "traefik_service_")),
        ("traefikNames", ("traefik_",)),
    ],
)
async def test_groups_can_be_left_out(watched: Watched, key: str, prefixes: tuple[str, ...]) -> None:
    options = {**EVERYTHING["metrics"]["prometheus"], key: False}
    await watched.reload({**EVERYTHING, "metrics": {"prometheus": options}})
    found = await busy(watched)
    assert not {name for name in found.names if name.startswith(prefixes)}
    assert found["trio_wsb_sessions_open"] == 1


async def test_certificates(watched: Watched) -> None:
    found = await watched.scrape()
    name = "trio_wsb_tls_certificate_not_after_timestamp_seconds"
    (labels,) = found.series(name)
    assert labels["certificate"] == "tls.stores.default"
    until = found.get(name, **labels)
    assert until is not None
    assert until > found["trio_wsb_config_loaded_timestamp_seconds"] + 86400


async def test_every_state_of_a_backend_is_known(watched: Watched) -> None:
    """The states that are counted are those that `trio-wsb status` may show."""
    found = await watched.scrape()
    total = sum(
        found.get("trio_wsb_service_backends", **labels) or 0
        for labels in found.series("trio_wsb_service_backends")
    )
    assert total == len(PODS)
