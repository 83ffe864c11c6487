"""The demo tools as processes: output, signals, exit statuses, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from tests.demo.processes import demo_backend, descendants, process, wait_for_ends
from trio_wsb.demo.children import ChildDiedError, Children
from trio_wsb.demo.orchestra import directory_for_a_socket
from trio_wsb.demo.totals import parse_totals

pytestmark = pytest.mark.daemon

FOREVER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_backend_and_client_part_in_peace(number: signal.Signals) -> None:
    with demo_backend("--name", "b9", "--foreign", "4") as (backend, url):
        arguments = [
            "demo-client",
            "--json",
            "--url",
            f"{url}/x",
            "--clients",
            "20",
            "--message-interval",
            "0.1",
        ]
        with process(*arguments) as client:
            assert client.stdout is not None
            while True:
                line = client.stdout.readline()
                assert json.loads(line)["event"] == "progress"
                if parse_totals(line).open == 20:
                    break
            report = httpx.get(f"{url}/metric").json()
            assert (report["agentsConnections"], report["podName"]) == (24, "b9")
            client.send_signal(number)
            out, err = client.communicate(timeout=30)
            assert (client.returncode, err) == (0, "")
            summary = json.loads(out.splitlines()[-1])
            assert summary["event"] == "summary"
            assert summary["good"] is True
            assert summary["opened"] == 20
            assert summary["messages"] > 0
        backend.send_signal(number)
        assert backend.wait(30) == 0
        assert backend.stderr is not None
        assert backend.stderr.read() == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 1001), (signal.SIGKILL, 1006)])
def test_a_backend_that_ends_costs_the_client_its_sessions_and_status_1(
    number: signal.Signals, code: int
) -> None:
    with demo_backend() as (backend, url), process("demo-client", "--url", url, "--clients", "3") as client:
        assert client.stdout is not None
        while "open 3/3" not in (line := client.stdout.readline()):
            assert line
        backend.send_signal(number)
        out, _ = client.communicate(timeout=30)
        assert f"sessions lost:   3 ({code}: 3)" in out
        assert client.returncode == 1


def test_a_client_without_a_server_says_why() -> None:
    with process("demo-client", "--url", "ws://127.0.0.1:1/", "--clients", "2") as client:
        out, err = client.communicate(timeout=30)
        assert "failed to open:  2 (Connection refused)" in out
        assert (client.returncode, err) == (1, "")


def test_a_backend_whose_port_is_taken_says_so_in_a_line() -> None:
    with (
        demo_backend() as (_, url),
        process("demo-backend", "--listen", url.removeprefix("http://")) as second,
    ):
        out, err = second.communicate(timeout=30)
        assert (second.returncode, out) == (1, "")
        assert "in use" in err
        assert "Traceback" not in err


async def test_children_are_watched_and_none_stays(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = children.start("sleeper", FOREVER, read_output=True)
        stubborn = children.start("stubborn", STUBBORN, read_output=True)
        with trio.fail_after(30):
            assert await child.read_line() == await stubborn.read_line() == "up"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.watch)
                nursery.start_soon(stubborn.watch)
                await children.stop([child], 20)
                assert child.status == -signal.SIGTERM
                await children.stop([stubborn], 0.05)
                assert stubborn.status == -signal.SIGKILL
            assert await child.read_line() is None
        left = children.start("left", FOREVER)
        assert left.status is None
        pid = left.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_that_dies_is_an_error_with_its_log(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = children.start("daemon", [sys.executable, "-c", "import sys; sys.exit('no such file')"])
        with (
            trio.fail_after(30),
            pytest.raises(ChildDiedError, match=r"daemon ended with status 1 .*\n +no such file"),
        ):
            await child.watch()
        child = children.start("mute", FOREVER)
        os.kill(child.pid, signal.SIGKILL)
        with (
            trio.fail_after(30),
            pytest.raises(ChildDiedError, match=r"mute was ended by SIGKILL .*log is empty"),
        ):
            await child.watch()


def test_a_killed_parent_takes_its_children_along(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from trio_wsb.demo.children import Children\n"
        f"children = Children(pathlib.Path({str(tmp_path)!r}))\n"
        f"[children.start(str(n), {FOREVER!r}) for n in range(3)]\n"
        "print('up', flush=True); time.sleep(600)"
    )
    # `Children` makes events, which Trio allows outside of its loop.
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        children = descendants(parent.pid)
        assert len(children) == 3
        parent.kill()
        assert wait_for_ends(children, 30) == set()


@pytest.fixture
def playing(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A demo whose first clients are about to connect."""
    # A demo that is killed cannot remove its directory; a test's own may be too long a path for a socket.
    with (
        tempfile.TemporaryDirectory(prefix="wsb") as directory,
        monkeypatch.context() as patch,
    ):
        patch.setenv("TMPDIR", directory)
        yield from _playing()


def _playing() -> Iterator[subprocess.Popen[str]]:
    with process("demo", "--duration", "60", "--clients", "40") as popen:
        assert popen.stdout is not None
        while "clients begin to connect" not in (line := popen.stdout.readline()):
            assert line, popen.stderr and popen.stderr.read()
        yield popen


def test_the_demo_from_start_to_end() -> None:
    with process("demo", "--duration", "6", "--clients", "60") as popen:
        out, err = popen.communicate(timeout=90)
        assert (popen.returncode, err) == (0, ""), out
        for text in ("36 sessions are up", "backend-4 added", "has reloaded", "all 60 sessions are up"):
            assert text in out
        for subject in ("connections", "sessions lost", "clients refused", "wrong echoes", "processes"):
            [verdict] = [line for line in out.splitlines() if line.startswith(f"{subject}  ")]
            assert verdict.rstrip().endswith("PASS")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_demo_ends_cleanly_at_a_signal(playing: subprocess.Popen[str], number: signal.Signals) -> None:
    children = descendants(playing.pid)
    assert len(children) == 5
    playing.send_signal(number)
    out, err = playing.communicate(timeout=60)
    assert wait_for_ends(children, 0) == set()
    assert (playing.returncode, err) == (0, ""), out
    assert "ended too early" in out
    assert "FAIL" not in out


@pytest.mark.parametrize(("length", "used"), [(20, True), (63, True), (64, False), (200, False)])
def test_where_a_sockets_path_does_not_fit_the_demo_goes_elsewhere(
    length: int, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = "/" + "d" * (length - 1)
    monkeypatch.setattr(tempfile, "tempdir", wanted)
    assert directory_for_a_socket() == (wanted if used else "/tmp")


def test_the_demo_killed_leaves_nothing(playing: subprocess.Popen[str]) -> None:
    children = descendants(playing.pid)
    assert len(children) == 5
    playing.kill()
    assert wait_for_ends(children, 30) == set()


def test_the_demo_ends_when_nobody_reads_it(playing: subprocess.Popen[str]) -> None:
    children = descendants(playing.pid)
    assert playing.stdout is not None
    assert playing.stderr is not None
    playing.stdout.close()
    assert playing.wait(60) == 1
    assert wait_for_ends(children, 0) == set()
    assert playing.stderr.read() == ""


def test_the_demo_says_which_process_died(playing: subprocess.Popen[str]) -> None:
    children = descendants(playing.pid)
    [daemon] = [pid for pid in children if b"\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(daemon, signal.SIGKILL)
    _, err = playing.communicate(timeout=60)
    assert wait_for_ends(children, 0) == set()
    assert playing.returncode == 1
    assert "balancer was ended by SIGKILL before its time" in err
    assert "Traceback" not in err


def test_the_demo_draws_on_a_terminal() -> None:
    leader, follower = pty.openpty()
    with process("demo", "--duration", "5", "--clients", "40", stdout=follower) as popen:
        os.close(follower)
        seen = b""
        told = False
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:
                # What a terminal says when its last user has left.
                break
            seen += data
            if not told and b"sessions are up" in seen:
                told = True
                popen.send_signal(signal.SIGINT)
        os.close(leader)
        assert popen.wait(60) == 0
    assert "█".encode() in seen
    assert b"\x1b[" in seen
    assert b"PASS" in seen
