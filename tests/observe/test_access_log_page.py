"""The reference of the access log names exactly the fields that there are, and the headers that are redacted."""

from __future__ import annotations

import re
from pathlib import Path

from trio_wsb.config.accesslog import FIELDS, SECRET_HEADERS
from trio_wsb.proxy.record import Stage

PAGE = (Path(__file__).parents[2] / "docs/reference/access-log.md").read_text("utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_field_is_there_and_no_other() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", section("Fields"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(FIELDS)


def test_every_stage_is_there() -> None:
    for stage in Stage:
        assert f"`{stage.value}`" in section("Fields")


def test_every_redacted_header_is_there() -> None:
    listed = section("What never stands there").partition("- The values of query")[0]
    assert {name.lower() for name in re.findall(r"`([A-Z][\w-]+)`", listed)} == SECRET_HEADERS
