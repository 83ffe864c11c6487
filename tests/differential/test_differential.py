"""The same requests to the real Traefik and to ours, with the same dynamic file: nothing differs but what is meant to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential.cases_entry import ENTRY_POINTS
from tests.differential.record import Case, View
from tests.differential.servers import Servers
from tests.differential.table import CASES, DIFFERENCES, dynamic, unexplained
from tests.differential.world import APPS, running
from tests.traefik.harness import traefik_program

DOCUMENT = Path(__file__).parents[2] / "docs/explanation/traefik-differences.md"

Views = dict[str, tuple[View, View]]
"""What was seen of each case, by its name: with Traefik and with ours."""

with_traefik = pytest.mark.skipif(traefik_program() is None, reason="traefik is not installed")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Views]:
    """Every case at both, once."""
    directory = tmp_path_factory.mktemp("differential")
    with (
        Servers((*APPS, "auth", "flaky")) as servers,
        running(directory, CASES, dynamic(servers.urls, directory), servers, ENTRY_POINTS) as world,
    ):
        yield {each.name: (world.see(each, world.traefik), world.see(each, world.ours)) for each in CASES}


@pytest.mark.daemon
@with_traefik
@pytest.mark.parametrize("each", CASES, ids=lambda each: each.name)
def test_case(each: Case, views: Views) -> None:
    traefik, ours = views[each.name]
    assert unexplained(each, traefik, ours, set()) == []


@pytest.mark.daemon
@with_traefik
def test_every_difference_is_shown(views: Views) -> None:
    shown: set[str] = set()
    for each in CASES:
        unexplained(each, *views[each.name], shown)
    assert shown == DIFFERENCES


def test_every_difference_is_documented_with_its_reason() -> None:
    tables = re.findall(
        r"^\| difference .*\n\|[ -|]+\n((?:\|.*\n)+)", DOCUMENT.read_text("utf-8"), re.MULTILINE
    )
    rows = [re.split(r" (?<!\\)\| ", line.strip("| \n")) for table in tables for line in table.splitlines()]
    assert all(len(row) == 4 and all(row) for row in rows)
    assert sorted(row[0].strip("`") for row in rows) == sorted(DIFFERENCES)


def test_the_table_has_cases_enough_each_with_a_name_of_its_own() -> None:
    names = [each.name for each in CASES]
    assert len(names) >= 150
    assert len(set(names)) == len(names)
