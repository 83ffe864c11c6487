from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.addresses import BackendURL
from trio_wsb.balancing.health import HealthKey, HealthTable, Question

KEY = HealthKey(BackendURL("http", "10.0.0.1", 80), Question("/health"))


def table() -> HealthTable:
    made = HealthTable()
    made.entry(KEY)
    return made


def test_a_server_that_was_never_checked_counts_as_up() -> None:
    entry = table().entry(KEY)
    assert not entry.known
    assert not entry.down


def test_the_first_check_decides_alone() -> None:
    made = table()
    assert made.failed(KEY, "answered 503", 1.0, fall=3)
    assert made.entry(KEY).down
    assert made.entry(KEY).reason == "answered 503"
    assert made.version == 1


def test_rise_and_fall() -> None:
    made = table()
    assert not made.passed(KEY, 0.0, rise=2)
    assert [made.failed(KEY, "x", 1.0, fall=3) for _ in range(3)] == [False, False, True]
    assert not made.failed(KEY, "x", 2.0, fall=3)
    assert [made.passed(KEY, 3.0, rise=2) for _ in range(2)] == [False, True]
    assert made.entry(KEY).up_since == 3.0
    assert made.version == 2


def test_one_contradiction_among_others_changes_nothing() -> None:
    made = table()
    made.passed(KEY, 0.0, rise=1)
    for now in range(10):
        assert not made.failed(KEY, "x", float(now), fall=2)
        assert made.entry(KEY).wavering
        assert not made.passed(KEY, now + 0.5, rise=1)
        assert not made.entry(KEY).wavering
    assert made.version == 0


def test_a_key_that_a_reload_dropped_is_not_brought_back() -> None:
    made = table()
    made.retain([])
    assert not made.passed(KEY, 0.0, rise=1)
    assert not made.failed(KEY, "x", 0.0, fall=1)
    assert list(made) == []


def test_what_is_asked_still_is_remembered() -> None:
    made = table()
    other = HealthKey(KEY.url, Question("/other"))
    made.entry(other)
    made.failed(KEY, "x", 0.0, fall=1)
    made.retain([KEY])
    assert [each.key for each in made] == [KEY]
    assert made.entry(KEY).down


@given(checks=st.lists(st.booleans()), rise=st.integers(1, 4), fall=st.integers(1, 4))
def test_it_is_what_the_last_checks_say(checks: list[bool], rise: int, fall: int) -> None:
    made = table()
    up = True
    for number, good in enumerate(checks):
        if good:
            changed = made.passed(KEY, float(number), rise=rise)
        else:
            changed = made.failed(KEY, "x", float(number), fall=fall)
        needed = rise if good else fall
        if number == 0:
            wanted = good
        else:
            recent = checks[: number + 1][-needed:]
            wanted = good if recent == [good] * needed else up
        # A run that began before the present state did has been used up by it.
        assert changed == (made.entry(KEY).down is up)
        assert (not made.entry(KEY).down) == wanted
        up = wanted
