"""The pictures: well-formed, with a bar for each proxy, in proportion."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from bench.plots import PICTURES, Picture, picture
from bench.report import DIRECT, KERNEL, Sample, Table
from bench.scenarios import SCENARIOS

TABLE = Table("echo", "Echo of 64 B & more", "messages_per_s", "messages/s")
SHEET = Picture("echo", "Speed <fast>", ("echo",))
SVG = "{http://www.w3.org/2000/svg}"


def echo(**rates: float) -> list[Sample]:
    return [Sample("echo", peer, 1, {"messages_per_s": rate}) for peer, rate in rates.items()]


def test_bars_are_in_proportion_and_direct_has_none() -> None:
    samples = echo(**{DIRECT: 500.0, "nginx": 100.0, KERNEL: 50.0})
    text = picture(samples, [TABLE], SHEET)
    assert text is not None
    root = ET.fromstring(text)
    _, nginx, ours = (float(each.get("width", "0")) for each in root.iter(f"{SVG}rect"))
    assert nginx == 2 * ours
    words = [each.text for each in root.iter(f"{SVG}text")]
    assert words[:2] == ["Speed <fast>", "Echo of 64 B & more: messages/s"]
    assert words[2:] == ["nginx", "100 (1.00)", KERNEL, "50.0 (0.50)"]


def test_there_is_no_picture_of_nothing() -> None:
    assert picture(echo(direct=1.0), [TABLE], SHEET) is None
    assert picture(echo(nginx=1.0), [], SHEET) is None


def test_pictures_show_scenarios_that_exist() -> None:
    assert all(name in SCENARIOS for sheet in PICTURES for name in sheet.scenarios)
