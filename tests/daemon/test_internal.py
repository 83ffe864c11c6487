"""The count table at balancerMetricPath: what it says, and who may see it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve

from tests.daemon import pages
from tests.daemon.pages import LOCAL
from tests.daemon.state import PODS, World, make_world
from trio_wsb.addresses import Networks, parse_network
from trio_wsb.http.forward import ForwardPolicy
from trio_wsb.http.head import RequestHead
from trio_wsb.proxy.runtime import EntryPointRuntime

PATH = "/balancer-metrics"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def head(*fields: str, path: str = PATH, method: str = "GET", host: str | None = LOCAL) -> RequestHead:
    return pages.head(path, *fields, method=method, host=host)


def entry(world: World, name: str) -> EntryPointRuntime:
    return world.proxy.runtime.entry_points[name]


ask = partial(pages.ask, name="web")


async def test_a_program_gets_json(world: World) -> None:
    world.report(PODS[0], 5, at=0.0)
    answer = await ask(world, head(), name="admin", peer="203.0.113.9")
    assert answer is not None
    fields, _, body = answer.partition(b"\r\n\r\n")
    assert fields.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
    assert b"Vary: Accept" in fields
    assert b"no-store" in fields
    assert b"Connection" not in fields
    document = json.loads(body)
    assert list(document) == ["timestamp", "services", "podMetrics", "totalConnections", "agentsConnections"]
    assert document["agentsConnections"] == 5


async def test_a_browser_gets_a_page(world: World) -> None:
    request = head("Accept: text/html,application/xml;q=0.9,*/*;q=0.8")
    answer = await ask(world, request, name="admin", keep_alive=False)
    assert answer is not None
    fields, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: text/html; charset=utf-8\r\n" in fields
    assert b"Content-Security-Policy: default-src 'none'; style-src 'sha256-" in fields
    assert fields.endswith(b"Connection: close")
    assert body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
async def test_head_has_the_same_fields_and_no_body(world: World, accept: str) -> None:
    whole = await ask(world, head(f"Accept: {accept}"))
    bare = await ask(world, head(f"Accept: {accept}", method="HEAD"))
    assert whole is not None
    assert bare is not None
    assert bare == whole[: len(bare)]
    assert bare.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "request_head",
    [
        head(path="/balancer-metrics/"),
        head(path="/metric"),
        head(method="POST"),
        head(method="OPTIONS"),
        head("Connection: Upgrade", "Upgrade: websocket"),
    ],
)
@pytest.mark.parametrize("name", ["web", "admin"])
async def test_other_requests_are_routed(world: World, request_head: RequestHead, name: str) -> None:
    assert await ask(world, request_head, name=name) is None


async def test_a_query_changes_nothing(world: World) -> None:
    assert await ask(world, head(path=f"{PATH}?pretty")) is not None


async def test_the_path_is_the_configurations(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"wsbalancer": {"pods": PODS, "balancerMetricPath": "/counts"}})
    assert await ask(world, head()) is None
    assert await ask(world, head(path="/counts")) is not None


@pytest.mark.parametrize(
    ("peer", "fields", "host"),
    [
        ("127.0.0.1", [], "127.0.0.1:9000"),
        ("127.0.0.1", [], "localhost:9000"),
        ("127.9.9.9", [], "127.0.0.1"),
        ("::1", [], "[::1]:9000"),
        ("::ffff:127.0.0.1", [], "localhost"),
        ("127.0.0.1", [], None),
    ],
)
async def test_a_program_on_this_host_sees_it_on_a_traffic_entry_point(
    world: World, peer: str, fields: list[str], host: str | None
) -> None:
    assert await ask(world, head(*fields, host=host), peer=peer) is not None


@pytest.mark.parametrize(
    ("peer", "fields", "host"),
    [
        ("203.0.113.9", [], "127.0.0.1"),
        (None, [], "127.0.0.1"),
        # Somebody behind a proxy on this host.
        ("127.0.0.1", ["X-Forwarded-For: 203.0.113.9"], "127.0.0.1"),
        ("127.0.0.1", ["X-Forwarded-For: 127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", ["X-Forwarded-For:"], "127.0.0.1"),
        ("127.0.0.1", ["X-Real-Ip: 127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", ["Forwarded: for=127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", ["Via: 1.1 proxy"], "127.0.0.1"),
        # A proxy that says nothing but keeps the Host, and DNS rebinding.
        ("127.0.0.1", [], "chat.example"),
        ("127.0.0.1", [], "localhost.evil.example"),
        ("127.0.0.1", [], "10.0.0.1"),
    ],
)
@pytest.mark.parametrize("policy", ["none", "trusted", "insecure"])
async def test_nobody_else_does_whoever_is_trusted(
    world: World, peer: str | None, fields: list[str], host: str, policy: str
) -> None:
    policies = {
        "none": ForwardPolicy(),
        "trusted": ForwardPolicy(Networks((parse_network("127.0.0.0/8"),))),
        "insecure": ForwardPolicy(insecure=True),
    }
    runtime = world.proxy.runtime
    web = evolve(entry(world, "web"), policy=policies[policy])
    world.proxy.runtime = evolve(runtime, entry_points={**runtime.entry_points, "web": web})
    assert await ask(world, head(*fields, host=host), peer=peer) is None
