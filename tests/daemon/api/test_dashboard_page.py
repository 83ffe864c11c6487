"""The dashboard's page: self-contained, under a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from tests.daemon.api.ask import ask
from tests.daemon.state import World, make_world
from trio_wsb.daemon.api.dashboard import dashboard_page

PAGE = dashboard_page().body.decode()
POLICY = dict(dashboard_page().headers)["Content-Security-Policy"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


async def test_it_is_served_with_its_policy(world: World) -> None:
    answer = await ask(world, "/dashboard/")
    assert answer is not None
    assert (answer.status, answer.body.decode()) == (200, PAGE)
    assert answer.fields["content-type"] == "text/html; charset=utf-8"
    assert answer.fields["content-security-policy"] == POLICY
    assert answer.fields["x-frame-options"] == "DENY"


@pytest.mark.parametrize("element", ["script", "style"])
def test_what_it_runs_and_styles_is_named_by_its_digest(element: str) -> None:
    (inside,) = re.findall(rf"<{element}>(.*?)</{element}>", PAGE, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    assert f"{element}-src 'sha256-{digest}'" in POLICY
    assert "unsafe" not in POLICY
    assert "*" not in POLICY


def test_it_has_nothing_from_elsewhere() -> None:
    assert not re.search(r"(?:src|href|action)=[\"']?(?:https?:)?//", PAGE)
    assert not re.search(r"@import|url\(", PAGE)
    urls = set(re.findall(r"https?://[^\s'\"/]+", PAGE))
    assert urls <= {"http://www.w3.org"}  # a namespace


def test_it_has_no_inline_handlers_or_styles() -> None:
    markup = re.sub(r"<(script|style)>.*?</\1>", "", PAGE, flags=re.DOTALL)
    assert not re.search(r"\son[a-z]+\s*=", markup)
    assert not re.search(r"\sstyle\s*=", markup)
    assert "javascript:" not in PAGE


def test_text_from_peers_is_never_markup() -> None:
    for name in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
        "srcdoc",
    ):
        assert name not in PAGE


def test_everything_to_fill_in_has_a_name() -> None:
    controls = re.findall(r"<(?:input|select)[^>]*>", PAGE)
    assert len(controls) == 4
    assert len(re.findall(r"<label[^>]*><span class=\"sr\">", PAGE)) == len(controls)
    assert len(re.findall(r"<caption", PAGE)) == len(re.findall(r"<table", PAGE)) == 2
    assert '<html lang="en">' in PAGE
    identities = re.findall(r"\sid=\"([^\"]+)\"", PAGE)
    assert len(identities) == len(set(identities))


def test_the_script_finds_what_it_asks_for() -> None:
    asked = set(re.findall(r"\$\(\"([a-z-]+)\"\)", PAGE))
    assert asked <= set(re.findall(r"\sid=\"([^\"]+)\"", PAGE))
    assert len(asked) > 30
