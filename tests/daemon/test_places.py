"""From servers and what their names stand for to the places of backends, and what follows from these."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from tests.config.helpers import config
from tests.daemon.state import World, make_world
from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.backend import BackendTable
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.discovery import Answer, Name, NameTable, Query, ServiceRecord
from trio_wsb.balancing.health import HealthTable
from trio_wsb.config.services import LoadBalancer
from trio_wsb.daemon.discovery import missing, names_in, places_of, resolver_settings
from trio_wsb.daemon.services import ServiceBuilder, count_targets, health_targets
from trio_wsb.daemon.views import Moment, balancer_metrics, status
from trio_wsb.proxy.services import ServiceRuntime

ALL = Name("chat.internal", "all")
SRV = Name("_ws._tcp.chat.internal", "srv")


def table(*addresses: str) -> NameTable:
    names = NameTable()
    entry = names.entry(ALL)
    entry.answered(Query(ALL.host, "A"), Answer(addresses, 60), 0.0)
    entry.settle()
    entry = names.entry(SRV)
    records = (ServiceRecord(1, 3, 8081, "one."), ServiceRecord(9, 0, 8082, "one."))
    entry.answered(Query(SRV.host, "SRV"), Answer(records, 60), 0.0)
    entry.answered(Query("one.", "A"), Answer(("10.0.0.9",), 60), 0.0)
    entry.settle()
    return names


def document(*servers: str, more: str = "") -> str:
    listed = ", ".join(f"{{{each}}}" for each in servers)
    return f"http: {{services: {{chat: {{loadBalancer: {{servers: [{listed}]{more}}}}}}}}}"


def balancer(*servers: str, more: str = "") -> LoadBalancer:
    found = config(document(*servers, more=more)).http.services["chat"].load_balancer
    assert found is not None
    return found


def test_each_address_is_a_place() -> None:
    server = 'url: "http://Chat.internal:8080", resolve: all, weight: 2, maxConnections: 7, maxPending: 9'
    places = places_of(balancer(server), table("10.0.0.1", "10.0.0.2"))
    assert [str(each.url) for each in places] == ["http://10.0.0.1:8080", "http://10.0.0.2:8080"]
    assert {(each.weight, each.max_connections, each.max_pending, each.rank) for each in places} == {
        (2, 7, 9, 0)
    }
    assert {str(each.name) for each in places} == {"http://chat.internal:8080"}


def test_service_records_say_port_and_weight() -> None:
    places = places_of(balancer('url: "https://_ws._tcp.chat.internal", resolve: srv, weight: 2'), table())
    assert [(str(each.url), each.weight, each.rank, str(each.name)) for each in places] == [
        ("https://10.0.0.9:8081", 6, 0, "https://chat.internal:8081"),
        ("https://10.0.0.9:8082", 2, 1, "https://chat.internal:8082"),
    ]


def test_of_two_servers_that_lead_to_one_backend_the_first_counts() -> None:
    servers = ('url: "http://10.0.0.2:8080", weight: 5', 'url: "http://chat.internal:8080", resolve: all')
    places = places_of(balancer(*servers), table("10.0.0.1", "10.0.0.2"))
    assert [(each.url.host, each.weight, each.name is None) for each in places] == [
        ("10.0.0.2", 5, True),
        ("10.0.0.1", 1, False),
    ]


def test_a_name_without_resolve_is_left_to_the_system() -> None:
    found = balancer('url: "http://chat.internal:8080"')
    assert names_in([found]) == {}
    assert [each.url.host for each in places_of(found, table("10.0.0.1"))] == ["chat.internal"]


def test_what_is_missing() -> None:
    found = balancer('url: "http://a:1", resolve: all', 'url: "http://b", resolve: srv')
    assert missing(found, NameTable()) == "a is not resolved yet, b is not resolved yet"


def test_settings() -> None:
    text = "dns: {nameservers: ['10.0.0.53', '[::1]:5353'], families: ipv6, timeout: 1s, minTTL: 2s, maxTTL: 3s, removeAfter: 4s}"
    found = resolver_settings(config(text).dns)
    assert [str(each) for each in found.nameservers] == ["10.0.0.53", "[::1]:5353"]
    policy = found.policy
    assert (found.timeout, policy.min_ttl, policy.max_ttl, policy.remove_after) == (1.0, 2.0, 3.0, 4.0)
    assert policy.address_types == ("AAAA",)


def test_backends_are_asked_by_name() -> None:
    more = ", connectionCount: {path: /metric}, healthCheck: {path: /health}"
    http = config(document('url: "https://chat.internal", resolve: all', more=more)).http
    names = table("10.0.0.1")
    [count] = count_targets(http, lambda _: None, names)
    [check] = health_targets(http, lambda _: None, names)
    for target in (count, check):
        assert (target.url.host, target.host, target.server_name) == (
            "10.0.0.1",
            "chat.internal",
            "chat.internal",
        )


class TestBuilding:
    def build(self, names: NameTable, builder: ServiceBuilder, more: str = "") -> ServiceRuntime:
        http = config(document('url: "http://chat.internal:8080", resolve: all', more=more)).http
        found = builder.build(http, lambda _: None)["chat"]
        assert isinstance(found, ServiceRuntime)
        return found

    def test_only_what_has_changed_is_built_anew(self) -> None:
        names = table("10.0.0.1")
        backends = BackendTable()
        builder = ServiceBuilder(backends, CountTable(), HealthTable(), Random(1), names=names)
        first = self.build(names, builder)
        assert self.build(names, builder) is first
        entry = names.entry(ALL)
        entry.answered(Query(ALL.host, "A"), Answer(("10.0.0.1", "10.0.0.2"), 60), 10.0)
        entry.settle()
        second = self.build(names, builder)
        assert second is not first
        # The one that was there is the same backend, sessions and all.
        assert second.pool.members[0].backend is first.pool.members[0].backend
        url = BackendURL("http", "10.0.0.2", 8080)
        assert second.transport.called(url) == BackendURL("http", "chat.internal", 8080)
        other = BackendURL("http", "10.9.9.9", 80)
        assert second.transport.called(other) is other

    @pytest.mark.parametrize("strategy", ["leastconn", "wrr", "p2c", "hrw", "iphash"])
    def test_nobody_is_there(self, strategy: str) -> None:
        names = NameTable()
        builder = ServiceBuilder(BackendTable(), CountTable(), HealthTable(), Random(1), names=names)
        service = self.build(names, builder, f", strategy: {strategy}, connectionCount: {{path: /metric}}")
        assert service.pool.choose(None, 0.0) is None
        assert not service.pool.available(0.0)
        assert service.pool.reason(0.0) == "chat.internal is not resolved yet"
        names.entry(ALL).failed(Query(ALL.host, "A"), "no answer within 5 s", 0.0)
        assert (
            service.pool.reason(0.0)
            == "chat.internal is not resolved (A of chat.internal: no answer within 5 s)"
        )


def resolving(tmp_path: Path) -> World:
    servers = [{"url": "http://chat.internal:8080", "resolve": "all"}]
    services: dict[str, Any] = {
        "chat": {"loadBalancer": {"servers": servers, "rebalance": {"enabled": True}}}
    }
    return make_world(tmp_path, {"http": {"services": services}})


async def test_whoever_looks_at_a_service_without_backends_sees_that(tmp_path: Path) -> None:
    world = resolving(tmp_path)
    found = status(world.state, Moment(trio.current_time(), 1.0))
    assert found["backends"] == []
    assert balancer_metrics(world.state, 1.0)["totalConnections"] == 0
    [service] = world.proxy.runtime.services.values()
    assert world.state.mover.rebalancer.verdict(service).outcome != "planned"


async def test_names_are_shown(tmp_path: Path) -> None:
    world = resolving(tmp_path)
    entry = world.state.names.entry(ALL)
    now = trio.current_time()
    entry.answered(Query(ALL.host, "A"), Answer(("10.0.0.1",), 20), now)
    entry.failed(Query(ALL.host, "AAAA"), "no answer within 5 s", now)
    entry.settle()
    assert status(world.state, Moment(now + 2.0, 1.0))["names"] == [
        {
            "name": "chat.internal",
            "resolve": "all",
            "endpoints": 1,
            "resolvedAgo": 2.0,
            "nextIn": 3.0,
            "problem": "AAAA of chat.internal: no answer within 5 s",
        }
    ]
