"""The configuration of the guide that users of Traefik come with loads as it stands; guide/*.yml are its blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.helpers import lines, problems
from trio_wsb.config.document import read_document
from trio_wsb.config.load import check, load
from trio_wsb.config.problems import Problem

GUIDE = Path(__file__).parent / "guide"

EXPECTED: dict[str, set[str]] = {
    "canary": {
        "http.services.backend-canary.weighted.services[0].name",
        "http.services.backend-canary.weighted.services[1].name",
    },
    "debugging": {"log.filePath"},
    "headers": set(),
    "metrics": {"metrics.prometheus.entryPoint"},
    "mirroring": {
        "http.services.backend-mirror.mirroring.service",
        "http.services.backend-mirror.mirroring.mirrors[0].name",
    },
    "retry": set(),
    "traefik": {
        "api.debug", "certificatesResolvers", "global", "log.filePath", "metrics.prometheus.entryPoint", "ping.entryPoint",
    },
    "websocket": {"http.middlewares.websocket-headers.headers.customRequestHeaders.Connection"},
}  # fmt: skip
"""Where each block has a warning: what is ignored, has no effect yet, or is defined in another file."""


def read(name: str) -> list[Problem]:
    return problems((GUIDE / f"{name}.yml").read_bytes())


def test_every_block_is_expected() -> None:
    assert {path.stem for path in GUIDE.glob("*.yml")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_block(name: str) -> None:
    found = read(name)
    assert {each.severity for each in found} <= {"warning"}
    # Whether a log's folder is there depends on the machine, and is no question of the text.
    assert {each.key_path for each in found} == EXPECTED[name] - {"log.filePath"}


def test_checked_together_the_blocks_find_each_other() -> None:
    files = [GUIDE / f"{name}.yml" for name in sorted(EXPECTED)]
    found = [problem for each in check(files) for problem in each.problems]
    assert {each.severity for each in found} == {"warning"}
    assert {each.key_path for each in found if each.code in {"reference", "cycle"}} == {
        *EXPECTED["canary"],
        *EXPECTED["mirroring"],
        "ping.entryPoint",
        "metrics.prometheus.entryPoint",
    }


def test_the_static_transport_acts() -> None:
    document = read_document((GUIDE / "traefik.yml").read_bytes(), "traefik.yml")
    assert document.config is not None
    assert document.config.servers_transport.insecure_skip_verify


def test_what_has_no_effect_says_so() -> None:
    (line,) = lines("metrics: {statsD: {}}\nhttp: {}\n")
    assert line.startswith("f.yaml:1:11 metrics.statsD: has no effect in this version (Prometheus fetches")
    assert line.endswith("[warning]")


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_daemon_takes_it(name: str) -> None:
    path = GUIDE / f"{name}.yml"
    loaded = load(path)
    # Neither leads to anything that is there, and no router of theirs could be disabled for it.
    assert set(loaded.config.http.services).isdisjoint({"backend-canary", "backend-mirror"})
    assert loaded.disabled == ()
