"""The control section, and the path of the balancer's own page."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_wsb.config.load import load
from trio_wsb.config.model import Control
from trio_wsb.errors import ConfigurationError

BASE = "wsbalancer: {pods: ['http://127.0.0.1:1']}\n"


def test_it_passes_through_the_short_form(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"{BASE}control: {{socket: /run/x.sock, group: adm}}\n")
    assert load(path).config.control == Control("/run/x.sock", "adm")
    path.write_text(BASE)
    assert load(path).config.control == Control(None, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "control: {socket: x.sock}",
            '2:19 control.socket: "x.sock" is not an absolute path of at most 99 bytes',
        ),
        (f"control: {{socket: /{'x' * 99}}}", "is not an absolute path of at most 99 bytes"),
        (f"control: {{socket: '/{'ü' * 50}'}}", "is not an absolute path of at most 99 bytes"),
        ('control: {socket: "/a\\tb"}', "is not an absolute path"),
        ("control: {group: ''}", '2:18 control.group: "" is empty'),
        ("control: {mode: 0660}", "2:11 control.mode: unknown key (valid keys are group and socket)"),
        ("balancerMetricPath: /a?b", '2:21 balancerMetricPath: "/a?b" is not a path'),
    ],
)
def test_problems(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"{BASE}{text}\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (found,) = caught.value.problems
    assert problem in found
