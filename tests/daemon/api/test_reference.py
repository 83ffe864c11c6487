"""docs/reference/api.md names every page that there is, and no other; its examples are configurations that work."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.config.helpers import document
from tests.daemon.api.ask import get
from tests.daemon.state import make_world
from trio_wsb.daemon.api.documents import DEFAULT_LIMIT, MAX_LIMIT
from trio_wsb.daemon.api.feed import KEPT, MAX_LISTENERS, QUEUE
from trio_wsb.daemon.api.queries import DEFAULT_PER_PAGE
from trio_wsb.daemon.api.tally import DURATIONS
from trio_wsb.observe.events import KEPT as KEPT_EVENTS

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = (DOCS / "reference/api.md").read_text("utf-8")
HOW_TO = (DOCS / "how-to/dashboard.md").read_text("utf-8")

NOT_THERE = {"/api/tcp", "/api/udp", "/api/certificates", "/api/http/", "/api/sessions/ID"}
"""Paths that the reference names for another reason."""


async def test_every_page_is_in_the_reference(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    named = set(re.findall(r"`(/api/[a-z/@NAMEPROVID-]+)`", REFERENCE)) - NOT_THERE
    pages = {path for path in named if "NAME" not in path}
    assert pages == world.api.paths
    for path in pages:
        assert await get(world, path) is not None


async def test_every_key_of_the_metrics_document_is_in_the_reference(tmp_path: Path) -> None:
    for key in await get(make_world(tmp_path), "/api/websocket-metrics"):
        assert f"`{key}`" in REFERENCE


def test_its_figures_are_those_of_the_program() -> None:
    for text in (
        f"the last {KEPT_EVENTS} events",
        f"{MAX_LISTENERS} can listen at once",
        f"does not take {QUEUE} ticks",
        f"each of the last {DURATIONS} sessions",
        f"0 to {MAX_LIMIT} ({DEFAULT_LIMIT})",
        f"`per_page` ({DEFAULT_PER_PAGE})",
    ):
        assert text in REFERENCE, text
    assert KEPT == 5 * 60


def test_the_examples_of_the_how_to_are_good() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", HOW_TO, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        whole = yaml.safe_load(example)
        whole.setdefault("wsbalancer", {"pods": ["http://10.0.0.1:8080"]})
        entry_points = whole.setdefault("entryPoints", {})
        entry_points.setdefault("websecure", {"address": "127.0.0.1:8443"})
        problems = [each for each in document(yaml.safe_dump(whole)).problems if each.severity == "error"]
        assert problems == []


def test_the_pictures_are_there() -> None:
    for name in re.findall(r"images/([a-z.-]+)", HOW_TO):
        assert (DOCS / "images" / name).stat().st_size > 10_000, name
