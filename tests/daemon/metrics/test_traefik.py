"""Traefik's names: what its dashboards ask for moves when it should, and a WebSocket is no error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.daemon.metrics.scene import Watched, record, watch
from tests.daemon.state import PODS
from tests.proxy.world import frame
from trio_wsb.net.channel import send_all

SERVICE = {"service": "wsbalancer@file"}
WEBSOCKET = {"code": "200", "method": "GET", "protocol": "websocket"}


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    options = {"traefikNames": True, "addRoutersLabels": True}
    return watch(tmp_path, {"metrics": {"prometheus": options}, "wsbalancer": {"pods": PODS}})


async def test_a_session_is_a_success_while_it_is_open(watched: Watched) -> None:
    async with trio.open_nursery() as nursery:
        client = await watched.world.open(nursery, PODS[0])
        await send_all(client, frame(b"x" * 100, mask=True))
        await trio.testing.wait_all_tasks_blocked()
        found = await watched.scrape()
        open_now = {"method": "GET", "protocol": "websocket", **SERVICE}
        assert found.get("traefik_service_open_connections", **open_now) == 1
        ways = {
            "entrypoint": {"entrypoint": "web"},
            "router": {"router": "wsbalancer@file", **SERVICE},
            "service": SERVICE,
        }
        for level, labels in ways.items():
            assert found.get(f"traefik_{level}_requests_total", **WEBSOCKET, **labels) == 1
            assert found.get(f"traefik_{level}_requests_bytes_total", **WEBSOCKET, **labels) == 106
            assert found.get(f"traefik_{level}_responses_bytes_total", **WEBSOCKET, **labels) == 0
            name = f"traefik_{level}_request_duration_seconds_count"
            assert found.get(name, **WEBSOCKET, **labels) == 1
        codes = [labels["code"] for labels in found.series("traefik_service_requests_total")]
        assert all(re.fullmatch("2..", code) for code in codes), (
            "the guide's panel takes the others for errors"
        )
        nursery.cancel_scope.cancel()
    found = await watched.scrape()
    assert found.get("traefik_service_open_connections", **open_now) == 0
    assert found.get("traefik_service_requests_total", **WEBSOCKET, **SERVICE) == 1
    assert found.get("traefik_service_requests_bytes_total", **WEBSOCKET, **SERVICE) == 106


async def test_a_failed_handshake_is_an_error(watched: Watched) -> None:
    watched.metrics.figures.request_ended(record(upgrade=True, status=503, reason="no available server"))
    found = await watched.scrape()
    labels = {"code": "503", "method": "GET", "protocol": "websocket"}
    assert found.get("traefik_service_requests_total", **labels, **SERVICE) == 1


async def test_a_real_200_and_a_session_share_a_line(watched: Watched) -> None:
    """A backend may answer a handshake with 200, which is no session."""
    watched.metrics.figures.request_ended(record(upgrade=True, bytes_out=7))
    async with trio.open_nursery() as nursery:
        await watched.world.open(nursery, PODS[0])
        found = await watched.scrape()
        nursery.cancel_scope.cancel()
    assert found.get("traefik_service_requests_total", **WEBSOCKET, **SERVICE) == 2
    assert found.get("traefik_service_responses_bytes_total", **WEBSOCKET, **SERVICE) == 7


async def test_servers_retries_and_connections(watched: Watched) -> None:
    watched.metrics.figures.request_ended(record(tries=3))
    watched.world.proxy.connections["web"] += 2
    found = await watched.scrape()
    assert found.get("traefik_service_retries_total", **SERVICE) == 2
    assert found.get("traefik_open_connections", entrypoint="web", protocol="TCP") == 2
    assert found.get("traefik_service_server_up", url=PODS[2], **SERVICE) == 1
