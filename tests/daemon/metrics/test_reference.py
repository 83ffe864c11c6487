"""The reference lists every metric, as the catalogue has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_wsb.daemon.metrics.reference import PAGE, renewed

ROOT = Path(__file__).parents[3]


def test_the_page_is_current() -> None:
    page = (ROOT / PAGE).read_text("utf-8")
    assert page == renewed(page), "run `python -m trio_wsb.daemon.metrics.reference` and keep what it prints"


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        renewed("# Metrics\n")
