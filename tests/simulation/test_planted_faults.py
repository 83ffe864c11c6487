"""Faults planted into the balancer are found: an invariant that never fails would prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.run import StoryFailed, run_story
from trio_wsb.balancing.backend import Backend
from trio_wsb.balancing.counts import CountTable
from trio_wsb.balancing.pool import Pool
from trio_wsb.daemon.metrics.figures import Figures
from trio_wsb.proxy.pump import Pump
from trio_wsb.proxy.relay import Relay
from trio_wsb.proxy.session import SessionTable

SEEDS = 40
"""Stories within which a fault must show."""

Plant = Callable[[pytest.MonkeyPatch], None]


def ends_are_counted_twice(patch: pytest.MonkeyPatch) -> None:
    ended = Backend.session_ended

    def twice(self: Backend, *args: Any, **options: Any) -> bool:
        if self.live > 1 and self.opened_total % 5 == 0:
            ended(self, *args, **options)
        return ended(self, *args, **options)

    patch.setattr(Backend, "session_ended", twice)


def an_attempt_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    ended = Backend.handshake_ended

    def not_always(self: Backend, now: float | None = None) -> None:
        if now is not None or self.own % 2:
            ended(self, now)

    patch.setattr(Backend, "handshake_ended", not_always)


def metrics_miss_an_end(patch: pytest.MonkeyPatch) -> None:
    ended = Figures.session_ended

    def not_always(self: Figures, session: Any) -> None:
        if session.id % 4:
            ended(self, session)

    patch.setattr(Figures, "session_ended", not_always)


def closes_go_out_within_frames(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pump, "at_rest", property(lambda self: self._parked and self._spilled is None))

    async def at_once(self: Pump) -> None:
        if self.sent_close is None:
            self._send_close()
        await self._discard()

    patch.setattr(Pump, "_close", at_once)


def a_rest_is_written_twice(patch: pytest.MonkeyPatch) -> None:
    flush = Pump._flush

    async def again(self: Pump, rest: memoryview) -> bool:
        copy = memoryview(bytes(rest))
        return await flush(self, copy) and await flush(self, copy[-3:])

    patch.setattr(Pump, "_flush", again)


def a_shared_buffer_is_kept(patch: pytest.MonkeyPatch) -> None:
    async def without_a_copy(self: Pump, rest: memoryview) -> bool:
        try:
            await self._send_patiently(rest)
        except OSError:
            return await self._sink_broke()
        return True

    patch.setattr(Pump, "_flush", without_a_copy)


def a_close_cuts_at_once(patch: pytest.MonkeyPatch) -> None:
    seen = Relay.close_seen

    def impatient(self: Relay, pump: Pump) -> None:
        seen(self, pump)
        self.cut()

    patch.setattr(Relay, "close_seen", impatient)


def reports_are_believed_as_they_are(patch: pytest.MonkeyPatch) -> None:
    finish = CountTable.finish

    def simple(self: CountTable, sample: Any, reported: int, *rest: Any) -> bool:
        known = finish(self, sample, reported, *rest)
        self.entry(sample.key).foreign = reported  # as if none of them were ours
        self.version += 1
        return known

    patch.setattr(CountTable, "finish", simple)


def draining_backends_are_chosen(patch: pytest.MonkeyPatch) -> None:
    def all_but_the_down(self: Pool) -> None:
        self._columns.down = [index for index, entry in enumerate(self._health) if entry.down]

    patch.setattr(Pool, "_take_out", all_but_the_down)


def sessions_are_kept(patch: pytest.MonkeyPatch) -> None:
    close, kept = SessionTable._close, list[object]()

    def keeping(self: SessionTable, session: Any) -> None:
        kept.append(session)
        close(self, session)

    patch.setattr(SessionTable, "_close", keeping)


FAULTS: dict[str, tuple[Plant, str, str]] = {
    "ends counted twice": (ends_are_counted_twice, "drain", "sessions at backends|no session is live"),
    "attempt forgotten": (an_attempt_is_forgotten, "handshakes", "left over|no handshake"),
    "metrics": (metrics_miss_an_end, "scale-out", "open sessions"),
    "split frame": (
        closes_go_out_within_frames,
        "network",
        "came where|the stream ends within|was due|got 1006",
    ),
    "byte repeated": (
        a_rest_is_written_twice,
        "network",
        "came where|wrong mask|that long|ends within|after the Close",
    ),
    "byte overwritten": (
        a_shared_buffer_is_kept,
        "network",
        "came where|wrong mask|that long|ends within|after the Close",
    ),
    "cut too early": (a_close_cuts_at_once, "scale-out", "never arrived|got 1006|broke"),
    "load": (reports_are_believed_as_they_are, "burst", "was chosen with|the counts are"),
    "drained": (draining_backends_are_chosen, "drain", "while it is drained"),
    "memory": (sessions_are_kept, "burst", "still in memory"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, story, words = FAULTS[name]
    plant(monkeypatch)

    def tell() -> None:
        for seed in range(SEEDS):
            run_story(seed, story)

    with pytest.raises(StoryFailed, match=words):
        tell()
