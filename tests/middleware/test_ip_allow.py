from __future__ import annotations

import pytest

from tests.middleware.helpers import request, summary
from trio_wsb.addresses import parse_network
from trio_wsb.middleware.ip_allow import IPAllowList, IPAllowListOptions
from trio_wsb.middleware.source import IPStrategyOptions

INSIDE = (parse_network("10.0.0.0/8"), parse_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("peer", "passes"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        (None, False),
    ],
)
def test_by_the_peer(peer: str | None, passes: bool) -> None:
    assert (IPAllowList(IPAllowListOptions(INSIDE)).judge(request(peer=peer)) is None) is passes


@pytest.mark.parametrize(
    ("forwarded", "passes"),
    [
        ("10.1.1.1", True),
        ("10.1.1.1, 1.1.1.1", False),
        ("1.1.1.1, 10.1.1.1", True),
        ("", False),
        ("x", False),
    ],
)
def test_by_what_a_trusted_proxy_says(forwarded: str, passes: bool) -> None:
    allow = IPAllowList(IPAllowListOptions(INSIDE, IPStrategyOptions(depth=1)))
    assert (allow.judge(request("/", [("X-Forwarded-For", forwarded)], peer="10.0.0.1")) is None) is passes


def test_the_answer() -> None:
    answer = IPAllowList(IPAllowListOptions(INSIDE)).judge(request())
    assert answer is not None
    assert (answer.status, answer.body) == (403, b"Forbidden")
    answer = IPAllowList(IPAllowListOptions(INSIDE, reject_status_code=404)).judge(request())
    assert answer is not None
    assert (answer.status, answer.body) == (404, b"Not Found")


def test_problems() -> None:
    options = IPAllowListOptions(INSIDE, IPStrategyOptions(1, INSIDE))
    assert summary(options.problems()) == [(("ip_strategy", "excluded_ips"), "warning")]
    assert summary(IPAllowListOptions(INSIDE).problems()) == []
