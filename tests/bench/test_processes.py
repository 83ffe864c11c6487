"""Processes: started, watched, and gone afterwards with their workers."""

from __future__ import annotations

import os
import resource
import select
import sys
from pathlib import Path

import pytest

from bench.processes import (
    BenchError,
    cpu_seconds,
    free_port,
    parse_cpu_seconds,
    parse_rollup,
    process_tree,
    raise_descriptor_limit,
    resident_bytes,
    running,
)

SERVER = """
import os, signal, socket, sys
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pause()
while True:
    listener.accept()[0].close()
"""


def test_a_server_and_its_worker_are_gone_at_the_end(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port), "polite"]
    with running("server", command, tmp_path / "log", port=port) as process:
        tree = process_tree(process.pid)
        while len(tree) < 2:  # the worker is forked after the port is open
            tree = process_tree(process.pid)
        assert resident_bytes(process.pid) > 1_000_000
        assert cpu_seconds(process.pid) >= 0
        descriptors = [os.pidfd_open(pid) for pid in tree]
    assert gone(descriptors)


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.processes.STOP_TIMEOUT", 0.05)
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port), "stubborn"]
    with running("server", command, tmp_path / "log", port=port) as process:
        descriptors = [os.pidfd_open(pid) for pid in process_tree(process.pid)]
    assert gone(descriptors)


def test_a_server_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such backend')"]
    server = running("server", command, tmp_path / "log", port=free_port())
    with pytest.raises(BenchError, match=r"server ended at once:\n  no such backend"), server:
        raise AssertionError("it is not running")


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match=r"nobody cannot be started: .*no-such-program"),
        running("nobody", [tmp_path / "no-such-program"], tmp_path / "log", port=1),
    ):
        raise AssertionError("the block does not run")


def test_rss_is_read_from_the_rollup() -> None:
    assert parse_rollup("00400000-7fff [rollup]\nRss:                1234 kB\nPss:  7 kB\n") == 1234 * 1024
    with pytest.raises(ValueError, match="no Rss: line"):
        parse_rollup("")


def test_cpu_time_is_read_past_any_program_name() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    fields = " ".join(["S", *("0" for _ in range(10)), str(3 * ticks), str(ticks), "0"])
    assert parse_cpu_seconds(f"42 (odd) name) {fields}") == 4.0


def test_a_process_that_is_gone_has_no_tree() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert process_tree(child) == []


def test_a_descriptor_limit_out_of_reach_is_explained() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit here")
    with pytest.raises(BenchError, match=f"the hard limit is {hard}"):
        raise_descriptor_limit(hard + 1)


def gone(descriptors: list[int]) -> bool:
    """Whether all these processes end within seconds; a worker is killed without being waited for."""
    ready = [select.select([descriptor], [], [], 5)[0] != [] for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    return all(ready)
