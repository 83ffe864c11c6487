from __future__ import annotations

import pytest

from trio_wsb.http.headers import Headers
from trio_wsb.http.names import hop_by_hop, is_disguised, is_forwarding, is_unsafe_trailer


def test_hop_by_hop_and_nominated_names() -> None:
    names = hop_by_hop(Headers([("Connection", "X-One, close"), ("connection", "x-TWO")]))
    assert {"connection", "keep-alive", "te", "upgrade", "transfer-encoding", "x-one", "x-two"} <= names
    assert "host" not in names


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Content-Length",
        "X-Forwarded-For",
        "x-forwarded-anything",
        "X-Real-Ip",
        "Forwarded",
        "Sec-WebSocket-Key",
    ],
)
def test_what_connection_cannot_remove(name: str) -> None:
    assert name.lower() not in hop_by_hop(Headers([("Connection", f"close, {name}")]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x-forwarded-for", True),
        ("x-forwarded-prefix", True),
        ("x-forwarded", True),
        ("x-real-ip", True),
        ("forwarded", True),
        ("x-forwardedness", False),
        ("forwarded-for", False),
        ("x-realm", False),
        ("from", False),
    ],
)
def test_forwarding_names(name: str, expected: bool) -> None:
    assert is_forwarding(name) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x_forwarded_for", True),
        ("x-forwarded_for", True),
        ("x.forwarded.for", True),
        ("x_real_ip", True),
        ("content_length", True),
        ("transfer_encoding", True),
        ("transfer~encoding", True),
        ("sec_websocket_key", True),
        ("proxy", True),  # CVE-2016-5385
        ("x-forwarded-for", False),
        ("content-length", False),
        ("my_header", False),
        ("x_auth_user", False),
        ("_", False),
        ("-", False),
    ],
)
def test_disguised_names(name: str, expected: bool) -> None:
    assert is_disguised(name) is expected


@pytest.mark.parametrize(
    "name", ["checksum", "etag", "server-timing", "grpc-status", "x-checksum", "my_trailer"]
)
def test_honest_trailers(name: str) -> None:
    assert not is_unsafe_trailer(name)
