"""The real Traefik and we, over the same backend, asked the same: the same names, labels and values."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.daemon.harness import Running, backend, clients, daemon, echo, free_port, http_client
from tests.daemon.metrics.scene import Labels, Scraped, understood
from tests.daemon.waiting import eventually
from tests.traefik.harness import traefik_program

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(traefik_program() is None, reason="traefik is not installed"),
]

PER_REQUEST = ("requests_total", "request_duration_seconds_count")

NEW_HERE = {"traefik_service_open_connections"}
"""What Traefik had in version 2 and the guide's panels ask for."""


def dynamic(url: str) -> dict[str, object]:
    check = {"path": "/api/health", "interval": "1s"}
    return {
        "routers": {
            "chat": {
                "rule": "PathPrefix(`/`)",
                "service": "chat",
                "entryPoints": ["web"],
                "middlewares": ["again"],
            }
        },
        "services": {"chat": {"loadBalancer": {"servers": [{"url": url}], "healthCheck": check}}},
        "middlewares": {"again": {"retry": {"attempts": 2}}},
    }


async def ask(url: str) -> None:
    """Make the same few requests, and a session that ends."""
    async with http_client() as client:
        for method, path in (
            ("GET", "/api/stats"),
            ("GET", "/nowhere"),
            ("POST", "/nowhere"),
            ("BREW", "/x"),
        ):
            await client.request(method, url + path)
    async with clients() as made:
        await echo(await made.connect(url.replace("http", "ws")), "hello")


async def scrape(url: str) -> Scraped:
    async with http_client() as client:
        return understood((await client.get(url)).text)


async def scrape_until_sessions_count(url: str) -> Scraped:
    """Traefik counts a WebSocket a moment after it ended."""

    def counted(found: Scraped) -> bool:
        return any(each["protocol"] == "websocket" for each in found.series("traefik_service_requests_total"))

    return await eventually(partial(scrape, url), counted)


def shapes(found: Scraped) -> dict[str, frozenset[str]]:
    """Return the label names of each of Traefik's metrics."""
    return {
        name: frozenset(label for label, _ in labels)
        for name, labels in found.values
        if name.startswith("traefik_")
    }


def plain(found: Scraped, name: str) -> dict[Labels, float]:
    """Return what a metric says of plain requests."""
    return {
        labels: value
        for (each, labels), value in found.values.items()
        if each == name and ("protocol", "http") in labels
    }


async def test_the_same_names_labels_and_figures(tmp_path: Path) -> None:
    program = traefik_program()
    assert program is not None
    web, metrics, own, admin = (free_port() for _ in range(4))
    async with backend() as server:
        (tmp_path / "dynamic.yml").write_text(yaml.safe_dump({"http": dynamic(server.url)}))
        static = {
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "entryPoints": {
                "web": {"address": f"127.0.0.1:{web}"},
                "metrics": {"address": f"127.0.0.1:{metrics}"},
            },
            "metrics": {"prometheus": {"addRoutersLabels": True, "entryPoint": "metrics"}},
            "providers": {"file": {"filename": str(tmp_path / "dynamic.yml")}},
            "log": {"level": "DEBUG"},
        }
        (tmp_path / "traefik.yml").write_text(yaml.safe_dump(static))
        (tmp_path / "ours").mkdir()
        async with (
            Running.program(program, f"--configFile={tmp_path / 'traefik.yml'}") as traefik,
            daemon(
                tmp_path / "ours",
                [],
                port=own,
                http=dynamic(server.url),
                entryPoints={
                    "web": {"address": f"127.0.0.1:{own}"},
                    "metrics": {"address": f"127.0.0.1:{admin}"},
                },
                metrics={
                    "prometheus": {
                        "addRoutersLabels": True,
                        "traefikNames": True,
                        "entryPoint": "metrics",
                        "buckets": [0.1, 0.3, 1.2, 5.0],
                    }
                },
            ),
        ):
            await traefik.line("Configuration received")
            await eventually(
                partial(scrape, f"http://127.0.0.1:{metrics}/metrics"),
                lambda found: bool(found.series("traefik_service_server_up")),
            )
            await ask(f"http://127.0.0.1:{web}")
            await ask(f"http://127.0.0.1:{own}")
            theirs = await scrape_until_sessions_count(f"http://127.0.0.1:{metrics}/metrics")
            ours = await scrape_until_sessions_count(f"http://127.0.0.1:{admin}/metrics")
    missing = shapes(theirs).items() - shapes(ours).items()
    assert not missing
    # Theirs shows this one only when a request was tried again.
    assert set(shapes(ours)) - set(shapes(theirs)) <= NEW_HERE | {"traefik_service_retries_total"}
    for level in ("entrypoint", "router", "service"):
        for figure in PER_REQUEST:
            name = f"traefik_{level}_{figure}"
            assert plain(ours, name) == plain(theirs, name), name
        # 404 pages of the backend have the same size whoever passes them on.
        name = f"traefik_{level}_responses_bytes_total"
        sizes = [
            {labels: size for labels, size in plain(each, name).items() if ("code", "404") in labels}
            for each in (ours, theirs)
        ]
        assert sizes[0] == sizes[1] != {}
    for found in (ours, theirs):
        assert found.get("traefik_service_server_up", service="chat@file", url=server.url) == 1
        assert {each["le"] for each in found.series("traefik_service_request_duration_seconds_bucket")} in (
            {"0.1", "0.3", "1.2", "5", "+Inf"},
            {"0.1", "0.3", "1.2", "5.0", "+Inf"},
        )
    # Where we differ, as documented.
    session = {"service": "chat@file", "method": "GET", "protocol": "websocket"}
    assert theirs.get("traefik_service_requests_total", code="0", **session) == 1
    assert ours.get("traefik_service_requests_total", code="200", **session) == 1
    assert theirs.get("traefik_service_requests_bytes_total", code="0", **session) == 0
    assert (ours.get("traefik_service_requests_bytes_total", code="200", **session) or 0) > 0
