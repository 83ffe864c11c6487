"""Two hundred stories in every run of the tests; ``make soak-sim`` tells ten thousand."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.errands import STORIES
from tests.simulation.run import StoryFailed, main, relay_of, replay_command, run_story, story_of
from trio_wsb.daemon.metrics.figures import Figures
from trio_wsb.proxy.relaying import RelayKind
from trio_wsb.proxy.session import Session

SEEDS = 200
AT_ONCE = 20
"""Seeds in one test: few enough to see which kind of story failed, and many enough that pytest costs nothing."""


@pytest.fixture(autouse=True, scope="module")
def _without_the_rest_of_the_tests() -> Iterator[None]:
    """Spare each story a search for garbage among everything that pytest holds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_stories(first: int) -> None:
    causes = Counter[str]()
    choices = whole = 0
    for seed in range(first, first + AT_ONCE):
        outcome = run_story(seed)
        causes += outcome.causes
        choices += outcome.choices
        whole += outcome.whole
        assert outcome.judged >= outcome.sessions > 0
    # They were about something: sessions that ended in several ways, and whole ones among them.
    assert len(causes) >= 4
    assert choices > 10 * AT_ONCE / 2
    assert whole > AT_ONCE


def test_every_kind_of_story_has_its_turn() -> None:
    assert {story_of(seed).name for seed in range(SEEDS)} == {story.name for story in STORIES}


DIGESTS = "from tests.simulation.run import run_story; print(*(run_story(seed).digest for seed in {}))"


def test_a_seed_is_the_same_story_in_every_process() -> None:
    """Addresses in memory and the hashes of strings differ between them, and the order of nothing may depend on that."""
    seeds = (9, 29)
    told = {
        subprocess.run(
            [sys.executable, "-c", DIGESTS.format(seeds)],
            env={**os.environ, "PYTHONHASHSEED": str(hashes)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hashes in (1, 2)
    }
    assert told == {" ".join(run_story(seed).digest for seed in seeds)}


def test_the_command_that_replays(capsys: pytest.CaptureFixture[str]) -> None:
    command = replay_command(17, "drain").split(" ")
    assert command[:3] == [".venv/bin/python", "-m", "tests.simulation"]
    assert main(command[3:]) == 0
    assert capsys.readouterr().out.startswith("drain: ")


@pytest.mark.parametrize("relay", ["stream", "kernel"])
def test_a_seed_that_fails_says_how_to_see_it_again(
    relay: RelayKind, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = Figures.session_ended

    def not_always(self: Figures, session: Session) -> None:
        if session.id % 4:
            ended(self, session)

    monkeypatch.setattr(Figures, "session_ended", not_always)
    with pytest.raises(StoryFailed) as failure:
        run_story(3, "scale-out", relay)
    what, _, command = str(failure.value).partition("\n  replay: ")
    assert command == replay_command(3, "scale-out", relay)
    assert main(command.split(" ")[3:]) == 1
    told = capsys.readouterr().out
    assert f"seed 3: {what}" in told
    assert "story  " in told
    assert "'event': 'session opened'" in told


def test_every_kind_of_story_has_both_relays() -> None:
    assert {(story_of(seed).name, relay_of(seed)) for seed in range(SEEDS)} == {
        (story.name, relay) for story in STORIES for relay in ("stream", "kernel")
    }


def test_what_stories_are_about_happens_in_them() -> None:
    sticky, plain, copied = (run_story(1, name, "stream") for name in ("sticky", "requests", "mirrors"))
    assert sticky.also["loyal"] > 10
    assert plain.also["plain 200"] > 10
    assert copied.also["copies whole"] > 1
    assert run_story(1, "traffic", "kernel").in_kernel > 0
