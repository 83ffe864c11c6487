"""`make test-full` fails on a skip that nobody allowed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.strictness import ALLOWED, Strictness

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["alone", "workers"])
def test_a_skip_that_nobody_allowed_fails_the_run(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_it():\n    pytest.skip('traefik is not installed')\n"
    )
    (tmp_path / "test_all.py").write_text("import pytest\npytest.importorskip('caddy_of_nowhere')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.strictness", "-p", "no:cacheprovider"]
    command += [*workers, "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "NOT ALLOWED test_it.py::test_it: Skipped: traefik is not installed" in done.stdout
    assert "NOT ALLOWED test_all.py: Skipped: could not import 'caddy_of_nowhere'" in done.stdout


def test_what_is_allowed_is_counted() -> None:
    strictness = Strictness()
    for reason in ("Skipped: no IPv6 on this host", "Skipped: root may read everything"):
        strictness.pytest_runtest_logreport(
            pytest.TestReport("a", ("a", 1, "a"), {}, "skipped", ("a", 1, reason), "setup")
        )
    assert (strictness.known, strictness.unknown) == (2, [])


def test_the_list_is_short_and_each_has_a_reason() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    said = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != "strictness.py"
    )
    assert len(ALLOWED) <= 10
    for pattern, why in ALLOWED.items():
        re.compile(pattern)
        assert len(why) > 20
        each = pattern.split("|")
        assert f"| `{'`, `'.join(each)}` | {why} |\n" in page
        assert [text for text in each if text not in said] == [], "nobody skips for that"
