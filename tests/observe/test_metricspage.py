"""The page of the count table: readable, self-contained, and nothing of what a backend says is markup."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

from trio_wsb.observe.metricspage import METRICS_PAGE_HEADERS, metrics_page

NASTY = "<script>alert('x')</script>\"&"


def document(**changes: Any) -> dict[str, Any]:
    return {
        "timestamp": "2025-01-31T12:00:00.000Z",
        "services": [
            {"url": "http://10.0.0.1:8080", "connections": 30},
            {"url": "http://b", "connections": 0},
        ],
        "podMetrics": {
            "http://10.0.0.1:8080": [
                {"agentsConnections": 29, "podName": NASTY, "podIP": "10.1.0.1", "nodeName": ""}
            ]
        },
        "totalConnections": 30,
        "agentsConnections": 30,
    } | changes


class Reader(HTMLParser):
    """What a page has: its elements, and its text by cell."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data.strip()


def test_it_shows_each_backend() -> None:
    cells = Reader(metrics_page(document())).cells
    assert cells[7:14] == ["http://10.0.0.1:8080", "30", "30 of 30", "29", NASTY, "10.1.0.1", ""]
    assert cells[14:21] == ["http://b", "0", "0 of 30", "never", "", "", ""]
    assert cells[21:23] == ["total", "30"]


def test_nothing_in_it_is_run_or_loaded() -> None:
    page = Reader(metrics_page(document()))
    assert not {"script", "img", "link", "iframe", "a"} & set(page.tags)
    assert not [
        name for name, _ in page.attributes if name.startswith("on") or name in {"src", "href", "style"}
    ]


def test_its_style_is_the_one_that_its_policy_allows() -> None:
    match = re.search(r"<style>(.*?)</style>", metrics_page(document()), re.DOTALL)
    assert match is not None
    digest = base64.b64encode(hashlib.sha256(match[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in dict(METRICS_PAGE_HEADERS)["Content-Security-Policy"]


def test_without_backends_it_says_so() -> None:
    page = metrics_page(document(services=[], podMetrics={}, totalConnections=0))
    assert "There are no backends." in page
