from __future__ import annotations

from trio_wsb.routing.hosts import HostTable
from trio_wsb.routing.rules import parse_rule


def test_a_name_goes_before_a_wildcard_that_stands_for_one_label() -> None:
    table = HostTable([("*.example", 1), ("a.example", 2), ("example", 3), ("*.sub.example", 4)])
    assert [table.find(host) for host in ("a.example", "b.example", "example", "b.sub.example")] == [
        2,
        1,
        3,
        4,
    ]
    assert table.find("a.b.sub.example") is None
    assert table.find("") is None
    assert table.find(".example") is None
    assert table.find("other") is None


def test_the_first_of_two_counts() -> None:
    table = HostTable([("a", 1), ("a", 2)])
    assert table.find("a") == 1
    assert len(table) == 1


def test_what_is_below_a_wildcard() -> None:
    table = HostTable([("*.example", 1), ("a.example", 2), ("example", 3), ("a.b.example", 4)])
    assert table.below("*.example") == [1, 2]


def test_hosts_of_rules() -> None:
    rule = parse_rule("(Host(`A.example.`) || Host(`*.b.example`)) && !Host(`c.example`) && PathPrefix(`/`)")
    assert rule.hosts == ("a.example", "*.b.example")
    assert parse_rule("HostRegexp(`x`) || Host(`*`) || !(PathPrefix(`/`) && Host(`d`))").hosts == ()
    assert parse_rule("Host(`a`) && Host(`a`)").hosts == ("a",)
