"""A network in which packets arrive as from a network card, and whether it can be had."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench import network
from bench.processes import BenchError, MissingToolError

MASK = "mount -t sysfs none /sys && cat /sys/class/net/lo/queues/rx-0/rps_cpus"


def namespace() -> str:
    return str(Path("/proc/thread-self/ns/net").readlink())


@pytest.mark.parametrize(
    ("count", "mask"),
    [(1, "1"), (2, "3"), (4, "f"), (32, "ffffffff"), (33, "1,ffffffff"), (70, "3f,ffffffff,ffffffff")],
)
def test_a_mask_has_a_bit_for_each_cpu(count: int, mask: str) -> None:
    assert network.cpu_mask(count) == mask


def test_who_may_not_have_it_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _: "/bin/true")
    assert network.why_not() == "a network of its own is for root only"
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert network.why_not() == "unshare, ip, mount of util-linux and iproute2: not installed"
    with pytest.raises(MissingToolError, match="not installed"), network.steered():
        raise AssertionError("the block does not run")


@pytest.fixture
def permitted() -> None:
    try:
        with network.steered():
            pass
    except BenchError as error:
        pytest.skip(f"no network namespaces here: {error}")


@pytest.mark.usefixtures("permitted")
def test_packets_are_steered_there_and_nowhere_else() -> None:
    home = namespace()
    with network.steered():
        assert namespace() != home
        seen = subprocess.run(
            ["unshare", "--mount", "sh", "-c", MASK], capture_output=True, text=True, check=True
        )
        assert int(seen.stdout.replace(",", ""), 16) == (1 << (os.cpu_count() or 1)) - 1
        names = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
        assert [line.split()[0] for line in names.splitlines()] == ["lo"]
    assert namespace() == home


@pytest.mark.usefixtures("permitted")
def test_a_command_runs_there_and_ends_as_it_does(capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        network.main(["--mtu", "1500", "sh", "-c", "readlink /proc/self/ns/net; ip link show lo; exit 7"])
        == 7
    )
    inside, shown = capfd.readouterr().out.strip().split("\n", 1)
    assert inside.startswith("net:")
    assert inside != namespace()
    assert "mtu 1500" in shown


@pytest.mark.usefixtures("permitted")
@pytest.mark.parametrize(
    ("command", "message"), [(["/no/such/program"], "/no/such/program"), (["--mtu=-1", "true"], "mtu")]
)
def test_what_cannot_be_is_told(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert network.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench.network: ")
    assert message in error


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        network.main([])
    assert capsys.readouterr().err.startswith("usage: ")
