"""etc/docker as far as it can be judged without an Engine: the compose file, its labels, and the Dockerfile."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.config.containers import container, urls
from trio_wsb.config.containers import Binding, Container, Found
from trio_wsb.config.discovery import Discovered, discover
from trio_wsb.config.docker import DockerProvider
from trio_wsb.config.load import check, load
from trio_wsb.units import parse_duration

TOP = Path(__file__).parents[2]
DOCKER = TOP / "etc/docker"
OWN = re.compile(r"(com\.example|traefik)\..*")


@pytest.fixture
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return document


def provider() -> DockerProvider:
    found = load(DOCKER / "trio-wsb.yaml").config.providers.docker
    assert found is not None
    return found


def discovered(compose: dict[str, Any], options: DockerProvider) -> Discovered:
    """Return what our provider makes of the compose file, every service with as many replicas as it says."""
    containers: list[Container] = []
    for name, service in compose["services"].items():
        labels = {
            **service.get("labels", {}),
            "com.docker.compose.project": compose["name"],
            "com.docker.compose.service": name,
        }
        assert all(isinstance(value, str) for value in labels.values())
        networks = tuple(
            (
                (compose["networks"].get(each) or {}).get("name", f"{compose['name']}_{each}"),
                f"172.20.{number}.{len(containers) + 2}",
            )
            for number, each in enumerate(service.get("networks", []))
        )
        for replica in range(service.get("deploy", {}).get("replicas", 1)):
            moved = tuple((network, f"{address}{replica}") for network, address in networks)
            containers.append(
                container(f"chat-{name}-{replica + 1}", labels, networks=moved, ports=(Binding(80),))
            )
    return discover(Found(tuple(containers)), options)


def test_the_configuration_is_right() -> None:
    (checked,) = check([DOCKER / "trio-wsb.yaml"])
    assert checked.problems == []


def test_the_labels_are_right(compose: dict[str, Any]) -> None:
    given = discovered(compose, provider())
    assert given.problems == []
    assert [each.verdict for each in given.states].count("bad") == 0
    assert {each.name for each in given.states if each.verdict == "used"} == {
        f"chat-backend-{number}" for number in (1, 2, 3)
    }
    assert list(given.config.http.routers) == ["backend"]
    # In the network that both are in, each of them once.
    network = compose["services"]["backend"]["networks"].index("balanced")
    assert len(urls(given, "backend")) == 3
    assert all(
        url.startswith(f"http://172.20.{network}.") and url.endswith(":8000")
        for url in urls(given, "backend")
    )
    balancer = given.config.http.services["backend"].load_balancer
    assert balancer is not None
    assert (balancer.on_remove, balancer.connection_count is not None) == ("drain", True)


def test_the_labels_for_traefik_are_right_too(compose: dict[str, Any]) -> None:
    """What Traefik takes is read without our constraint."""
    given = discovered(compose, DockerProvider(exposed_by_default=False))
    assert given.problems == []
    assert set(given.config.http.routers) == {"chat", "frontend", "backend"}
    assert given.config.http.routers["chat"].service == "chat@docker"


def test_what_is_named_is_there(compose: dict[str, Any]) -> None:
    services, networks, volumes = compose["services"], compose["networks"], compose["volumes"]
    for service in services.values():
        assert set(service.get("networks", [])) <= set(networks)
        assert set(service.get("depends_on", {})) <= set(services)
        for needed, condition in service.get("depends_on", {}).items():
            assert condition["condition"] == "service_started" or "healthcheck" in services[needed]
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in volumes or source == "/var/run/docker.sock" or (DOCKER / source).is_file()
    assert networks["balanced"]["name"] == provider().network
    build = services["trio-wsb"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).is_file()


def test_who_may_do_what(compose: dict[str, Any]) -> None:
    services = compose["services"]
    # The Engine's socket is for the proxy alone, and that lets nothing through that writes.
    holders = [
        name
        for name, each in services.items()
        if any("docker.sock" in volume for volume in each.get("volumes", []))
    ]
    assert holders == ["docker-proxy"]
    assert services["docker-proxy"]["environment"]["POST"] == "0"
    assert services["docker-proxy"]["networks"] == ["engine"]
    assert compose["networks"]["engine"]["internal"]
    ours = services["trio-wsb"]
    assert (ours["cap_drop"], ours["read_only"]) == (["ALL"], True)
    assert "no-new-privileges:true" in ours["security_opt"]
    for service in services.values():
        for key, value in service.get("environment", {}).items():
            assert "$" in value or not re.search("PASSWORD|SECRET", key)


def test_a_stop_gives_sessions_their_time(compose: dict[str, Any]) -> None:
    grace = load(DOCKER / "trio-wsb.yaml").config.entry_points["web"].transport.life_cycle.grace_time_out
    assert parse_duration(compose["services"]["trio-wsb"]["stop_grace_period"]) > grace


def test_the_dockerfile() -> None:
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages = [line for line in lines if line.startswith("FROM ")]
    assert len(stages) == 2
    assert all(re.fullmatch(r"FROM python:3\.\d+-slim-[a-z]+( AS build)?", line) for line in stages)
    last = lines[lines.index(stages[-1]) :]
    (user,) = [line for line in last if line.startswith("USER ")]
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", user)
    assert last.index(user) < last.index('ENTRYPOINT ["trio-wsb"]')
    assert any(line.startswith("HEALTHCHECK ") and 'CMD ["trio-wsb", "status"' in line for line in last)
    for line in lines:
        assert not re.match(r"ADD |RUN .*(curl|wget|sudo|apt-get)", line)
        assert "pip" not in line or "--no-cache-dir" in line
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in (each.removeprefix("./") for each in line.split()[1:-1]):
                assert (TOP / source).exists()
                assert any(fnmatch(source, pattern) for pattern in let_in)
