from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsb.balancing.report import MAX_CONNECTIONS, MAX_NAME, Report, ReportError, parse_report

FIELD = "agentsConnections"


def report(**document: object) -> Report:
    return parse_report(json.dumps(document).encode(), FIELD)


def test_full_form() -> None:
    given = report(agentsConnections=7, podName="pod-1", podIP="10.0.0.1", nodeName="node-a", other=[1, {}])
    assert given == Report(7, "pod-1", "10.0.0.1", "node-a")


def test_legacy_form() -> None:
    assert report(agentsConnections=0) == Report(0)


def test_another_field() -> None:
    assert parse_report(b'{"connections": 3, "agentsConnections": 9}', "connections") == Report(3)


def test_byte_order_mark_and_white_space() -> None:
    assert parse_report(b'\xef\xbb\xbf\r\n {"agentsConnections" : 5}\n', FIELD).connections == 5


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"<html>500</html>", "HTML or XML"),
        (b"\xff\xfe{", "is not JSON"),
        (b'{"agentsConnections": NaN}', "is not JSON"),
        (b'{"agentsConnections": 1} x', "is not JSON"),
        (b'{"agentsConnections": ' + b"9" * 60_000 + b"}", "is not JSON"),
        (b"[" * 60_000, "is not JSON"),
        (b'{"a":' * 10_000, "is not JSON"),
        (b"7", "not a JSON object"),
        (b"[7]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "has no agentsConnections"),
        (b'{"agentsconnections": 1}', "has no agentsConnections"),
        (b'{"agentsConnections": true}', "not an integer"),
        (b'{"agentsConnections": "7"}', "not an integer"),
        (b'{"agentsConnections": 7.0}', "not an integer"),
        (b'{"agentsConnections": 1e400}', "not an integer"),
        (b'{"agentsConnections": null}', "not an integer"),
        (b'{"agentsConnections": -1}', "is negative"),
        (b'{"agentsConnections": 1000000001}', "is over 1000000000"),
        (b'{"agentsConnections": 1' + b"0" * 30 + b"}", "is over 1000000000"),
    ],
)
def test_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ReportError) as caught:
        parse_report(body, FIELD)
    assert reason in caught.value.reason
    assert len(caught.value.reason) < 80


def test_depth_is_no_matter_of_the_callers_depth() -> None:
    def nested(depth: int) -> None:
        if depth:
            nested(depth - 1)
        else:
            with pytest.raises(ReportError):
                parse_report(b"[" * 60_000, FIELD)

    nested(sys.getrecursionlimit() // 3)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * (MAX_NAME + 1),
        "a\nb",
        "a\x00",
        "\x1b[31m",
        "\u202epod",
        "a\u2028b",
        "\ud800",
        7,
        True,
        ["x"],
        None,
    ],
)
def test_names_that_cannot_be_shown_are_ignored(name: object) -> None:
    assert report(agentsConnections=1, podName=name, podIP=name, nodeName=name) == Report(1)


def test_longest_name() -> None:
    assert report(agentsConnections=1, podName="x" * MAX_NAME).pod_name == "x" * MAX_NAME


@given(st.binary(max_size=200))
def test_any_bytes_give_a_report_or_a_reason(body: bytes) -> None:
    try:
        parsed = parse_report(body, FIELD)
    except ReportError:
        return
    assert 0 <= parsed.connections <= MAX_CONNECTIONS


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([FIELD, "podName", "podIP", "nodeName", "x"]), json_values))
def test_any_document(document: dict[str, object]) -> None:
    count = document.get(FIELD)
    good = isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= MAX_CONNECTIONS
    body = json.dumps(document).encode()
    if not good or b"NaN" in body or b"Infinity" in body:
        with pytest.raises(ReportError):
            parse_report(body, FIELD)
        return
    parsed = parse_report(body, FIELD)
    assert parsed.connections == count
    for name in (parsed.pod_name, parsed.pod_ip, parsed.node_name):
        assert name is None or (name.isprintable() and 0 < len(name) <= MAX_NAME)
