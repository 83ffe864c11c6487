"""What is handed out to workers alone, what together, and in which order."""

from __future__ import annotations

from pathlib import Path

from tests.workers import FIRST, TOGETHER, directory, unit


def test_units() -> None:
    assert (
        unit("tests/daemon/api/test_page.py::test_it[a::b/c]")
        == "tests/daemon/api/test_page.py::test_it[a::b/c]"
    )
    assert unit("tests/install/test_install.py::test_it") == "tests/install/test_install.py"
    assert unit("tests/http/test_head.py::test_it[x]") == "tests/http/test_head.py"
    assert unit("tests/test_units.py::test_it") == "tests/test_units.py"


def test_the_directories_are_there() -> None:
    assert TOGETHER < FIRST
    here = Path(__file__).parent
    assert all((here / each).is_dir() for each in FIRST)
    assert directory("tests/test_units.py::test_it") not in FIRST
