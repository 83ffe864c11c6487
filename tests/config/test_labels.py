"""Labels mean what the same thing means in YAML, and wrong ones give exactly the lines of labels/*.txt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.config.containers import container, found, lines
from tests.config.helpers import document
from trio_wsb.config.effective import effective
from trio_wsb.config.labels import read_labels
from trio_wsb.config.model import HTTP

TABLES = sorted((Path(__file__).parent / "labels").glob("*.txt"))
ETC = Path(__file__).parents[2] / "etc"


def rows() -> Iterator[object]:
    for table in TABLES:
        for block in table.read_text("utf-8").split("== ")[1:]:
            name, _, rest = block.partition("\n")
            text, _, expected = rest.partition("--\n")
            labels = dict(line.split("=", 1) for line in text.splitlines() if line)
            yield pytest.param(
                labels, [line for line in expected.split("\n") if line], id=f"{table.stem}-{name}"
            )


@pytest.mark.parametrize(("labels", "expected"), list(rows()))
def test_line(labels: dict[str, str], expected: list[str]) -> None:
    discovered = found(container("c", labels))
    assert lines(discovered) == expected
    bad = any(not line.endswith("[warning]") for line in expected)
    (state,) = discovered.states
    assert state.verdict == ("bad" if bad else "used")
    # One with an error gives nothing at all.
    assert bool(discovered.config.http.services) is not bad


def flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the labels for a part of a YAML file."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from flat(each, f"{key}.{name}")
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for index, each in enumerate(value):
            yield from flat(each, f"{key}[{index}]")
    elif isinstance(value, list):
        if value:
            yield key, ",".join(map(text, value))
    else:
        yield key, text(value)


def text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("file", ["trio-wsb-full.yaml", "trio-wsb-middlewares.yaml"])
def test_every_key_of_the_model_can_be_a_label(file: str) -> None:
    read = document((ETC / file).read_bytes())
    assert read.config is not None
    http = effective(read.config.http)
    assert isinstance(http, dict)
    plain = yaml.safe_load(yaml.safe_dump({"http": http}))
    for service in plain["http"]["services"].values():
        # A container is its own server.
        service.get("loadBalancer", {}).pop("servers", None)
    for name in [each for each, kind in plain["http"]["middlewares"].items() if "basicAuth" in kind]:
        del plain["http"]["middlewares"][name]  # whose users are not shown
    labels = dict(flat(plain, "traefik"))
    discovered = found(container("c", labels))
    assert [line for line in lines(discovered) if not line.endswith("[warning]")] == []
    ours, theirs = discovered.config.http, read.config.http
    assert set(ours.routers) == set(theirs.routers)
    assert set(ours.services) == set(theirs.services)
    for router in theirs.routers:
        assert ours.routers[router].rule == theirs.routers[router].rule
        assert ours.routers[router].priority == theirs.routers[router].priority
        assert ours.routers[router].tls == theirs.routers[router].tls
    for middleware in ours.middlewares:
        assert names_apart(effective(ours.middlewares[middleware])) == names_apart(
            effective(theirs.middlewares[middleware])
        )
    for service in theirs.services:
        assert without_servers(effective(ours.services[service])) == without_servers(
            effective(theirs.services[service])
        )
    for transport in theirs.servers_transports:
        assert ours.servers_transports[transport] == theirs.servers_transports[transport]


def names_apart(plain: Any) -> Any:
    """Return plain values with what they refer to as a file has it."""
    return yaml.safe_load(yaml.safe_dump(plain).replace("@docker", ""))


def without_servers(plain: Any) -> Any:
    document = names_apart(plain)
    document.get("loadBalancer", {}).pop("servers", None)
    return document


def test_kinds_of_values() -> None:
    http = found(
        container(
            "c",
            {
                "TRAEFIK.HTTP.Routers.Chat.ENTRYPOINTS": "web, websecure",
                "traefik.http.routers.Chat.rule": "Host(`a`)",
                "traefik.http.routers.Chat.middlewares[1]": "two",
                "traefik.http.routers.Chat.middlewares[0]": "one",
                "traefik.http.routers.Chat.priority": "7",
                "traefik.http.routers.Chat.tls": "true",
                "traefik.http.services.Chat.LoadBalancer.PassHostHeader": "F",
                "traefik.http.services.Chat.loadbalancer.healthcheck.path": "/h",
                "traefik.http.services.Chat.loadbalancer.healthcheck.interval": "2.5",
                "traefik.http.services.Chat.loadbalancer.healthcheck.headers.X-Probe": "Yes, it is",
                "traefik.http.services.Chat.loadbalancer.session.maxmessagebytes": "64KiB",
                "traefik.http.services.Chat.loadbalancer.server.maxconnections": "9",
                "traefik.http.middlewares.one.compress": "true",
                "traefik.http.middlewares.two.headers.customrequestheaders.X-One": "1",
                "traefik.http.middlewares.two.headers.customrequestheaders.X-None": "",
                "other.http.routers.none.rule": "nobody's",
            },
        )
    ).config.http
    router = http.routers["Chat"]
    assert (router.entry_points, router.middlewares) == (("web", "websecure"), ("one@docker", "two@docker"))
    assert (router.priority, router.tls is not None, router.service) == (7, True, "Chat@docker")
    balancer = http.services["Chat"].load_balancer
    assert balancer is not None
    assert balancer.health_check is not None
    assert (balancer.pass_host_header, balancer.health_check.interval) == (False, 2.5)
    assert balancer.health_check.headers == {"X-Probe": "Yes, it is"}
    assert (balancer.session.max_message_bytes, balancer.servers[0].max_connections) == (65536, 9)
    headers = http.middlewares["two"].headers
    assert headers is not None
    assert headers.custom_request_headers == {"X-One": "1", "X-None": ""}


def test_false_takes_a_section_away() -> None:
    discovered = found(
        container(
            "c",
            {
                "traefik.http.routers.r.rule": "Host(`a`)",
                "traefik.http.routers.r.tls": "false",
                "traefik.http.routers.r.tls.options": "strict",
            },
        )
    )
    assert lines(discovered) == []
    assert discovered.config.http.routers["r"].tls is None


KEYS = st.lists(
    st.sampled_from(
        [
            "http",
            "routers",
            "services",
            "r",
            "loadbalancer",
            "server",
            "port",
            "tls",
            "[0]",
            "a[0][1]",
            "rule",
            "",
            ".",
            "@",
            "é",
            "middlewares",
            "headers",
            "tcp",
        ]
    ),
    max_size=9,
).map(lambda steps: "traefik." + ".".join(steps))


@given(st.dictionaries(KEYS, st.text(max_size=20), max_size=12))
def test_no_label_is_a_traceback(labels: dict[str, str]) -> None:
    discovered = found(container("c", labels))
    assert all(line.isprintable() for line in lines(discovered))
    assert isinstance(discovered.config.http, HTTP)
    assert read_labels(labels).any is bool(labels)
