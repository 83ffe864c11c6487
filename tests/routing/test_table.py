from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.routing.request import RequestView
from trio_wsb.routing.rules import parse_rule
from trio_wsb.routing.table import RouterTable

RULES = [
    "PathPrefix(`/`)",
    "PathPrefix(`/ws`)",
    "Path(`/ws`)",
    "Host(`a.com`)",
    "Host(`a.com`) && Path(`/ws`)",
]
REQUESTS = [RequestView(host, path) for host in ("a.com", "b.com") for path in ("/", "/ws", "/ws-2")]


def table(*routers: tuple[str, str, int]) -> RouterTable[int]:
    return RouterTable(
        (name, parse_rule(rule), priority, number) for number, (name, rule, priority) in enumerate(routers)
    )


def test_an_empty_table_finds_nothing() -> None:
    assert table().find(REQUESTS[0]) is None
    assert len(table()) == 0


def test_one_router_for_everything() -> None:
    everything = table(("all", "PathPrefix(`/`)", 0))
    assert everything.find(RequestView("", "/x")) == ("all", 0)
    assert everything.find(RequestView("", "*")) is None


def test_the_longer_rule_comes_first() -> None:
    routers = table(("all", "PathPrefix(`/`)", 0), ("ws", "PathPrefix(`/ws`)", 0))
    assert routers.names == ("ws", "all")
    assert routers.find(RequestView("", "/ws-2")) == ("ws", 1)
    assert routers.find(RequestView("", "/")) == ("all", 0)


def test_a_priority_goes_before_the_length_of_the_rule() -> None:
    routers = table(
        ("last", "Path(`/ws`) && Host(`a.com`)", -1),
        ("all", "PathPrefix(`/`)", 1),
        ("ws", "PathPrefix(`/ws`)", 2),
    )
    assert routers.names == ("ws", "all", "last")


def test_among_equals_the_name_decides() -> None:
    routers = [("b", "Path(`/x`)", 0), ("c", "Path(`/y`)", 10), ("a", "Path(`/z`)", 0)]
    assert table(*routers).names == table(*reversed(routers)).names == ("a", "b", "c")


@given(
    st.lists(
        st.tuples(st.text(max_size=3), st.sampled_from(RULES), st.integers(-2, 40)), unique_by=lambda r: r[0]
    )
)
def test_the_first_match_in_order_of_priority(routers: list[tuple[str, str, int]]) -> None:
    built = table(*routers)
    assert len(built) == len(routers)
    for request in REQUESTS:
        matching = [
            (-(priority or len(rule)), name, number)
            for number, (name, rule, priority) in enumerate(routers)
            if parse_rule(rule).matches(request)
        ]
        assert built.find(request) == (min(matching)[1:] if matching else None)
