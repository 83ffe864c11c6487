"""`drain`, `ready` and `rebalance`: what they send, what they show, and how they end."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from trio_wsb.cli import moving
from trio_wsb.cli.main import main

URL = "http://10.0.0.1:8080"


class Daemon:
    """Answers each request with the next document for its method and path; the last one again and again."""

    def __init__(self, folder: Path, answers: dict[str, list[tuple[int, Any]]]) -> None:
        self.path = str(folder / "control.sock")
        self.requests: list[tuple[str, Any]] = []
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                head, body = _request(connection)
                method, path, _ = head.split(b" ", 2)
                what = f"{method.decode()} {path.decode()}"
                self.requests.append((what, json.loads(body) if body else None))
                answers = self._answers[what]
                status, document = answers.pop(0) if len(answers) > 1 else answers[0]
                answer = json.dumps(document).encode()
                connection.sendall(
                    b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(answer), answer)
                )

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _request(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body of a request, which may come in pieces."""
    received = b""
    while True:
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if end and len(body) >= (int(length[1]) if length else 0):
            return head, body
        received += connection.recv(65536)


@contextmanager
def daemon(folder: Path, **answers: list[tuple[int, Any]]) -> Iterator[Daemon]:
    """Run a daemon; the names of `answers` are such as ``POST_drain``."""
    made = Daemon(folder, {name.replace("_", " /"): each for name, each in answers.items()})
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "LINE_INTERVAL", 0.0)
    monkeypatch.setattr(moving, "LOOK_INTERVAL", 0.0)


def view(state: str = "draining", *, ended: int = 0, left: int = 10, **changes: Any) -> dict[str, Any]:
    known = {
        "backend": URL,
        "service": None,
        "state": state,
        "ended": ended,
        "cut": 0,
        "left": left,
        "total": 10,
    }
    return known | {"currentRate": 5.0, "duration": 2.04} | changes


def run(*arguments: str, path: str) -> tuple[int, list[str], str]:
    result = CliRunner().invoke(main, [*arguments, "--socket", path], prog_name="trio-wsb")
    return result.exit_code, result.stdout.splitlines(), result.stderr


def test_a_drain_line_by_line(tmp_path: Path) -> None:
    looks = [(200, {"drains": [view(ended=each, left=10 - each)]}) for each in (0, 4, 4, 9)]
    looks.append((200, {"drains": [view(service="other", ended=1), view("drained", ended=10, left=0)]}))
    with daemon(tmp_path, POST_drain=[(200, view())], GET_drain=looks) as found:
        code, lines, _ = run(
            "drain", "10.0.0.1", "--rate", "5/s", "--code", "4000", "--timeout", "1m", path=found.path
        )
    assert found.requests[0] == (
        "POST /drain",
        {"backend": "10.0.0.1", "rate": 5.0, "closeCode": 4000, "timeout": 60.0},
    )
    assert code == 0
    assert lines == [
        "draining 10.0.0.1:8080: 0 ended, 0 cut, 10 left, 5/s",
        "draining 10.0.0.1:8080: 4 ended, 0 cut, 6 left, 5/s",
        "draining 10.0.0.1:8080: 9 ended, 0 cut, 1 left, 5/s",
        "10.0.0.1:8080 drained in 2.0s: 10 ended, 0 cut, 0 left",
    ]


def test_a_drain_as_json(tmp_path: Path) -> None:
    looks = [(200, {"drains": [view()]}), (200, {"drains": [view("drained", left=0)]})]
    with daemon(tmp_path, POST_drain=[(200, view())], GET_drain=looks) as found:
        code, lines, _ = run("drain", URL, "--json", path=found.path)
    assert code == 0
    assert [json.loads(line) for line in lines] == [view(), view("drained", left=0)]


def test_something_left_at_the_timeout(tmp_path: Path) -> None:
    over = view("drained", left=2, cut=3)
    with daemon(tmp_path, POST_drain=[(200, view())], GET_drain=[(200, {"drains": [over]})]) as found:
        code, lines, _ = run("drain", URL, path=found.path)
    assert (code, lines) == (1, ["10.0.0.1:8080 drained in 2.0s: 0 ended, 3 cut, 2 left"])


def test_one_that_is_taken_back_meanwhile(tmp_path: Path) -> None:
    with daemon(tmp_path, POST_drain=[(200, view())], GET_drain=[(200, {"drains": []})]) as found:
        code, _, err = run("drain", URL, path=found.path)
    assert (code, err) == (1, f"Error: {URL} was made ready again\n")


def test_without_waiting(tmp_path: Path) -> None:
    with daemon(tmp_path, POST_drain=[(200, view())]) as found:
        code, lines, _ = run("drain", URL, "--detach", "--service", "chat", path=found.path)
    assert found.requests == [("POST /drain", {"backend": URL, "service": "chat"})]
    assert (code, lines) == (0, ["0 ended, 0 cut, 10 left, 5/s"])


def test_a_refusal_is_the_daemons_words(tmp_path: Path) -> None:
    answer = [(404, {"error": 'no backend "x"; did you mean "y"?'})]
    with daemon(tmp_path, POST_drain=answer, POST_ready=answer, POST_rebalance=answer) as found:
        for command in (["drain", "x"], ["ready", "x"], ["rebalance", "x"]):
            code, lines, err = run(*command, path=found.path)
            assert (code, lines, err) == (1, [], 'Error: no backend "x"; did you mean "y"?\n')


def test_ctrl_c_leaves_it_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trio_wsb.cli.moving.time.sleep", interrupt)
    with daemon(tmp_path, POST_drain=[(200, view())], GET_drain=[(200, {"drains": [view()]})]) as found:
        code, _, err = run("drain", URL, path=found.path)
    assert (code, err) == (130, "the drain goes on; `trio-wsb ready 10.0.0.1:8080` takes it back\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["drain"], "Missing argument 'BACKEND'"),
        (["drain", URL, "--rate", "quick"], "is not a rate; write a rate such as"),
        (["drain", URL, "--code", "99"], "is not in the range 1000<=x<=4999"),
        (["drain", URL, "--timeout", "x"], "is not a duration"),
        (["ready"], "Missing argument 'BACKEND'"),
    ],
)
def test_wrong_usage(arguments: list[str], why: str) -> None:
    code, _, err = run(*arguments, path="/none")
    assert code == 2
    assert why in err


def test_ready(tmp_path: Path) -> None:
    answers = [(200, {"backend": URL, "drains": [view()]}), (200, {"backend": URL, "drains": []})]
    with daemon(tmp_path, POST_ready=answers) as found:
        assert run("ready", URL, path=found.path) == (0, ["10.0.0.1:8080 gets new sessions again"], "")
        assert run("ready", URL, path=found.path) == (0, ["10.0.0.1:8080 was not being drained"], "")
        code, lines, _ = run("ready", URL, "--service", "chat", "--json", path=found.path)
    assert (code, json.loads(lines[0])["drains"]) == (0, [])
    assert found.requests[-1] == ("POST /ready", {"backend": URL, "service": "chat"})


def plan(outcome: str, reason: str = "", *, dry: bool = False) -> dict[str, Any]:
    backends = [{"url": URL, "load": 1500, "live": 1400, "share": 750.5, "sheds": 700}]
    backends.append({"url": "http://10.0.0.2:8080", "load": 0, "live": 0, "share": None, "sheds": 0})
    service = {"service": "chat", "outcome": outcome, "reason": reason, "sessions": 700, "backends": backends}
    return {"dryRun": dry, "services": [service]}


def progress(shed: int, *, running: bool) -> dict[str, Any]:
    known = {"sessions": 700, "shed": shed, "kept": 0, "askedFor": True, "duration": 70.0}
    return {"services": [{"service": "chat", "running": running, "plan": known}]}


def test_rebalance(tmp_path: Path) -> None:
    looks = [(200, progress(10, running=True)), (200, progress(700, running=False))]
    with daemon(tmp_path, POST_rebalance=[(200, plan("planned"))], GET_rebalance=looks) as found:
        code, lines, _ = run("rebalance", "chat", path=found.path)
    assert code == 0
    assert [line.rstrip() for line in lines] == [
        "chat  700 sessions to move",
        "backend        load  live share moves",
        "10.0.0.1:8080 1,500 1,400 750.5   700",
        "10.0.0.2:8080     0     0     -     0",
        "rebalancing chat: 10 moved, 0 not needed any more",
        "chat rebalanced in 1m 10s: 700 moved, 0 not needed any more",
    ]
    assert found.requests[0] == ("POST /rebalance", {"dryRun": False, "service": "chat"})


def test_a_dry_run_follows_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path, POST_rebalance=[(200, plan("planned", dry=True))]) as found:
        code, lines, _ = run("rebalance", "--dry-run", path=found.path)
        assert (code, lines[0]) == (0, "chat  700 sessions would move")
        code, lines, _ = run("rebalance", "--dry-run", "--json", path=found.path)
        assert json.loads(lines[0]) == plan("planned", dry=True)
    assert found.requests[0] == ("POST /rebalance", {"dryRun": True})


@pytest.mark.parametrize(
    ("outcome", "named", "status"), [("balanced", True, 0), ("impossible", True, 1), ("impossible", False, 0)]
)
def test_nothing_to_do(tmp_path: Path, outcome: str, named: bool, status: int) -> None:
    with daemon(tmp_path, POST_rebalance=[(200, plan(outcome, "because of that"))]) as found:
        code, lines, _ = run("rebalance", *(["chat"] if named else []), path=found.path)
    assert (code, lines) == (status, ["chat  because of that"])
