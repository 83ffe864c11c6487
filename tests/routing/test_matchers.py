from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.routing.cases import CASES, OURS_REFUSES, REFUSED, Case
from trio_wsb.addresses import Networks, parse_ip, parse_network
from trio_wsb.routing.request import RequestView
from trio_wsb.routing.rules import RuleError, parse_rule


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_rule_takes(case: Case) -> None:
    assert case.decide() is case.taken


@pytest.mark.parametrize("rule", [*REFUSED, *OURS_REFUSES])
def test_what_is_no_rule(rule: str) -> None:
    with pytest.raises(RuleError):
        parse_rule(rule)


def test_a_wildcard_wants_a_label() -> None:
    assert not parse_rule("Host(`*.example.com`)").matches(RequestView(".example.com", "/"))
    assert parse_rule("Host(`*`)").matches(RequestView("", "/"))


@pytest.mark.parametrize("client", ["10.1.2.3", "::ffff:10.1.2.3"])
def test_a_mapped_address_is_the_ipv4_address(client: str) -> None:
    view = RequestView("", "/", client=parse_ip(client))
    assert parse_rule("ClientIP(`10.0.0.0/8`)").matches(view)
    assert parse_rule("ClientIP(`::ffff:10.1.0.0/112`)").matches(view)
    assert not parse_rule("ClientIP(`::/0`)").matches(view)


def test_a_peer_without_address_is_in_no_network() -> None:
    view = RequestView("", "/")
    assert not parse_rule("ClientIP(`0.0.0.0/0`) || ClientIP(`::/0`)").matches(view)
    assert parse_rule("!ClientIP(`0.0.0.0/0`)").matches(view)


def test_fields_are_looked_up_only_when_a_rule_asks() -> None:
    asked: list[str] = []

    def field_values(name: str) -> list[str]:
        asked.append(name)
        return ["b"]

    rule = parse_rule("Path(`/`) || Header(`X-A`, `b`)")
    assert rule.matches(RequestView("", "/", field_values=field_values))
    assert asked == []
    assert rule.matches(RequestView("", "/x", field_values=field_values))
    assert asked == ["x-a"]


@pytest.mark.parametrize(
    ("rule", "position", "hint"),
    [
        ("Host(`{sub:[a-z]+}.example.com`)", 6, r"in v3 it is HostRegexp(`^[a-z]+\.example\.com$`)"),
        ("Host(`x.{name}.com`)", 8, r"in v3 it is HostRegexp(`^x\.[^.]+\.com$`)"),
        ("HostRegexp(`{a:[a-z]{2}}.{b:.+}`)", 12, r"in v3 it is HostRegexp(`^[a-z]{2}\..+$`)"),
        ("Path(`/v1/{id:[0-9]+}`)", 10, r"in v3 it is PathRegexp(`^/v1/[0-9]+$`)"),
        ("PathPrefix(`/a.b/{room}/x`)", 17, r"in v3 it is PathRegexp(`^/a\.b/[^/]+/x`)"),
    ],
)
def test_variables_of_v2_are_translated(rule: str, position: int, hint: str) -> None:
    with pytest.raises(RuleError, match="as in Traefik v2") as raised:
        parse_rule(rule)
    assert raised.value.position == position
    assert raised.value.hint.startswith(hint)
    translated = raised.value.hint.removeprefix("in v3 it is ").partition(";")[0]
    parse_rule(translated)


HOSTS = st.text("ab.", max_size=5)
PATHS = st.text("ab/", max_size=5).map(lambda rest: "/" + rest)
PATTERNS = st.lists(
    st.sampled_from(["a", "b", ".", "[^a]", "a?", "b*", "(a|b)", "^", "$", "/"]), min_size=1
).map("".join)


@settings(deadline=None)
@given(PATTERNS, HOSTS, PATHS)
def test_patterns_match_as_elsewhere(pattern: str, host: str, path: str) -> None:
    view = RequestView(
        host, path, field_values=lambda name: ["", path] if name == "x-a" else [], query=f"a&a={host}"
    )
    found = {text: re.search(pattern, text) is not None for text in ("", host, path)}
    assert parse_rule(f"HostRegexp(`{pattern}`)").matches(view) is found[host]
    assert parse_rule(f"PathRegexp(`{pattern}`)").matches(view) is found[path]
    assert parse_rule(f"HeaderRegexp(`X-A`, `{pattern}`)").matches(view) is (found[""] or found[path])
    assert parse_rule(f"QueryRegexp(`a`, `{pattern}`)").matches(view) is (found[""] or found[host])
    assert not parse_rule(f"HeaderRegexp(`X-B`, `{pattern}`) || QueryRegexp(`b`, `{pattern}`)").matches(view)


TEXTS = st.text(st.characters(min_codepoint=0x20, exclude_characters="`", codec="utf-8"), min_size=1)


@given(TEXTS, TEXTS)
def test_a_field_is_compared_by_its_bytes(wanted: str, sent: str) -> None:
    rule = parse_rule(f"Header(`X-A`, `{wanted}`)")
    for text in (wanted, sent):
        received = text.encode().decode("latin-1")
        assert rule.matches(RequestView("", "/", field_values=lambda _: ["", received])) is (text == wanted)  # noqa: B023


ADDRESSES = st.ip_addresses().map(str)


@given(ADDRESSES, st.integers(0, 128), ADDRESSES)
def test_networks(base: str, bits: int, client: str) -> None:
    network = f"{base}/{min(bits, 128 if ':' in base else 32)}"
    taken = parse_ip(client) in Networks((parse_network(network),))
    assert (
        parse_rule(f"ClientIP(`{network}`)").matches(RequestView("", "/", client=parse_ip(client))) is taken
    )
