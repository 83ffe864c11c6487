"""`make install` and `make uninstall` below another root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ("etc/systemd/system/trio-wsb.service", "etc/systemd/system/trio-wsb.socket")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package once."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(target), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return next(target.glob("*.whl"))


def make(target: str, destination: Path, wheel: Path) -> str:
    # Dependencies are left out: what is tested is where things go.
    environment = {**os.environ, "DESTDIR": str(destination), "PACKAGE": str(wheel), "PIP_NO_DEPS": "1"}
    finished = subprocess.run(
        ["make", "--no-print-directory", target, f"PYTHON={sys.executable}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def files(destination: Path) -> set[str]:
    return {str(path.relative_to(destination)) for path in destination.rglob("*") if path.is_file()}


def test_install_again_change_and_uninstall(tmp_path: Path, wheel: Path) -> None:
    config = tmp_path / "etc/trio-wsb/trio-wsb.yaml"
    assert "systemctl enable --now trio-wsb" in make("install", tmp_path, wheel)
    installed = files(tmp_path)
    assert {*UNITS, "etc/sysusers.d/trio-wsb.conf", "etc/tmpfiles.d/trio-wsb.conf"} <= installed
    assert {"etc/logrotate.d/trio-wsb", "etc/trio-wsb/trio-wsb.yaml"} <= installed
    assert config.read_text() == (ROOT / "etc/trio-wsb.yaml").read_text()
    assert config.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "usr/local/bin/trio-wsb").readlink() == Path("/opt/trio-wsb/bin/trio-wsb")
    # It will run without DESTDIR in front.
    script = (tmp_path / "opt/trio-wsb/bin/trio-wsb").read_text()
    assert script.startswith("#!/opt/trio-wsb/bin/python")

    # Again: nothing new. With an example that has changed since: the untouched copy follows.
    make("install", tmp_path, wheel)
    assert files(tmp_path) == installed
    for path in (config, tmp_path / "opt/trio-wsb/share/trio-wsb.yaml"):
        path.write_text("# what an older version shipped\n")
    make("install", tmp_path, wheel)
    assert config.read_text() == (ROOT / "etc/trio-wsb.yaml").read_text()

    # Somebody's own is never overwritten, and never removed.
    config.write_text("# mine\n")
    assert "kept your /etc/trio-wsb/trio-wsb.yaml" in make("install", tmp_path, wheel)
    assert config.read_text() == "# mine\n"
    assert (tmp_path / "etc/trio-wsb/trio-wsb.yaml.new").exists()
    make("uninstall", tmp_path, wheel)
    assert files(tmp_path) == {"etc/trio-wsb/trio-wsb.yaml"}
    make("uninstall", tmp_path, wheel)


def test_uninstall_of_an_untouched_installation_leaves_nothing(tmp_path: Path, wheel: Path) -> None:
    make("install", tmp_path, wheel)
    make("uninstall", tmp_path, wheel)
    assert files(tmp_path) == set()
    assert not (tmp_path / "etc/trio-wsb").exists()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_the_script_is_clean() -> None:
    subprocess.run(["shellcheck", str(ROOT / "systemd/install.sh")], check=True)
