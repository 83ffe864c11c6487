"""What names stand for, by the answers that come: TTLs, failures, negative answers, SRV records, and the bounds of it all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.balancing.discovery import (
    MAX_ENDPOINTS,
    MAX_TARGETS,
    NEGATIVE_HOLD,
    Answer,
    DiscoveryPolicy,
    Endpoint,
    Name,
    NameEntry,
    NameTable,
    Query,
    ServiceRecord,
)

HOST = "chat.internal"
A, AAAA, SRV = Query(HOST, "A"), Query(HOST, "AAAA"), Query(HOST, "SRV")
NOTHING = Answer((), 60, "the name has no records")
NO_NAME = Answer((), 60, "the name does not exist")


def entry(resolve: str = "all", **policy: object) -> NameEntry:
    return NameEntry(Name(HOST, resolve), DiscoveryPolicy(**policy))  # type: ignore[arg-type]


def addresses(found: NameEntry) -> list[str]:
    found.settle()
    return [each.address for each in found.endpoints]


def four(*texts: str, ttl: float = 10.0) -> Answer:
    return Answer(texts, ttl)


class TestAddresses:
    def test_both_families(self) -> None:
        name = entry()
        assert name.due(0.0) == [A, AAAA]
        name.answered(A, four("10.0.0.2", "10.0.0.1"), 0.0)
        name.answered(AAAA, four("fd00::1"), 0.0)
        assert addresses(name) == ["10.0.0.1", "10.0.0.2", "fd00::1"]
        assert name.problem is None

    @pytest.mark.parametrize(("families", "queries"), [("ipv4", [A]), ("ipv6", [AAAA])])
    def test_one_family(self, families: str, queries: list[Query]) -> None:
        assert entry(families=families).due(0.0) == queries

    def test_the_order_of_an_answer_changes_nothing(self) -> None:
        name = entry()
        name.answered(A, four("10.0.0.1", "10.0.0.2"), 0.0)
        name.settle()
        name.answered(A, four("10.0.0.2", "10.0.0.1"), 10.0)
        assert name.settle() == ((), ())

    def test_what_comes_and_goes(self) -> None:
        name = entry()
        name.answered(A, four("10.0.0.1", "10.0.0.2"), 0.0)
        name.settle()
        name.answered(A, four("10.0.0.2", "10.0.0.3"), 10.0)
        [added], [removed] = name.settle()
        assert (added.address, removed.address) == ("10.0.0.3", "10.0.0.1")

    def test_addresses_that_lead_nowhere_are_no_backends(self) -> None:
        name = entry()
        name.answered(A, four("0.0.0.0", "224.0.0.1", "255.255.255.255"), 0.0)
        name.answered(AAAA, four("::", "fe80::1", "ff02::1"), 0.0)
        assert addresses(name) == []
        assert name.problem == "its records lead to no address that can be used"

    def test_an_address_in_the_notation_of_the_other_family_is_the_same(self) -> None:
        name = entry()
        name.answered(A, four("10.0.0.1"), 0.0)
        name.answered(AAAA, four("::ffff:10.0.0.1"), 0.0)
        assert addresses(name) == ["10.0.0.1"]

    def test_ten_thousand_addresses_are_bounded_and_always_the_same(self) -> None:
        name = entry()
        many = [f"10.{index >> 8}.{index & 255}.1" for index in range(10_000)]
        name.answered(A, four(*many), 0.0)
        first = addresses(name)
        assert len(first) == MAX_ENDPOINTS
        name.answered(A, four(*reversed(many)), 10.0)
        assert addresses(name) == first
        assert name.problem == "has more than 1000 endpoints; the others are left out"

    def test_an_address_may_outlive_the_answers_that_have_it(self) -> None:
        name = entry(remove_after=60.0)
        name.answered(A, four("10.0.0.1"), 0.0)
        name.answered(A, four("10.0.0.2"), 50.0)
        assert addresses(name) == ["10.0.0.1", "10.0.0.2"]
        name.answered(A, four("10.0.0.2"), 60.0)
        assert addresses(name) == ["10.0.0.2"]


class TestTimes:
    @pytest.mark.parametrize(("ttl", "due"), [(0, 105.0), (17, 117.0), (86400, 130.0)])
    def test_a_ttl_has_bounds(self, ttl: float, due: float) -> None:
        name = entry(families="ipv4")
        name.answered(A, four("10.0.0.1", ttl=ttl), 100.0)
        assert name.next_due() == due
        assert name.due(due - 0.1) == []
        assert name.due(due) == [A]

    def test_failures_are_repeated_ever_less_often(self) -> None:
        name, now, pauses = entry(families="ipv4"), 0.0, []
        for _ in range(20):
            name.failed(A, "no answer within 5 s", now)
            pauses.append(name.next_due() - now)
            now = name.next_due()
        assert pauses[:5] == [5.0, 10.0, 20.0, 30.0, 30.0]
        assert max(pauses) == 30.0


class TestFailures:
    def test_the_last_answer_stays(self) -> None:
        name = entry()
        name.answered(A, four("10.0.0.1"), 0.0)
        name.answered(AAAA, NOTHING, 0.0)
        for now in range(10, 10_000, 30):
            name.failed(A, "no answer within 5 s", float(now))
            assert addresses(name) == ["10.0.0.1"]
        assert name.problem == "A of chat.internal: no answer within 5 s"

    def test_one_family_that_fails_takes_nothing_from_the_other(self) -> None:
        name = entry()
        name.answered(A, four("10.0.0.1"), 0.0)
        name.failed(AAAA, "10.0.0.53 answered SERVFAIL", 0.0)
        assert addresses(name) == ["10.0.0.1"]

    def test_the_same_problem_is_told_once(self) -> None:
        name = entry(families="ipv4")
        name.failed(A, "a", 0.0)
        assert name.news() == "A of chat.internal: a"
        assert name.news() is None
        name.failed(A, "b", 5.0)
        assert name.news() is not None
        name.failed(A, "a", 10.0)
        assert name.news() is None
        assert not name.recovered()
        name.answered(A, four("10.0.0.1"), 20.0)
        name.settle()
        assert name.recovered()
        assert not name.recovered()

    def test_what_is_missing_is_said(self) -> None:
        name = entry()
        assert name.missing == "chat.internal is not resolved yet"
        name.answered(A, NO_NAME, 0.0)
        name.answered(AAAA, NO_NAME, 0.0)
        assert name.missing == "chat.internal is not resolved (the name does not exist)"


class TestNegativeAnswers:
    def test_at_first_there_is_nothing(self) -> None:
        name = entry()
        name.answered(A, NO_NAME, 0.0)
        assert addresses(name) == []

    def test_what_was_known_goes_on_for_a_while(self) -> None:
        name = entry(families="ipv4")
        name.answered(A, four("10.0.0.1"), 0.0)
        name.answered(A, NO_NAME, 100.0)
        assert addresses(name) == ["10.0.0.1"]
        assert name.problem == "the name does not exist"
        name.answered(A, NO_NAME, 100.0 + NEGATIVE_HOLD - 1)
        assert addresses(name) == ["10.0.0.1"]
        name.answered(A, NO_NAME, 100.0 + NEGATIVE_HOLD)
        assert addresses(name) == []

    def test_an_answer_with_records_begins_anew(self) -> None:
        name = entry(families="ipv4")
        name.answered(A, four("10.0.0.1"), 0.0)
        name.answered(A, NO_NAME, 10.0)
        name.answered(A, four("10.0.0.1"), 20.0)
        name.answered(A, NO_NAME, 50.0)
        assert addresses(name) == ["10.0.0.1"]

    def test_a_failure_between_does_not_end_the_wait(self) -> None:
        name = entry(families="ipv4")
        name.answered(A, four("10.0.0.1"), 0.0)
        name.answered(A, NO_NAME, 10.0)
        name.failed(A, "no answer within 5 s", 30.0)
        assert addresses(name) == ["10.0.0.1"]

    def test_no_address_of_one_family_is_no_problem(self) -> None:
        name = entry()
        name.answered(A, four("10.0.0.1"), 0.0)
        name.answered(AAAA, NOTHING, 0.0)
        name.settle()
        assert name.problem is None


class TestServiceRecords:
    def service(self, *records: ServiceRecord, **targets: str) -> NameEntry:
        name = entry("srv", families="ipv4")
        name.answered(SRV, Answer(records, 60), 0.0)
        for target, address in targets.items():
            name.answered(Query(target, "A"), four(address), 0.0)
        return name

    def test_targets_are_asked_for(self) -> None:
        name = self.service(
            ServiceRecord(0, 0, 80, "a"), ServiceRecord(0, 0, 81, "a"), ServiceRecord(0, 0, 80, "b")
        )
        assert name.due(0.0) == [Query("a", "A"), Query("b", "A")]

    def test_ports_weights_and_priorities(self) -> None:
        name = self.service(
            ServiceRecord(20, 7, 82, "c"),
            ServiceRecord(10, 60, 80, "a"),
            ServiceRecord(10, 0, 81, "b"),
            a="10.0.0.1",
            b="10.0.0.2",
            c="10.0.0.3",
        )
        name.settle()
        assert set(name.endpoints) == {
            Endpoint(0, "10.0.0.1", 80, 60),
            Endpoint(0, "10.0.0.2", 81, 1),
            Endpoint(1, "10.0.0.3", 82, 7),
        }

    def test_without_weights_nobody_is_preferred(self) -> None:
        name = self.service(
            ServiceRecord(0, 0, 80, "a"), ServiceRecord(0, 0, 80, "b"), a="10.0.0.1", b="10.0.0.2"
        )
        name.settle()
        assert [each.weight for each in name.endpoints] == [1, 1]

    def test_one_address_and_port_is_one_backend(self) -> None:
        name = self.service(
            ServiceRecord(0, 5, 80, "a"), ServiceRecord(1, 5, 80, "b"), a="10.0.0.1", b="10.0.0.1"
        )
        name.settle()
        assert name.endpoints == (Endpoint(0, "10.0.0.1", 80, 5),)

    def test_a_weight_that_changes_replaces_the_old_one(self) -> None:
        name = entry("srv", families="ipv4", remove_after=600.0)
        name.answered(SRV, Answer((ServiceRecord(0, 5, 80, "a"),), 60), 0.0)
        name.answered(Query("a", "A"), four("10.0.0.1"), 0.0)
        name.answered(SRV, Answer((ServiceRecord(0, 9, 80, "a"),), 60), 30.0)
        name.settle()
        assert [each.weight for each in name.endpoints] == [9]

    def test_a_target_that_fails_keeps_its_address(self) -> None:
        name = self.service(ServiceRecord(0, 0, 80, "a"), a="10.0.0.1")
        name.failed(Query("a", "A"), "no answer within 5 s", 20.0)
        name.settle()
        assert len(name.endpoints) == 1
        assert name.problem == "A of a: no answer within 5 s"

    def test_a_target_that_goes_is_forgotten(self) -> None:
        name = self.service(ServiceRecord(0, 0, 80, "a"), a="10.0.0.1")
        name.settle()
        name.answered(SRV, Answer((ServiceRecord(0, 0, 80, "b"),), 60), 20.0)
        name.answered(Query("b", "A"), four("10.0.0.2"), 20.0)
        [added], [removed] = name.settle()
        assert (added.address, removed.address) == ("10.0.0.2", "10.0.0.1")
        assert set(name._known) == {SRV, Query("b", "A")}

    def test_thousands_of_targets_are_bounded(self) -> None:
        name = self.service(*(ServiceRecord(0, 0, 80, f"t{index}") for index in range(4000)))
        assert len(name.due(0.0)) == MAX_TARGETS

    def test_a_target_not_asked_for_yet_is_no_problem(self) -> None:
        name = self.service(ServiceRecord(0, 0, 80, "a"))
        name.settle()
        assert name.problem is None


def test_a_table_keeps_what_the_configuration_has() -> None:
    table = NameTable()
    kept, gone = Name("kept", "all"), Name("gone", "all")
    for name in (kept, gone):
        table.entry(name).answered(Query(name.host, "A"), four("10.0.0.1"), 0.0)
        table.entry(name).settle()
    table.retain([kept])
    assert list(table.entries) == [kept]
    assert len(table.endpoints(kept)) == 1
    assert table.endpoints(gone) == ()
    assert table.missing(gone) == "gone is not resolved yet"
    table.configure(DiscoveryPolicy(families="ipv6"))
    assert table.entry(kept).due(1.0) == [Query("kept", "AAAA")]


RECORDS = st.lists(st.ip_addresses().map(str), max_size=5).map(tuple)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([A, AAAA]), st.one_of(RECORDS, st.none()), st.floats(0.0, 100.0), st.floats(0, 1e6)
    ),
    max_size=20,
)


@given(STEPS)
def test_whatever_comes(steps: list[tuple[Query, tuple[str, ...] | None, float, float]]) -> None:
    name, now, heard = entry(), 0.0, set[str]()
    for query, records, pause, ttl in steps:
        now += pause
        if records is None:
            name.failed(query, "failed", now)
        else:
            name.answered(query, Answer(records, ttl, "" if records else "none"), now)
            heard |= set(records)
        before = set(name.endpoints)
        added, removed = name.settle()
        assert before - set(removed) | set(added) == set(name.endpoints)
        # Nothing is made up, and no pause is outside of the bounds.
        assert len(name.endpoints) <= len(heard)
        assert now + 5.0 <= name._of(query).due <= now + 30.0
        if records is None:
            assert not added
            assert not removed


def test_whether_a_name_fails_is_known_until_an_answer_comes() -> None:
    name, found = entry(), [entry().failing]
    name.answered(A, four("10.0.0.1"), 0.0)
    name.failed(AAAA, "no answer within 5 s", 0.0)
    found.append(name.failing)
    name.answered(AAAA, NOTHING, 5.0)
    assert [*found, name.failing] == [False, True, False]
