"""What `status` and `sessions` look like: at 80 columns nothing is cut, and nothing is taken for markup."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from trio_wsb.cli.screens import KERNEL_NOT_WANTED, sessions_screen, span, status_screen, watch_screen
from trio_wsb.daemon.kernelrelay import NOT_WANTED
from trio_wsb.proxy.relaying import CONFIGURED


def draw(screen: RenderableType, width: int = 80) -> list[str]:
    """Return the lines of a screen; none is wider than it may be."""
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, markup=False, emoji=False).print(screen)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def backend(url: str, **changes: Any) -> dict[str, Any]:
    return {
        "service": "chat",
        "url": url,
        "state": "ready",
        "weight": 1,
        "maxConnections": 0,
        "live": 1234,
        "handshakes": 3,
        "opened": 98765,
        "failures": 2,
        "drops": 1,
        "coolDownLeft": 0.0,
        "podName": None,
        "podIP": None,
        "nodeName": None,
        "foreign": 12,
        "load": 1249,
        "reported": 1246,
        "reportAge": 3.4,
        "reportStale": False,
        "reportProblem": None,
    } | changes


def removed(url: str) -> dict[str, Any]:
    own = (
        "live",
        "handshakes",
        "opened",
        "failures",
        "drops",
        "coolDownLeft",
        "podName",
        "podIP",
        "nodeName",
    )
    known = backend(url)
    return {"service": None, "url": url, "state": "removed"} | {key: known[key] for key in own}


def status(**changes: Any) -> dict[str, Any]:
    return {
        "version": "1.2.3",
        "pid": 4242,
        "startedAt": "2025-01-31T12:00:00.000Z",
        "uptime": 273725.5,
        "stopping": False,
        "configuration": {
            "file": "/etc/trio-wsb/trio-wsb.yaml",
            "loadedAt": "2025-02-01T12:00:00.000Z",
            "warnings": [],
            "reloads": 3,
            "reloadsFailed": 1,
            "lastReload": None,
        },
        "entryPoints": [
            {
                "name": "web",
                "addresses": ["0.0.0.0:80", "[::]:80"],
                "connections": 1300,
                "maxConnections": 20000,
            },
            {"name": "admin", "addresses": ["127.0.0.1:9001"], "connections": 0, "maxConnections": 0},
        ],
        "services": [{"name": "chat", "strategy": "leastconn"}],
        "backends": [backend("http://10.0.0.1:8080")],
        "sessions": {
            "open": 1234,
            "opened": 98765,
            "ended": {"client_closed": 97000, "backend_lost": 531, "shutdown": 0},
        },
    } | changes


def text(document: dict[str, Any], width: int = 80) -> str:
    return "\n".join(draw(status_screen(document), width))


def test_the_screen() -> None:
    lines = draw(status_screen(status()))
    assert lines[0] == "trio-wsb       1.2.3, up 3d 4h, pid 4242"
    assert lines[1].startswith("configuration  /etc/trio-wsb/trio-wsb.yaml, in force since 2025-02-0")
    assert lines[2:6] == [
        "last reload    none",
        "entry points   web  0.0.0.0:80, [::]:80  1,300 of 20,000 connections",
        "               admin  127.0.0.1:9001  0 connections",
        "sessions       1,234 open, 98,765 opened, 97,531 ended: client_closed 97,000,",
    ]
    assert lines[6].strip() == "backend_lost 531"
    assert lines[8] == "chat  leastconn"
    assert lines[9].split() == [
        "backend",
        "state",
        "weight",
        "live",
        "handshakes",
        "reported",
        "foreign",
        "age",
    ]
    assert lines[10].split() == ["10.0.0.1:8080", "ready", "1", "1,234", "3", "1,246", "12", "3.4s"]


def test_health_and_services_of_services() -> None:
    health = {"path": "/h", "mode": "http", "up": False, "checkedAgo": 1.0, "problem": "answered 503"}
    services = [
        {"name": "chat", "strategy": "leastconn"},
        {"name": "canary", "strategy": "weighted", "parts": ["chat", "other"]},
    ]
    drawn = text(status(backends=[backend("http://a", state="down", health=health)], services=services))
    assert " down " in drawn
    assert "a: check failed: answered 503" in drawn
    assert drawn.splitlines()[-1].strip() == "canary  weighted of chat, other"


def test_states_and_reports() -> None:
    backends = [
        backend("http://192.168.100.201:8080", state="cooling_down", coolDownLeft=7.6),
        backend(
            "https://backend-with-a-long-name.example.internal",
            state="full",
            reportAge=200.0,
            reportStale=True,
        ),
        backend(
            "http://c",
            state="off",
            reported=None,
            reportAge=None,
            reportStale=True,
            reportProblem="answered 404",
        ),
        backend("http://d", reported=None, reportAge=None, foreign=0),
        removed("http://e"),
    ]
    drawn = text(status(backends=backends))
    assert "cooling 8s" in drawn
    assert "3m" in drawn
    assert "~12" in drawn
    assert "c: no fresh report: answered 404" in drawn
    assert "no longer configured, with sessions that live on" in drawn
    # Folded, not cut.
    assert "…" not in drawn
    joined = "".join(line[:30].strip().partition(" ")[0] for line in drawn.splitlines())
    assert "backend-with-a-long" in joined


def test_reloads() -> None:
    document = status()
    outcome = {
        "succeeded": True,
        "finishedAt": "2025-02-03T16:00:05.500Z",
        "duration": 0.051,
        "problems": [],
        "warnings": [],
    }
    document["configuration"] |= {"lastReload": outcome}
    assert "last reload    ok, 2m ago, in 0.051 s" in text(document)
    problems = ["trio-wsb.yaml:3:3 wsbalancer.cacheTTl: unknown key", "trio-wsb.yaml:4:16 x"]
    outcome |= {"succeeded": False, "problems": problems}
    drawn = text(document, 120)
    assert "last reload    failed, 2m ago: 2 problems, the old configuration stays in force" in drawn
    assert all(f"\n               {problem}" in drawn for problem in problems)


def test_warnings_a_stop_and_no_backends() -> None:
    document = status(stopping=True, backends=[])
    document["configuration"]["warnings"] = ["trio-wsb.yaml:1:1 global: has no meaning here"]
    document["entryPoints"][0]["addresses"] = []
    drawn = text(document)
    assert "pid 4242  stopping" in drawn
    assert "               trio-wsb.yaml:1:1 global" in drawn
    assert "web  closed  1,300 of" in drawn
    assert "no backends" in drawn


@pytest.mark.parametrize(("permanent", "how"), [(True, "permanently"), (False, "for now")])
def test_redirections(permanent: bool, how: str) -> None:
    document = status()
    document["entryPoints"][0]["redirection"] = {
        "router": "web-to-secure@internal",
        "to": "secure",
        "scheme": "https",
        "port": 8443,
        "permanent": permanent,
        "priority": 2,
    }
    wanted = f"               sends requests to https, port 8443, {how} (web-to-secure@internal)"
    assert wanted in text(document, 120)


def test_disabled_routers() -> None:
    routers = [
        {"name": "chat", "status": "enabled", "error": []},
        {"name": "[b]ad", "status": "disabled", "error": ["f.yaml:1:2 first", "f.yaml:3:4 second"]},
    ]
    lines = draw(status_screen(status(routers=routers)))
    at = next(index for index, line in enumerate(lines) if line.startswith("routers"))
    assert lines[at : at + 3] == [
        "routers        1 disabled, 1 run",
        "               [b]ad  f.yaml:1:2 first",
        "               [b]ad  f.yaml:3:4 second",
    ]
    assert not any(line.startswith("routers") for line in draw(status_screen(status(routers=routers[:1]))))


def test_a_wide_terminal_shows_more() -> None:
    document = status(backends=[backend("http://a", podName="pod-1"), removed("http://b")])
    drawn = "\n".join(draw(status_screen(document, wide=True), 130))
    assert "failures drops pod" in drawn
    assert "pod-1" in drawn


@pytest.mark.parametrize("nasty", ["[red]x[/red]", "[/]", ":smile:", "x\\[y"])
def test_nothing_is_taken_for_markup(nasty: str) -> None:
    document = status(
        services=[{"name": nasty, "strategy": "wrr"}], backends=[backend("http://a", service=nasty)]
    )
    assert nasty in text(document)


def test_what_is_watched_says_why_it_is_old() -> None:
    lines = draw(watch_screen(status(), "there is no daemon at /run/x"))
    assert lines[0] == "there is no daemon at /run/x"
    assert lines[2:] == draw(watch_screen(status(), None))


def session(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "session": number,
        "client": "192.168.100.200:65535",
        "entryPoint": "web",
        "router": "chat",
        "service": "chat",
        "backend": "http://192.168.100.201:8080",
        "host": "chat.example",
        "path": "/room/1",
        "tries": 1,
        "duration": 3725.2,
        "messagesIn": 12345,
        "messagesOut": 23456,
        "bytesIn": 1000000,
        "bytesOut": 2000000,
        "cause": None,
    } | changes


def test_sessions() -> None:
    document = {
        "total": 1204,
        "offset": 50,
        "limit": 2,
        "sessions": [session(51), session(1234567, cause="shutdown")],
    }
    lines = draw(sessions_screen(document))
    assert lines[0].split() == ["session", "client", "service", "backend", "duration", "in", "out"]
    assert "1h 2m" in lines[1]
    assert "12,345 23,456" in lines[1]
    assert lines[-1] == "sessions 51 to 52 of 1,204"
    wide = draw(sessions_screen(document, wide=True), 140)
    assert "chat.example/room/1" in wide[1]
    assert wide[1].endswith("1,000,000 2,000,000")


def test_no_sessions() -> None:
    assert draw(sessions_screen({"total": 0, "offset": 0, "limit": 50, "sessions": []})) == [
        "no sessions here"
    ]
    lines = draw(sessions_screen({"total": 7, "offset": 10, "limit": 50, "sessions": []}))
    assert lines == ["no sessions here, 7 in all"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0s"),
        (0.44, "0.4s"),
        (9.96, "10.0s"),
        (10, "10s"),
        (59.9, "59s"),
        (60, "1m"),
        (125, "2m 5s"),
        (3600, "1h"),
        (3661, "1h 1m"),
        (86400 * 3 + 3600 * 4 + 59, "3d 4h"),
        (86400 * 400, "400d"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_drains_and_rebalancing() -> None:
    drain = {"state": "draining", "ended": 1200, "cut": 3, "left": 34, "currentRate": 62.5}
    gone = removed("http://10.0.0.9:80") | {"state": "draining", "drain": drain | {"state": "drained"}}
    plan = {"sessions": 300, "shed": 100, "kept": 2}
    rebalance = {"enabled": True, "running": True, "quietFor": 0.0, "plan": plan}
    document = status(
        services=[{"name": "chat", "strategy": "leastconn", "rebalance": rebalance}],
        backends=[backend("http://10.0.0.1:8080", state="draining", drain=drain), gone],
    )
    shown = text(document)
    assert "chat  leastconn  rebalancing, 102 of 300" in shown
    assert "10.0.0.1:8080: draining: 1,200 ended, 3 cut, 34 left, 62.5/s" in shown
    assert shown.endswith("10.0.0.9:80: drained: 1,200 ended, 3 cut, 34 left")
    rebalance["running"] = False
    assert "rebalancing" not in text(document)


def test_sessions_at_a_backend_that_is_taken_away() -> None:
    each = {"session": 1, "client": "192.0.2.1:4", "service": "chat", "backend": "http://10.0.0.1:80"}
    each |= {"host": "h", "path": "/", "duration": 2.0, "messagesIn": 1, "messagesOut": 2}
    each |= {"bytesIn": 1, "bytesOut": 2, "cause": None, "draining": True}
    document = {"total": 1, "offset": 0, "limit": 50, "sessions": [each]}
    assert "10.0.0.1:80 (draining)" in "\n".join(draw(sessions_screen(document)))


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (
            {
                "available": True,
                "reason": "",
                "wanted": "auto",
                "sessions": 1233,
                "capacity": 20000,
                "stalls": 0,
                "relays": [],
            },
            "kernel relay   1,233 of the sessions, room for 20,000",
        ),
        (
            {
                "available": True,
                "reason": "",
                "wanted": "auto",
                "sessions": 5,
                "capacity": 20000,
                "stalls": 2,
                "relays": [
                    {"relay": "kernel", "reason": "", "sessions": 5, "opened": 9},
                    {"relay": "stream", "reason": "not plain TCP", "sessions": 1234, "opened": 5000},
                    {"relay": "stream", "reason": "mirrored", "sessions": 0, "opened": 1},
                ],
            },
            "kernel relay   5 of the sessions, room for 20,000; not of 1,234 (not plain TCP); stuck 2 times, see the log",
        ),
        (
            {"available": False, "reason": "not permitted", "wanted": "auto", "sessions": 0, "capacity": 0},
            "kernel relay   none: not permitted",
        ),
    ],
)
def test_what_the_kernel_does(view: dict[str, Any], words: str) -> None:
    assert words in draw(status_screen(status(kernelRelay=view)), 140)


@pytest.mark.parametrize(
    ("reason", "wanted", "shown"),
    [
        (CONFIGURED, "", False),
        (CONFIGURED, "auto", False),
        (CONFIGURED, "kernel", True),  # `kernelRelay.enabled: false`, and a service insists
        (NOT_WANTED, "", False),
        (NOT_WANTED, "auto", True),  # a reload brought it
        (NOT_WANTED, "kernel", True),
    ],
)
def test_what_the_kernel_does_not_do_as_wanted_is_no_news(reason: str, wanted: str, shown: bool) -> None:
    assert KERNEL_NOT_WANTED.keys() == {CONFIGURED, NOT_WANTED}
    view = {"available": False, "reason": reason, "wanted": wanted, "sessions": 0, "capacity": 0}
    lines = draw(status_screen(status(kernelRelay=view)))
    assert any(f"none: {reason}" in line for line in lines) is shown


def test_names_and_what_is_wrong_with_them() -> None:
    def name(host: str, endpoints: int, problem: str | None = None) -> dict[str, Any]:
        return {"name": host, "endpoints": endpoints, "problem": problem}

    names = [
        name("a.internal", 2),
        name("b.internal", 1, "no answer within 5 s"),
        name("c.internal", 0, "none"),
    ]
    found = [
        backend("http://10.0.0.1:80", dnsName="a.internal", podName="chat-1"),
        backend("http://10.0.0.2:80"),
    ]
    lines = draw(status_screen(status(names=names, backends=found)), 100)
    assert "names          a.internal  2 backends" in lines
    assert "               b.internal  1 backend, no answer within 5 s" in lines
    assert "               c.internal  0 backends, none" in lines
    # Where DNS has given addresses, people want to see pods without asking for more.
    assert next(line for line in lines if "10.0.0.1" in line).endswith("chat-1")


def test_the_docker_engine_and_its_containers() -> None:
    document = status()
    provider: dict[str, Any] = {
        "name": "docker",
        "endpoint": "unix:///var/run/docker.sock",
        "state": "ok",
        "since": document["startedAt"],
        "reason": "",
        "containers": {"used": 3, "ignored": 1, "bad": 0},
        "bad": [],
    }
    document["configuration"]["providers"] = [provider]
    assert "docker         3 containers used, 1 ignored\n" in text(document)
    problem = 'container "typo" traefik.http.x: unknown key'
    provider |= {"state": "away", "reason": "no answer", "containers": {"used": 3, "ignored": 1, "bad": 1}}
    provider["bad"] = [{"name": "typo", "problems": [problem]}]
    drawn = " ".join(text(document).split())
    assert "docker unix:///var/run/docker.sock away for " in drawn
    assert f"no answer; 3 containers used, 1 ignored, 1 bad {problem}" in drawn
