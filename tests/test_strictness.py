"""`make test-full` fails on a skip that nobody allowed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.strictness import ALLOWED

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("reason", "status", "told"),
    [
        ("traefik is not installed", 1, "NOT ALLOWED test_it.py::test_it: Skipped: traefik is not installed"),
        ("no IPv6 on this host", 0, "1 for reasons"),
    ],
)
def test_a_skip(tmp_path: Path, reason: str, status: int, told: str) -> None:
    (tmp_path / "test_it.py").write_text(f"import pytest\ndef test_it():\n    pytest.skip({reason!r})\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.strictness", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert told in done.stdout


def test_the_list_is_short_and_each_has_a_reason() -> None:
    assert len(ALLOWED) <= 10
    for pattern, why in ALLOWED.items():
        re.compile(pattern)
        assert len(why) > 20
