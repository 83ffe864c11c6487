"""The event log: bounded, numbered, and told from a number on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.observe.events import MAX_TEXT, EventLog, Kind


def test_events_are_numbered_and_timed() -> None:
    times = iter([100.0, 101.5])
    log = EventLog(clock=lambda: next(times))
    log.record(Kind.STARTED, version="1")
    log.record(Kind.RELOAD_FAILED, "error", problems=2)
    first, second = log
    assert (first.number, first.at, first.kind, first.severity) == (1, 100.0, Kind.STARTED, "info")
    assert (second.number, second.at, second.severity) == (2, 101.5, "error")
    assert second.details == {"problems": 2}


def test_long_texts_are_cut_and_numbers_are_not() -> None:
    log = EventLog()
    event = log.record(Kind.BACKEND_DOWN, "warning", reason="x" * 10_000, live=10**30)
    assert event.details == {"reason": "x" * MAX_TEXT, "live": 10**30}


@given(st.integers(1, 8), st.integers(0, 30), st.integers(-5, 40))
def test_since_tells_what_is_remembered(kept: int, recorded: int, after: int) -> None:
    log = EventLog(kept=kept)
    for _ in range(recorded):
        log.record(Kind.RELOADED)
    numbers = [event.number for event in log.since(after)]
    oldest = max(1, recorded - kept + 1)
    assert numbers == [number for number in range(oldest, recorded + 1) if number > after]
    assert log.recorded_total == recorded
