"""Running stories: one from its seed, again and exactly the same, or as many as wanted."""

from __future__ import annotations

import argparse
import gc
import hashlib
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio
import trio.testing
from attrs import define
from trio._core import _run

from tests.simulation.balance import Balance
from tests.simulation.crowd import Crowd
from tests.simulation.errands import STORIES
from tests.simulation.invariants import EveryStep, Memory, keep_checking, nothing_left
from tests.simulation.ledger import Violation
from tests.simulation.stories import Stage, Story
from tests.simulation.world import SERVICE, world
from trio_wsb.proxy.relaying import RelayKind

PATIENCE = 3600.0
"""Seconds of virtual time that a story may last."""


@define(frozen=True)
class Outcome:
    """What a story came to."""

    seed: int
    story: str
    sessions: int
    judged: int
    whole: int
    steps: int
    causes: Counter[str]
    widest: int
    choices: int
    in_kernel: int
    """Sessions whose bytes the kernel moved."""
    overtaken: int
    """How often the kernel relay was overtaken between two looks."""
    also: Counter[str]
    """What else there was: copies, plain requests, clients that came back to their backend."""
    digest: str
    """Of everything that was logged, with its times: two runs of a seed have the same."""


class StoryFailed(AssertionError):
    """A story in which something happened that must not; its text has the command that replays it."""


def story_of(seed: int, name: str | None = None) -> Story:
    """Return the story of a seed: they take turns."""
    if name is None:
        return STORIES[seed % len(STORIES)]
    return next(story for story in STORIES if story.name == name)


def relay_of(seed: int, relay: RelayKind | None = None) -> RelayKind:
    """Return the relay of a seed: they take turns, for each kind of story."""
    return relay or ("stream", "kernel")[seed // len(STORIES) % 2]


def replay_command(seed: int, name: str | None = None, relay: RelayKind | None = None) -> str:
    """Return the command that runs a seed again and tells what happens."""
    story = f" --story {name}" if name else ""
    moved = f" --relay {relay}" if relay else ""
    return f".venv/bin/python -m tests.simulation --seed {seed}{story}{moved} --trace"


def run_story(
    seed: int, name: str | None = None, relay: RelayKind | None = None, *, trace: bool = False
) -> Outcome:
    """Run the story of a seed to its end and check it.

    Raises:
      StoryFailed: with the command that replays it.

    """
    story = story_of(seed, name)
    lines: list[str] = []
    try:
        with deterministic(seed):
            clock = trio.testing.MockClock(autojump_threshold=0)
            return trio.run(_play, seed, story, relay_of(seed, relay), lines, clock=clock)
    except BaseException as error:
        found = first(error)
        if isinstance(found, KeyboardInterrupt):
            raise found from None
        if trace:
            print("\n".join(lines))
        where = (
            "".join(traceback.format_exception(found)) if not isinstance(found, Violation) else f"{found}\n"
        )
        raise StoryFailed(f"{story.name}: {where}  replay: {replay_command(seed, name, relay)}") from None


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Let everything that is random in here come from `seed`: Trio's scheduler too, as pytest-trio does for Hypothesis."""
    allowed, scheduler, others = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate(), random.getstate()
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    _run._r.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]
        _run._r.setstate(scheduler)
        random.setstate(others)


async def _play(seed: int, story: Story, relay: RelayKind, lines: list[str]) -> Outcome:
    rng = random.Random(seed)
    setting = story.set_up(rng)
    in_kernel = relay == "kernel"
    setting.document["http"]["services"][SERVICE]["loadBalancer"]["relay"] = relay
    async with world(
        seed, setting.document, rng, rough=setting.rough, tls=setting.tls, in_kernel=in_kernel
    ) as made:
        try:
            with trio.fail_after(PATIENCE):
                async with made.running():
                    crowd = Crowd(made, setting.habits)
                    balancer = dict(setting.document["http"]["services"][SERVICE]["loadBalancer"])
                    numbers = [
                        int(each["url"].split(".")[3].split(":")[0]) for each in balancer.pop("servers")
                    ]
                    for number in range(1, 9):
                        made.server(number)
                    balance = Balance(made, bound=setting.bound)
                    stage = Stage(made, crowd, rng, balance, setting, balancer, numbers)
                    memory, every_step = Memory(made), EveryStep(made)
                    trio.lowlevel.add_instrument(every_step)
                    async with trio.open_nursery() as checks:
                        checks.start_soon(keep_checking, made)
                        stage.come(setting.clients, setting.arrival)
                        await story.play(stage)
                        made.say("everybody leaves")
                        crowd.leave()
                        while made.nursery.child_tasks:
                            await trio.sleep(1.0)
                        checks.cancel_scope.cancel()
                    trio.lowlevel.remove_instrument(every_step)
                    if setting.healthy and set(crowd.answers) - {101}:
                        raise Violation(f"nothing was wrong, and handshakes came to {dict(crowd.answers)}")
                    if setting.healthy and set(crowd.plain) - {200}:
                        raise Violation(f"nothing was wrong, and requests came to {dict(crowd.plain)}")
                    try:
                        await nothing_left(made, crowd)
                        memory.check()
                    except Violation as violation:
                        made.fail(violation)
        finally:
            lines += _told(made.trace, made.logs)
    ended = made.proxy.sessions.ended_total
    told = "\n".join(repr(sorted(line.items(), key=str)) for line in made.logs)
    return Outcome(
        seed,
        story.name,
        made.witness.opened,
        crowd.judged,
        crowd.whole,
        every_step.steps,
        Counter({cause.value: count for cause, count in ended.items()}),
        balance.widest,
        balance.choices,
        made.witness.in_kernel,
        0 if made.table is None else made.table.maps.overtaken,
        Counter({f"copies {which}": count for which, count in crowd.copies.seen.items()})
        + Counter({f"plain {status}": count for status, count in crowd.plain.items()})
        + Counter({"loyal": crowd.loyal}),
        hashlib.sha256(told.encode()).hexdigest()[:16],
    )


def _told(trace: Sequence[str], logs: Sequence[object]) -> list[str]:
    return [*(f"story  {line}" for line in trace), *(f"log    {line}" for line in logs)]


def first(error: BaseException) -> BaseException:
    """Return the first error of a group, however deep it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds; exit status 1 if one of them fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--story", choices=[story.name for story in STORIES], help="only this one")
    parser.add_argument(
        "--relay", choices=["stream", "kernel"], help="with this one; they take turns otherwise"
    )
    parser.add_argument(
        "--trace", action="store_true", help="tell what happened in one that fails, or in one alone"
    )
    parser.add_argument("--keep-going", action="store_true", help="run the others when one fails")
    options = parser.parse_args(arguments)
    begun, failed, causes, widest = time.monotonic(), 0, Counter[str](), Counter[str]()
    totals, also = Counter[str](), Counter[str]()
    gc.collect()
    gc.freeze()
    for seed in range(options.seed, options.seed + options.seeds):
        try:
            outcome = run_story(seed, options.story, options.relay, trace=options.trace)
        except StoryFailed as failure:
            failed += 1
            print(f"seed {seed}: {failure}", flush=True)
            if not options.keep_going:
                break
            continue
        except KeyboardInterrupt:
            break  # what was seen so far is worth telling
        causes.update(outcome.causes)
        also.update(outcome.also)
        totals.update(
            stories=1,
            sessions=outcome.sessions,
            steps=outcome.steps,
            whole=outcome.whole,
            choices=outcome.choices,
            in_kernel=outcome.in_kernel,
            overtaken=outcome.overtaken,
        )
        widest[outcome.story] = max(widest[outcome.story], outcome.widest)
        if options.seeds == 1:
            print(
                f"{outcome.story}: {outcome.sessions} sessions, {outcome.steps} steps, digest {outcome.digest}"
            )
        elif sys.stderr.isatty() or (seed + 1) % 500 == 0:
            print(
                f"seed {seed}: {totals['sessions']} sessions so far, {failed} failed",
                file=sys.stderr,
                flush=True,
            )
    print(f"{totals['stories']} stories in {time.monotonic() - begun:.0f} s, {failed} failed: {dict(totals)}")
    print("causes:", ", ".join(f"{cause} {count}" for cause, count in sorted(causes.items())))
    print("beside:", ", ".join(f"{what} {count}" for what, count in sorted(also.items())))
    print("widest choice beyond another backend:", dict(widest))
    return 1 if failed else 0
