"""The pictures of the documentation: drawn from simulations that repeat themselves, and well formed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import trio
from attrs import evolve

from bench.curves import PICTURES, SLOW, Forgetful, Panel, picture, simulate
from bench.fleet import scale_out
from trio_wsb.balancing.moving import RebalancePolicy

DOCS = Path(__file__).parent.parent.parent / "docs" / "explanation"
SMALL = scale_out(3, 1, 40, policy=RebalancePolicy(enabled=True, min_age=0.0), duration=60.0)


@pytest.fixture(autouse=True)
def scheduler_as_it_was() -> Iterator[None]:
    scheduler = trio._core._run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    yield
    setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", before)  # noqa: B010 - final for mypy


@pytest.mark.parametrize("lines", [True, False])
def test_a_picture(lines: bool) -> None:
    panel = Panel("a < b", SMALL, lines=lines)
    samples = simulate(panel, 1.0)
    assert samples[-1].loads == [30, 30, 30, 30]
    drawn = picture([(panel, samples), (panel, samples)])
    root = ET.fromstring(drawn)
    assert root.attrib["width"] == "720"
    shapes = [each.tag.rpartition("}")[2] for each in root.iter()]
    assert shapes.count("polyline") == (8 if lines else 0)
    assert shapes.count("polygon") == (0 if lines else 4)
    assert "a &lt; b" in drawn
    assert picture([(panel, simulate(panel, 1.0))] * 2) == drawn


def test_what_counting_those_on_their_way_is_good_for() -> None:
    scenario = evolve(SLOW, duration=200.0)
    least = {
        state: min(min(sample.loads[:3]) for sample in simulate(Panel("", scenario, state=state), 2.0))
        for state in (None, Forgetful)
    }
    assert least[None] == 300
    assert least[Forgetful] < 150


@pytest.mark.parametrize("name", PICTURES)
def test_the_documentation_has_them(name: str) -> None:
    root = ET.fromstring((DOCS / name).read_text("utf-8"))
    titles = [text.text for text in root.iter() if text.attrib.get("font-weight") == "bold"]
    assert titles == [panel.title for panel in PICTURES[name]]
    assert name in (DOCS / "rebalance.md").read_text("utf-8")
