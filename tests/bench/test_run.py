"""The order of a run, the configurations of the peers, and the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from attrs import evolve

from bench.__main__ import main, possible
from bench.machine import kernel_version, parse_free_seconds
from bench.network import why_not
from bench.others import (
    Nginx,
    caddy_configuration,
    find_program,
    haproxy_configuration,
    nginx_configuration,
    traefik_configuration,
    traefik_services,
)
from bench.peer import Direct, Peer
from bench.peers import (
    PEERS,
    TrioWsb,
    kernel_relay_said,
    routed_configuration,
    trio_wsb_configuration,
)
from bench.processes import MissingToolError
from bench.report import OURS, TARGETS
from bench.run import Options, visits
from bench.scenarios import FROM_A_CARD, SCENARIOS
from trio_wsb.config.load import check_files
from trio_wsb.proxy.relaying import RelayMode

ECHO, IDLE, HANDSHAKES = SCENARIOS["echo-64-20"], SCENARIOS["idle"], SCENARIOS["handshakes"]


def test_peers_take_turns_and_change_order_every_round() -> None:
    peers: list[Peer] = [Direct(), Nginx(), TrioWsb("ours")]
    seen = [(number, peer.name) for number, _, peer in visits([ECHO], peers, 2)]
    assert seen == [
        (0, "direct"), (0, "nginx"), (0, "ours"),
        (1, "ours"), (1, "nginx"), (1, "direct"),
    ]  # fmt: skip


def test_direct_has_no_memory_to_measure() -> None:
    names = [peer.name for _, _, peer in visits([IDLE], [Direct(), Nginx()], 1)]
    assert names == ["nginx"]


def test_what_takes_long_is_measured_once() -> None:
    asked = [(number, scenario.name) for number, scenario, _ in visits([IDLE, ECHO], [Nginx()], 3)]
    assert asked == [(0, "idle"), (0, "echo-64-20"), (1, "echo-64-20"), (2, "echo-64-20")]


def test_routers_show_in_handshakes_alone() -> None:
    routed = PEERS["trio-wsb-routed"]
    assert [scenario for _, scenario, _ in visits([ECHO, HANDSHAKES], [routed], 1)] == [HANDSHAKES]


def test_every_target_can_be_measured() -> None:
    for target in TARGETS:
        assert target.scenario in SCENARIOS
        assert SCENARIOS[target.scenario].quick, "the targets are for the short run too"
        assert target.peer in PEERS
    assert set(PEERS) >= OURS


def test_a_full_run_takes_longer_and_asks_the_same() -> None:
    short, full = Options(), Options.full()
    assert full.rounds > short.rounds
    assert full.seconds > short.seconds
    assert full.held == short.held


def test_nginx_keeps_to_its_directory_and_to_loopback() -> None:
    text = nginx_configuration(8080, [9001, 9002], 2000, Path("/somewhere"))
    assert "listen 127.0.0.1:8080 " in text
    assert text.count("        server 127.0.0.1:900") == 2
    assert "worker_connections 6024;" in text
    assert "worker_processes auto;" in nginx_configuration(1, [2], 3, Path("/x"), workers="auto")
    paths = [word for word in text.replace(";", " ").split() if word.startswith("/") and len(word) > 1]
    assert paths
    assert all(path.startswith("/somewhere/") for path in paths)


def test_the_others_keep_to_loopback_too() -> None:
    haproxy = haproxy_configuration(8080, [9001, 9002], 2000)
    assert "bind 127.0.0.1:8080 " in haproxy
    assert haproxy.count("server b") == 2
    static = yaml.safe_load(traefik_configuration(8080, Path("/somewhere/dynamic.yaml")))
    assert static["entryPoints"]["web"]["address"] == "127.0.0.1:8080"
    assert static["global"] == {"checkNewVersion": False, "sendAnonymousUsage": False}
    services = yaml.safe_load(traefik_services([9001, 9002]))["http"]["services"]
    assert services["chat"]["loadBalancer"]["servers"] == [
        {"url": "http://127.0.0.1:9001"},
        {"url": "http://127.0.0.1:9002"},
    ]
    caddy = caddy_configuration(8080, [9001, 9002], Path("/somewhere"))
    assert "admin off" in caddy
    assert "bind 127.0.0.1" in caddy
    assert "reverse_proxy 127.0.0.1:9001 127.0.0.1:9002 {" in caddy


@pytest.mark.parametrize("make", [trio_wsb_configuration, routed_configuration])
@pytest.mark.parametrize("relay", ["stream", "kernel"])
def test_our_configuration_is_a_valid_one(make: Callable[..., str], relay: RelayMode, tmp_path: Path) -> None:
    text = make(8080, [9001, 9002], 30_000, relay=relay)
    file = tmp_path / "trio-wsb.yaml"
    file.write_text(text)
    assert [each for each in check_files([file]) if each.severity == "error"] == []
    parsed = yaml.safe_load(text)
    assert parsed["entryPoints"]["web"] == {"address": "127.0.0.1:8080", "maxConnections": 30_512}
    assert parsed["kernelRelay"] == {"enabled": relay == "kernel"}
    assert parsed["http"]["services"]["chat"]["loadBalancer"]["relay"] == relay


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", None),
        ("... [info     ] kernel relay ready        inFlight=1", ""),
        ("... no kernel relay, the daemon moves all bytes itself reason=not permitted\n", "not permitted"),
    ],
)
def test_a_daemon_says_whether_the_kernel_relays(log: str, said: str | None) -> None:
    assert kernel_relay_said(log) == said


def test_a_program_that_is_missing_is_named_with_its_source() -> None:
    with pytest.raises(MissingToolError, match=r"no-such-proxy is not installed \(Debian: apt-get\)"):
        find_program("no-such-proxy", "Debian: apt-get")


@pytest.mark.parametrize(
    ("release", "version"), [("6.1.0-18-amd64", "6.1.0"), ("6.18.44-x", "6.18.44"), ("odd", "odd")]
)
def test_kernel_version_leaves_out_what_a_provider_appends(release: str, version: str) -> None:
    assert kernel_version(release) == version


def test_what_is_free_is_idle_waiting_or_stolen() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    user, system, idle, waiting, stolen = 3 * ticks, 2 * ticks, 50 * ticks, 7 * ticks, ticks
    stat = f"cpu  {user} 0 {system} {idle} {waiting} 0 0 {stolen} 0 0\ncpu0 1 2 3\n"
    assert parse_free_seconds(stat) == 58.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--peers", "nginx,apache"],
            "apache: not one of direct, nginx, nginx-auto, haproxy, traefik, caddy, trio-wsb-kernel",
        ),
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


def test_what_cannot_be_asked_here_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    impossible = evolve(IDLE, name="impossible", why_not=lambda: "takes a moon")
    assert possible([ECHO, impossible]) == [ECHO]
    assert capsys.readouterr().err == "bench: impossible: takes a moon: left out\n"
    with pytest.raises(MissingToolError, match="nothing that was asked can be measured here"):
        possible([impossible])


def test_small_messages_are_asked_twice() -> None:
    for name in FROM_A_CARD:
        plain, card = SCENARIOS[name], SCENARIOS[f"{name}-card"]
        assert card.title == f"{plain.title}, packets as from a network card"
        assert (card.figure, card.quick, card.why_not) == (plain.figure, plain.quick, why_not)
