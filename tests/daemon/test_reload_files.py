"""Rounds in which only dynamic files have changed: their distance, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.daemon.state import PODS, make_world
from trio_wsb.daemon.announce import status_line
from trio_wsb.daemon.build import Prepared
from trio_wsb.daemon.metrics.collect import Scene
from trio_wsb.daemon.metrics.collect import configuration as families
from trio_wsb.daemon.reload import Reloader, ReloadOutcome
from trio_wsb.daemon.views import configuration, file_state
from trio_wsb.errors import ConfigurationError

GOOD = "http: {middlewares: {limit: {rateLimit: {average: %d}}}}\n"
BAD = "http: {middlewares: {limit: {ratelimit: {average: 1}}}}\n"


class Files:
    """A daemon's state over a directory of dynamic files, and a reloader that tells when a round is over."""

    def __init__(self, tmp_path: Path, clock: MockClock) -> None:
        self._clock = clock
        self.folder = tmp_path / "dynamic"
        self.folder.mkdir()
        document = {
            "wsbalancer": {"pods": PODS},
            "providers": {"file": {"directory": "dynamic"}},
            "global": {},
        }
        self.world = make_world(tmp_path, document)
        self.rounds: list[tuple[str, float]] = []
        self._news = trio.Event()
        self.reloader = Reloader(
            self.world.path,
            self._apply,
            ends=lambda: self._over("asked"),
            followed=lambda outcome: self._over("followed", outcome),
        )
        self.refuse = False
        self.outcome: ReloadOutcome | None = None
        current = self.world.reloader.current
        assert current is not None
        self.reloader.begin(current)

    def _apply(self, prepared: Prepared) -> None:
        if self.refuse:
            raise ConfigurationError(["no"])
        self.world.apply(prepared)

    def _over(self, how: str, outcome: ReloadOutcome | None = None) -> None:
        self.rounds.append((how, trio.current_time()))
        self.outcome = outcome
        self._news.set()

    def write(self, text: str, name: str = "a.yml") -> None:
        (self.folder / name).write_text(text)

    async def told(self) -> None:
        """Return once a round is over."""
        await self._news.wait()
        self._news = trio.Event()

    async def follow(self, text: str, name: str = "a.yml") -> ReloadOutcome:
        """Let the distance pass, write a file, and return what comes of the round that follows."""
        self._clock.jump(2.0)
        self._news = trio.Event()
        self.write(text, name)
        self.reloader.files_changed()
        await self.told()
        assert self.outcome is not None
        return self.outcome


@pytest.fixture
async def files(tmp_path: Path, nursery: trio.Nursery, mock_clock: MockClock) -> Files:
    """Time stands still, since reading files takes a thread, whose time is no virtual one."""
    made = Files(tmp_path, mock_clock)
    nursery.start_soon(made.reloader.run)
    return made


async def test_a_change_is_followed(files: Files, mock_clock: MockClock) -> None:
    outcome = await files.follow(GOOD % 1)
    assert (outcome.succeeded, len(outcome.files), outcome.bad_files) == (True, 1, ())
    assert files.reloader.current is not None
    assert list(files.reloader.current.config.http.middlewares) == ["limit"]
    assert files.reloader.succeeded == 1


async def test_nothing_new_is_no_round(files: Files, mock_clock: MockClock) -> None:
    await files.follow(GOOD % 1)
    for _ in range(5):
        files.reloader.files_changed()
    await files.reloader.reload()
    assert [how for how, _ in files.rounds] == ["followed", "asked"]
    assert files.reloader.succeeded == 2


async def test_changes_keep_their_distance_and_what_is_asked_for_does_not_wait(
    files: Files, mock_clock: MockClock
) -> None:
    await files.follow(GOOD % 1)
    for _ in range(3):
        files.write(GOOD % 2)
        files.reloader.files_changed()
        await wait_all_tasks_blocked()
    mock_clock.jump(1.9)
    await wait_all_tasks_blocked()
    assert len(files.rounds) == 1
    mock_clock.jump(0.1)
    await files.told()
    assert [how for how, _ in files.rounds] == ["followed", "followed"]
    files.write(GOOD % 3)
    files.reloader.files_changed()
    await wait_all_tasks_blocked()
    await files.reloader.reload()
    assert [how for how, _ in files.rounds] == ["followed", "followed", "asked"]
    assert files.rounds[-1][1] == files.rounds[-2][1]


async def test_what_has_been_said_is_not_said_again(files: Files, mock_clock: MockClock) -> None:
    router = "http: {routers: {r: {rule: Path(`/`), service: gone}}}\n"
    with capture_logs() as logged:
        await files.follow(BAD)
        await files.follow(router, "b.yml")
        await files.follow(GOOD % 1, "c.yml")
    assert [line["event"] for line in logged if line["log_level"] in {"error", "warning"}] == [
        "configuration problem",
        "dynamic file not in force as it is now",
        "router disabled",
    ]
    with capture_logs() as logged:
        (files.folder / "b.yml").unlink()
        await files.follow(GOOD % 1, "a.yml")
    assert [line["event"] for line in logged] == [
        "dynamic file in force again",
        "dynamic file removed",
        "configuration warning",  # two files have the same name now
        "configuration reloaded",
    ]


async def test_what_is_bad_is_in_every_view(files: Files, mock_clock: MockClock) -> None:
    await files.follow(GOOD % 1)
    outcome = await files.follow(BAD)
    (bad,) = outcome.bad_files
    (problem,) = bad.problems
    assert problem.message == "unknown key"
    view = file_state(bad)
    assert (view["state"], view["inForce"], view["problems"]) == ("bad", "last good", [str(problem)])
    assert configuration(files.reloader)["files"] == [view]
    assert status_line(3, outcome, outcome.files, stopping=False) == (
        f"serving 3 sessions; last reload succeeded; a dynamic file is bad: {problem}"
    )
    await files.follow(BAD.replace("limit", "more"), "b.yml")
    line = status_line(0, None, files.reloader.last.files if files.reloader.last else (), stopping=False)
    assert line == f"serving 0 sessions; 2 dynamic files are bad: {problem} (and 1 more)"


async def test_a_round_that_cannot_be_applied_changes_nothing(files: Files, mock_clock: MockClock) -> None:
    await files.follow(GOOD % 1)
    before = files.reloader.current
    files.refuse = True
    outcome = await files.follow(GOOD % 2)
    assert (outcome.problems, files.reloader.current) == (("no",), before)
    files.refuse = False
    assert (await files.follow(GOOD % 2)).succeeded


async def test_unchanged_services_keep_their_state(files: Files, mock_clock: MockClock) -> None:
    backend = files.world.backend(PODS[0])
    pool = files.world.proxy.runtime.services["wsbalancer"].pool
    await files.follow("http: {services: {other: {loadBalancer: {servers: [{url: 'http://10.9.9.9'}]}}}}\n")
    assert set(files.world.proxy.runtime.services) == {"wsbalancer", "other"}
    assert files.world.backend(PODS[0]) is backend
    assert files.world.proxy.runtime.services["wsbalancer"].pool is pool


async def test_a_main_file_that_was_refused_stays_the_last_word(files: Files, mock_clock: MockClock) -> None:
    good = files.world.path.read_text()
    files.world.path.write_text("log: {level: 5}\n")
    refused = await files.reloader.reload()
    assert not refused.succeeded
    followed = await files.follow(GOOD % 1)
    assert followed.succeeded
    assert files.reloader.last is refused
    files.world.path.write_text(good)
    assert (await files.reloader.reload()).succeeded
    followed = await files.follow(GOOD % 2)
    assert files.reloader.last is followed


async def test_metrics_count_files(files: Files, mock_clock: MockClock) -> None:
    await files.follow(GOOD % 1)
    await files.follow(BAD.replace("limit", "other"), "b.yml")
    current = files.reloader.current
    assert current is not None
    assert [bool(each.problems) for each in current.files] == [False, True]
    files.world.reloader.begin(current)
    scene = cast("Scene", SimpleNamespace(state=files.world.state))
    (family,) = [each for each in families(scene) if each.name == "trio_wsb_config_files"]
    assert "".join(family.tails).split() == ['{state="ok"}', "1", '{state="bad"}', "1"]
