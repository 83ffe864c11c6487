"""One directory of dynamic files for the real Traefik and for ours: the same routers and services, but for what is meant to differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml

from tests.daemon.harness import PATIENCE, Running, daemon, free_port, http_client
from tests.traefik.harness import traefik_program

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(traefik_program() is None, reason="traefik is not installed"),
]


def parts(name: str, service: str | None = None, url: str = "http://127.0.0.1:1") -> str:
    """Return a file with a router and a service of one name."""
    return json.dumps(
        {
            "http": {
                "routers": {name: {"rule": f"Path(`/{name}`)", "service": service or name}},
                "services": {name: {"loadBalancer": {"servers": [{"url": url}]}}},
            }
        }
    )


FILES = {
    "a.yml": parts("a"),
    "b.YAML": parts("b", "a@file"),
    "deep/c.yml": parts("c", "b@file"),
    "deep/er/d.yml": parts("d", "a"),
    "p1.yml": parts("twice", url="http://127.0.0.1:11"),
    "p2.yml": parts("twice", url="http://127.0.0.1:22").replace('"services": {', '"services": {"only": %s, ')
    % json.dumps({"loadBalancer": {"servers": [{"url": "http://127.0.0.1:22"}]}}),
    "z.yml": parts("dangling", "gone@file"),
    "notes.txt": "not read",
    "copy.yml.bak": parts("bak"),
    ".hidden.yml": parts("hidden"),
    ".folder/e.yml": parts("folder"),
}

OURS_PASSES_OVER = {"hidden", "folder"}
"""What editors and Kubernetes leave behind a dot; Traefik reads it."""

Found = dict[str, dict[str, Any]]


def write(folder: Path) -> None:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder.parent / "outside.yml").write_text(parts("linked"))
    (folder / "linked.yml").symlink_to("../outside.yml")
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "f.yml").write_text(parts("elsewhere"))
    (folder / "elsewhere").symlink_to("../elsewhere")


async def ask_traefik(folder: Path) -> tuple[Found, Found]:
    """Return the routers and services that Traefik makes of `folder`, by their names."""
    program, port = traefik_program(), free_port()
    assert program is not None
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {
            "web": {"address": f"127.0.0.1:{free_port()}"},
            "traefik": {"address": f"127.0.0.1:{port}"},
        },
        "api": {"insecure": True},
        "providers": {"file": {"directory": str(folder)}},
    }
    path = folder.parent / "traefik.yml"
    path.write_text(yaml.safe_dump(static))
    async with Running.program(program, f"--configFile={path}"), http_client() as client:
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    found = [
                        (await client.get(f"http://127.0.0.1:{port}/api/http/{kind}?per_page=100")).json()
                        for kind in ("routers", "services")
                    ]
                except (httpx.TransportError, json.JSONDecodeError):  # not there yet, or not all of it
                    found = []
                if found and any(each["provider"] == "file" for each in found[0]):
                    break
                await trio.sleep(0.05)
    routers, services = (
        {each["name"].removesuffix("@file"): each for each in kind if each["provider"] == "file"}
        for kind in found
    )
    return routers, services


async def test_the_same_directory(tmp_path: Path) -> None:
    folder = tmp_path / "dynamic"
    folder.mkdir()
    write(folder)
    routers, services = await ask_traefik(folder)
    providers = {"file": {"directory": str(folder)}}
    async with (
        daemon(tmp_path, [], providers=providers, http={}) as running,
        http_client(uds=running.document["control"]["socket"]) as client,
    ):
        status = (await client.get("http://control/status")).json()
    ours = {each["name"]: each for each in status["routers"]}
    assert routers.keys() - ours.keys() == OURS_PASSES_OVER
    assert ours.keys() <= routers.keys()
    for name, router in ours.items():
        assert router["status"] == routers[name]["status"], name
        assert router["rule"] == routers[name]["rule"], name
    assert services.keys() - {each["name"] for each in status["services"]} == OURS_PASSES_OVER
    urls = {each["service"]: [each["url"]] for each in status["backends"]}
    assert urls == {
        name: [server["url"] for server in each["loadBalancer"]["servers"]]
        for name, each in services.items()
        if name not in OURS_PASSES_OVER
    }
    assert urls["twice"] == ["http://127.0.0.1:11"]
