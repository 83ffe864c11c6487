"""The real daemon, a real Prometheus that scrapes it, and the dashboards and alerts that we ship."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml

from tests.daemon.harness import (
    PATIENCE,
    Clients,
    Daemon,
    Running,
    backends,
    clients,
    daemon,
    echo,
    free_port,
    http_client,
)
from tests.daemon.metrics.scene import understood
from tests.opening import UPGRADE

ETC = Path(__file__).parents[3] / "etc"
DASHBOARDS = sorted((ETC / "grafana").glob("*.json"))
RULES = ETC / "prometheus" / "trio-wsb.rules.yml"

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
with_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
with_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")

GUIDE = (
    'traefik_service_open_connections{service=~".*websocket.*"}',
    'rate(traefik_service_requests_total{service=~".*websocket.*"}[5m])',
    'rate(traefik_service_requests_total{service=~".*websocket.*",code!~"2.."}[5m])',
    'traefik_service_server_up{service="websocket-chat@file"}',
)
"""The guide's panels as they stand, but for the name of the service in the last."""


@asynccontextmanager
async def watched_daemon(tmp_path: Path, pods: list[str]) -> AsyncIterator[tuple[Daemon, str]]:
    """Run a daemon whose metrics have everything, and give the URL of its entry point admin."""
    port, admin = free_port(), free_port()
    http = {
        "routers": {
            "chat": {
                "rule": "PathPrefix(`/`)",
                "service": "websocket-chat",
                "entryPoints": ["web"],
                "middlewares": ["breaker", "limit"],
            },
            "dead": {"rule": "PathPrefix(`/dead`)", "service": "websocket-dead", "entryPoints": ["web"]},
            "metrics": {
                "rule": "Path(`/private`)",
                "service": "prometheus@internal",
                "entryPoints": ["web"],
                "middlewares": ["password"],
            },
        },
        "services": {
            "websocket-chat": {
                "loadBalancer": {
                    "servers": [{"url": url} for url in pods],
                    "connectionCount": {"path": "/metric", "interval": "500ms"},
                }
            },
            "websocket-dead": {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{free_port()}"}]}},
        },
        "middlewares": {
            "breaker": {"circuitBreaker": {"expression": "NetworkErrorRatio() > 0.9"}},
            "limit": {"rateLimit": {"average": 1000, "burst": 1000}},
            "password": {"basicAuth": {"users": ["prom:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M="]}},
        },
    }
    async with daemon(
        tmp_path,
        [],
        port=port,
        http=http,
        entryPoints={
            "web": {"address": f"127.0.0.1:{port}"},
            "admin": {"address": f"127.0.0.1:{admin}"},
        },
        metrics={"prometheus": {"addRoutersLabels": True, "traefikNames": True}},
    ) as running:
        yield running, f"http://127.0.0.1:{admin}"


async def get(url: str, **options: Any) -> httpx.Response:
    async with http_client() as client:
        return await client.get(url, **options)


async def keep_busy(there: Daemon, made: Clients) -> None:
    """Open, use and close sessions, and fail handshakes, until cancelled."""
    while True:
        connection = await made.connect(there.ws)
        await echo(connection, "hello")
        await connection.aclose()
        async with http_client() as client:
            assert (await client.get(f"{there.url}/dead", headers=UPGRADE)).status_code in {502, 503}
        await trio.sleep(0.05)


@pytest.mark.daemon
async def test_what_a_scraper_sees(tmp_path: Path) -> None:
    async with (
        backends(2) as servers,
        watched_daemon(tmp_path, [each.url for each in servers]) as (there, admin),
        clients() as made,
    ):
        opened = await made.connect_many(there.ws, 6)
        for connection in opened:
            await echo(connection, "hello")
        await opened[0].aclose(code=4321)
        await there.logged("session ended")
        response = await get(f"{admin}/metrics")
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert response.headers["Content-Encoding"] == "gzip"
        found = understood(response.text)
        assert found["trio_wsb_sessions_open"] == 5
        assert found.get("trio_wsb_sessions_ended_total", cause="client_closed", code="4xxx") == 1
        assert found.get("trio_wsb_messages_total", direction="in") == 6
        assert found.get("trio_wsb_messages_total", direction="out") == 6
        shares = sorted(
            found.get("trio_wsb_backend_sessions_open", service="websocket-chat", backend=each.url) or 0
            for each in servers
        )
        assert shares in ([2, 3], [2, 3])
        assert found["process_resident_memory_bytes"] > 10e6
        assert found.get("trio_wsb_entrypoint_connections_open", entrypoint="web") == 5
        assert found["trio_wsb_event_loop_lag_worst_seconds"] >= 0
        # Nowhere else without a router, and through one behind its middlewares.
        assert (await get(f"{there.url}/metrics")).status_code == 404
        assert (await get(f"{there.url}/private")).status_code == 401
        private = await get(f"{there.url}/private", auth=("prom", "test"))
        assert private.status_code == 200
        assert understood(private.text)["trio_wsb_sessions_open"] == 5
        if PROMTOOL is not None:
            checked = await trio.run_process(
                [PROMTOOL, "check", "metrics"],
                stdin=response.content,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            assert _complaints(checked.stderr + checked.stdout) == set()


def _complaints(output: bytes) -> set[str]:
    """Return what promtool has against our names; that Traefik's names are not ours to choose is known."""
    lines = output.decode().splitlines()
    return {line for line in lines if line and not line.startswith(("traefik_", "process_"))}


@with_promtool
def test_promtool_is_content() -> None:
    assert PROMTOOL is not None
    for kind, path in (("rules", RULES), ("config", ETC / "prometheus" / "prometheus.yml")):
        done = subprocess.run([PROMTOOL, "check", kind, path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@with_promtool
def test_alerts_fire_when_they_should() -> None:
    assert PROMTOOL is not None
    path = Path(__file__).parent / "alerts.test.yml"
    done = subprocess.run([PROMTOOL, "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def panels(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the title and the expression of every target of a dashboard."""
    for panel in document["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def filled(expression: str) -> str:
    """Return an expression with a dashboard's variables as Grafana would fill them in."""
    for name, value in (("$__rate_interval", "5s"), ("$instance", ".*"), ("$service", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_are_whole(path: Path) -> None:
    document = json.loads(path.read_text())
    numbers = [panel["id"] for panel in document["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert document["uid"]
    assert any(each["type"] == "datasource" for each in document["templating"]["list"])
    assert list(panels(document))


def test_every_alert_has_a_runbook() -> None:
    page = (ETC.parent / "docs" / "how-to" / "monitoring.md").read_text()
    for rule in rules():
        assert f"### {rule['alert']}\n" in page
        assert rule["annotations"]["runbook"] == f"docs/how-to/monitoring.md#{rule['alert'].lower()}"
    assert len(re.findall(r"^### TrioWsb", page, re.MULTILINE)) == len(rules())


@with_prometheus
@pytest.mark.daemon
async def test_every_panel_has_something_to_show(tmp_path: Path) -> None:
    """A real Prometheus scrapes a busy daemon, and answers what the panels and the alerts ask."""
    assert PROMETHEUS is not None
    port = free_port()
    async with (
        backends(2) as servers,
        watched_daemon(tmp_path, [each.url for each in servers]) as (there, admin),
        clients() as made,
    ):
        await made.connect_many(there.ws, 10)
        configuration = yaml.safe_load((ETC / "prometheus" / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "400ms", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(RULES)]
        configuration["scrape_configs"][0]["static_configs"] = [{"targets": [admin.removeprefix("http://")]}]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        async with (
            Running.program(
                PROMETHEUS,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ) as prometheus,
            trio.open_nursery() as nursery,
        ):
            await prometheus.line("Server is ready")
            nursery.start_soon(keep_busy, there, made)
            asked = {
                f"{path.name}: {title}: {expression}": filled(expression)
                for path in DASHBOARDS
                for title, expression in panels(json.loads(path.read_text()))
            } | {expression: expression for expression in GUIDE}
            with trio.move_on_after(PATIENCE):
                while asked:
                    await trio.sleep(0.3)
                    for name, expression in list(asked.items()):
                        if await answers(port, expression):
                            del asked[name]
            assert not asked, "nothing to show: " + "\n".join(asked)
            for rule in rules():
                await answers(port, rule["expr"])
            health = (await get(f"http://127.0.0.1:{port}/api/v1/rules")).json()
            states = {
                rule["name"]: rule["health"] for group in health["data"]["groups"] for rule in group["rules"]
            }
            assert set(states) == {rule["alert"] for rule in rules()}
            assert set(states.values()) <= {"ok", "unknown"}
            nursery.cancel_scope.cancel()


async def answers(port: int, expression: str) -> bool:
    """Whether Prometheus has a value for `expression`; asserts that it understands it."""
    response = await get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression})
    document = response.json()
    assert document["status"] == "success", f"{expression}: {document}"
    return bool(document["data"]["result"])
