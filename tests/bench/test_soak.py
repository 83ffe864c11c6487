"""What the soak run takes for a leak."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import yaml
from attrs import evolve

from bench.soak import Measured, Soak
from trio_wsb.daemon.build import prepare

BEFORE = Measured(memory=60.0, descriptors=16, tasks=33, sessions=0, in_kernel=0, in_map=0)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"memory": 65.0, "descriptors": 18, "tasks": 30}, []),
        ({"memory": 70.0}, ["memory: 60.0 MiB before, 70.0 MiB after"]),
        (
            {"descriptors": 40, "tasks": 50},
            ["descriptors: 16 before, 40 after", "tasks: 33 before, 50 after"],
        ),
        (
            {"sessions": 1, "in_kernel": 2, "in_map": 4},
            ["sessions: 1 left", "in_kernel: 2 left", "in_map: 4 left"],
        ),
    ],
)
def test_what_is_a_leak(changes: dict[str, int], found: list[str]) -> None:
    assert evolve(BEFORE, **changes).leaks(BEFORE) == found


@pytest.mark.parametrize("relay", ["stream", "kernel"])
def test_its_configurations_work(relay: str, tmp_path: Path) -> None:
    soak = Soak(tmp_path, Random(1), clients=1, relay=relay)
    soak.write(onRemove="drain")
    prepared = prepare(tmp_path / "daemon.yaml")
    assert not prepared.disabled
    assert len(prepared.config.http.services["chat"].load_balancer.servers) == 4  # type: ignore[union-attr]
    assert yaml.safe_load((tmp_path / "daemon.yaml").read_text())["entryPoints"].keys() == {"web", "admin"}
