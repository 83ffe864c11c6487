"""`make coverage` prints both figures and fails below the floors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.coverage_floor import PURE_FLOOR, WHOLE_FLOOR, NotAReport, judge, room_of

ROOT = Path(__file__).parent.parent


def file(lines: int, branches: int, of: int = 1000) -> dict[str, Any]:
    return {
        "summary": {
            "covered_lines": lines,
            "num_statements": of,
            "covered_branches": branches,
            "num_branches": of,
        }
    }


def report(**files: dict[str, Any]) -> dict[str, Any]:
    return {
        "files": {f"/somewhere/trio_wsb/{name.replace('__', '/')}.py": each for name, each in files.items()}
    }


def test_both_floors_are_kept() -> None:
    lines, kept = judge(report(http__head=file(990, 981), net__tls=file(900, 850), units=file(1000, 1000)))
    assert kept
    assert lines[-2:] == [
        "pure layers                      99.5%     99.0%   at least 98 %",
        "everything                       96.3%     94.4%   at least 90 %",
    ]
    assert [line.split()[0] for line in lines[1:4]] == ["units", "http", "net"], "from the bottom up"


@pytest.mark.parametrize(("lines_run", "branches"), [(979, 1000), (1000, 979)])
def test_lines_and_branches_are_judged_each(lines_run: int, branches: int) -> None:
    lines, kept = judge(report(http__head=file(lines_run, branches), net__tls=file(1000, 1000)))
    assert not kept
    assert any("BELOW 98 %" in line for line in lines)
    assert "  /somewhere/trio_wsb/http/head.py: 21 lines and branches" in lines


def test_what_is_impure_has_the_floor_of_the_whole() -> None:
    assert judge(report(http__head=file(1000, 1000), net__tls=file(800, 800)))[1]
    lines, kept = judge(report(http__head=file(1000, 1000), net__tls=file(780, 780)))
    assert not kept
    assert lines[-1] == "  /somewhere/trio_wsb/net/tls.py: 440 lines and branches"
    assert (PURE_FLOOR, WHOLE_FLOOR) == (98.0, 90.0)


def test_a_file_without_branches_counts_as_whole() -> None:
    document = report(errors=file(1000, 0))
    document["files"]["/somewhere/trio_wsb/errors.py"]["summary"]["num_branches"] = 0
    assert judge(document)[1]


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("trio_wsb/http/head.py", "http"),
        ("/elsewhere/trio_wsb/units.py", "units"),
        ("/a/trio_wsb/daemon/api/own.py", "daemon"),
        ("tests/http/test_head.py", ""),
        ("trio_wsb", ""),
    ],
)
def test_rooms(path: str, room: str) -> None:
    assert room_of(path) == room


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"files": {}},
        {"files": []},
        {"files": {"elsewhere.py": {}}},
        {"files": {"trio_wsb/units.py": {"summary": {"covered_lines": 1, "num_statements": 1}}}},
        {"files": {"trio_wsb/units.py": {}}},
    ],
)
def test_what_is_no_report(document: dict[str, Any]) -> None:
    with pytest.raises(NotAReport):
        judge(document)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (json.dumps(report(units=file(1000, 1000))), 0, "at least 98 %"),
        (json.dumps(report(units=file(100, 100))), 1, "BELOW 98 %"),
        ("No data to report.", 2, "this is no report of coverage"),
        ("[]", 2, "this is no report of coverage"),
    ],
)
def test_the_command(text: str, status: int, said: str) -> None:
    command = [sys.executable, "-m", "tests.coverage_floor"]
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stdout + done.stderr


def test_each_line_that_is_left_out_says_why() -> None:
    left_out = [
        line.strip()
        for path in sorted((ROOT / "trio_wsb").rglob("*.py"))
        for line in path.read_text().splitlines()
        if "pragma: no" in line
    ]
    assert len(left_out) <= 5
    assert [line for line in left_out if not re.search(r"# pragma: no cover - \w.{20}", line)] == []
