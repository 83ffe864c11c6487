from __future__ import annotations

import pytest

from tests.middleware.helpers import request, summary
from trio_wsb.addresses import parse_network
from trio_wsb.http.headers import Field
from trio_wsb.middleware.source import (
    MAX_HOPS,
    MAX_KEY,
    PEER_ADDRESS,
    REQUEST_HOST,
    ClientAddress,
    IPStrategyOptions,
    Source,
    SourceCriterionOptions,
)

CHAIN = "10.0.0.1,11.0.0.1, 12.0.0.1 ,13.0.0.1"


def networks(*texts: str) -> IPStrategyOptions:
    return IPStrategyOptions(excluded_ips=tuple(map(parse_network, texts)))


@pytest.mark.parametrize(
    ("options", "forwarded", "expected"),
    [
        (IPStrategyOptions(), CHAIN, "192.0.2.1"),
        (IPStrategyOptions(depth=1), CHAIN, "13.0.0.1"),
        (IPStrategyOptions(depth=3), CHAIN, "11.0.0.1"),
        (IPStrategyOptions(depth=5), CHAIN, ""),
        (IPStrategyOptions(depth=1), None, ""),
        (IPStrategyOptions(depth=1), "unknown", "unknown"),
        (IPStrategyOptions(depth=1), "::ffff:10.0.0.1", "10.0.0.1"),
        (IPStrategyOptions(depth=1, ipv6_subnet=64), "2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
        (IPStrategyOptions(depth=1, ipv6_subnet=64), "10.0.0.1", "10.0.0.1"),
        (networks("11.0.0.1", "12.0.0.0/8", "13.0.0.1"), CHAIN, "10.0.0.1"),
        (networks("13.0.0.1"), CHAIN, "12.0.0.1"),
        (networks("15.0.0.1"), CHAIN, "13.0.0.1"),
        (networks("0.0.0.0/0"), CHAIN, ""),
        (networks("11.0.0.1"), None, ""),
        (networks("11.0.0.1"), "x, 11.0.0.1", "x"),
        (IPStrategyOptions(depth=1, excluded_ips=(parse_network("13.0.0.1"),)), CHAIN, "13.0.0.1"),
    ],
)
def test_the_address_of_the_client(options: IPStrategyOptions, forwarded: str | None, expected: str) -> None:
    fields = [] if forwarded is None else [("X-Forwarded-For", forwarded)]
    assert ClientAddress(options).text(request("/", fields)) == expected


@pytest.mark.parametrize(
    ("peer", "subnet", "expected"),
    [
        ("::abcd:1111:2222:3333", 64, "::"),
        ("::abcd:1111:2222:3333", 80, "::abcd:0:0:0"),
        ("::abcd:1111:2222:3333", 96, "::abcd:1111:0:0"),
        ("::abcd:1111:2222:3333", 0, "::"),
        ("::abcd:1111:2222:3333", None, "::abcd:1111:2222:3333"),
        ("192.0.2.7", 64, "192.0.2.7"),
        (None, 64, ""),
    ],
)
def test_addresses_of_one_customer_are_one_source(
    peer: str | None, subnet: int | None, expected: str
) -> None:
    assert ClientAddress(IPStrategyOptions(ipv6_subnet=subnet)).text(request(peer=peer)) == expected


def test_lines_of_forwarded_for_are_one_list() -> None:
    fields = [("X-Forwarded-For", "10.0.0.1"), ("X-Forwarded-For", "10.0.0.2, 10.0.0.3")]
    assert ClientAddress(IPStrategyOptions(depth=3)).text(request("/", fields)) == "10.0.0.1"


def test_an_endless_list_is_cut() -> None:
    fields = [("X-Forwarded-For", "9.9.9.9," * 500 + ",".join(["10.0.0.1"] * MAX_HOPS))]
    assert ClientAddress(networks("10.0.0.1")).text(request("/", fields)) == ""


def test_what_is_no_address_is_none() -> None:
    assert ClientAddress(IPStrategyOptions(depth=1)).find(request("/", [("X-Forwarded-For", "x")])) is None


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        (PEER_ADDRESS, [], "192.0.2.1"),
        (SourceCriterionOptions(), [], "192.0.2.1"),
        (REQUEST_HOST, [], "example.com"),
        (SourceCriterionOptions(request_header_name="X-Key"), [("x-key", "a"), ("X-Key", "b")], "a"),
        (SourceCriterionOptions(request_header_name="X-Key"), [], ""),
    ],
)
def test_key(options: SourceCriterionOptions, fields: list[Field], expected: str) -> None:
    assert Source(options).key(request("/", fields, host="Example.com:8080")) == expected


def test_a_long_key_is_replaced_by_a_digest() -> None:
    source = Source(SourceCriterionOptions(request_header_name="X-Key"))
    keys = {source.key(request("/", [("X-Key", "x" * 5000 + end)])) for end in ("a", "b", "b")}
    assert len(keys) == 2
    assert all(len(key) <= MAX_KEY for key in keys)


def test_problems() -> None:
    assert summary(SourceCriterionOptions().problems()) == []
    both = SourceCriterionOptions(IPStrategyOptions(), "X-Key", request_host=True)
    assert summary(both.problems()) == [(("request_header_name",), "error"), (("request_host",), "error")]
    unused = SourceCriterionOptions(IPStrategyOptions(1, (parse_network("10.0.0.1"),)))
    assert summary(unused.problems()) == [(("ip_strategy", "excluded_ips"), "warning")]
