"""The order of a run, the configurations of the peers, and the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from bench.__main__ import main
from bench.machine import kernel_version, parse_busy_seconds
from bench.peers import Direct, Nginx, Peer, TrioWsb, nginx_configuration, trio_wsb_configuration
from bench.run import Options, visits
from bench.scenarios import SCENARIOS


def test_peers_take_turns_and_change_order_every_round() -> None:
    peers: list[Peer] = [Direct(), Nginx(), TrioWsb()]
    seen = [(number, peer.name) for number, _, peer in visits([SCENARIOS["echo"]], peers, 2)]
    assert seen == [
        (0, "direct"), (0, "nginx"), (0, "trio-wsb"),
        (1, "trio-wsb"), (1, "nginx"), (1, "direct"),
    ]  # fmt: skip


def test_direct_has_no_memory_to_measure() -> None:
    names = [peer.name for _, _, peer in visits([SCENARIOS["idle"]], [Direct(), Nginx()], 1)]
    assert names == ["nginx"]


def test_targets_apply_to_the_standard_sizes_only() -> None:
    assert Options(rounds=9, seconds=0.5).standard
    assert not Options(size=1024).standard


def test_nginx_keeps_to_its_directory_and_to_loopback() -> None:
    text = nginx_configuration(8080, [9001, 9002], 2000, Path("/somewhere"))
    assert "listen 127.0.0.1:8080 " in text
    assert text.count("        server 127.0.0.1:900") == 2
    assert "worker_connections 4512;" in text
    paths = [word for word in text.replace(";", " ").split() if word.startswith("/") and len(word) > 1]
    assert paths
    assert all(path.startswith("/somewhere/") for path in paths)


def test_our_configuration_is_the_short_form_on_loopback() -> None:
    parsed = yaml.safe_load(trio_wsb_configuration(8080, [9001, 9002], 30_000))
    assert parsed["wsbalancer"]["pods"] == ["http://127.0.0.1:9001", "http://127.0.0.1:9002"]
    assert parsed["entryPoints"]["web"] == {"address": "127.0.0.1:8080", "maxConnections": 30_512}


@pytest.mark.parametrize(
    ("release", "version"), [("6.1.0-18-amd64", "6.1.0"), ("6.18.44-x", "6.18.44"), ("odd", "odd")]
)
def test_kernel_version_leaves_out_what_a_provider_appends(release: str, version: str) -> None:
    assert kernel_version(release) == version


def test_busy_time_leaves_out_idle_and_waiting() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    user, system, idle, waiting, stolen = 3 * ticks, 2 * ticks, 50 * ticks, 7 * ticks, ticks
    stat = f"cpu  {user} 0 {system} {idle} {waiting} 0 0 {stolen} 0 0\ncpu0 1 2 3\n"
    assert parse_busy_seconds(stat) == 6.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "nginx,apache"], "apache: not one of direct, nginx, trio-wsb, trio-wsb-routed"),
        (["--rounds", "0"], "0 is not between 1 and 100"),
        (["--seconds", "soon"], "invalid number value: 'soon'"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert main(["--peers", "direct"]) == 2
    assert "no-such-compiler: no C compiler is installed" in capsys.readouterr().err
