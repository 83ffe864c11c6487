from __future__ import annotations

import base64
import re
from collections.abc import Sequence

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from websockets.utils import accept_key

from trio_wsb.errors import BadRequest, BadResponse
from trio_wsb.websocket.handshake import (
    accept_value,
    check_answer,
    check_request,
    is_upgrade,
    new_key,
    offered_protocols,
)

# RFC 6455 section 1.3
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

Fields = Sequence[tuple[str, str]]


@frozen
class FakeHeaders:
    fields: Fields

    def get(self, name: str, /) -> str | None:
        return next(iter(self.get_all(name)), None)

    def get_all(self, name: str, /) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name]

    def tokens(self, name: str, /) -> list[str]:
        members = ",".join(self.get_all(name)).lower().split(",")
        return [member.strip() for member in members if member.strip()]


@frozen
class FakeRequest:
    method: str
    version: tuple[int, int]
    headers: FakeHeaders


@frozen
class FakeResponse:
    status: int
    headers: FakeHeaders


UPGRADE: Fields = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
ASKED: Fields = [*UPGRADE, ("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13")]
ANSWERED: Fields = [*UPGRADE, ("Sec-WebSocket-Accept", ACCEPT)]


def request(fields: Fields = ASKED, method: str = "GET", version: tuple[int, int] = (1, 1)) -> FakeRequest:
    return FakeRequest(method, version, FakeHeaders(fields))


def without(fields: Fields, name: str, *others: tuple[str, str]) -> Fields:
    return [*(field for field in fields if field[0] != name), *others]


def test_the_example_of_the_rfc() -> None:
    assert new_key(b"the sample nonce") == KEY
    assert accept_value(KEY) == ACCEPT


@given(st.binary(min_size=16, max_size=16))
def test_accept_values_of_the_websockets_library(random_bytes: bytes) -> None:
    key = new_key(random_bytes)
    assert base64.b64decode(key) == random_bytes
    assert accept_value(key) == accept_key(key)
    check_request(request(without(ASKED, "Sec-WebSocket-Key", ("Sec-WebSocket-Key", key))))


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_key_is_made_of_16_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        new_key(bytes(size))


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (UPGRADE, True),
        ([("Upgrade", "h2c, WebSocket"), ("Connection", "keep-alive"), ("Connection", "upgrade")], True),
        ([("Upgrade", "websocket")], False),
        ([("Connection", "upgrade")], False),
        ([("Upgrade", "h2c"), ("Connection", "upgrade")], False),
        ([("Upgrade", "websocket"), ("Connection", "close")], False),
        ([("Upgrade", "websocket2"), ("Connection", "upgrades")], False),
        ([], False),
    ],
)
def test_what_asks_for_a_websocket(fields: Fields, wanted: bool) -> None:
    assert is_upgrade(request(fields)) is wanted


def test_subprotocols_in_order_and_spelling() -> None:
    fields = [
        ("Sec-WebSocket-Protocol", "Chat, v2.chat"),
        ("X", "y"),
        ("sec-websocket-protocol", " ,mqtt\t,"),
    ]
    assert offered_protocols(request(fields)) == ["Chat", "v2.chat", "mqtt"]
    assert offered_protocols(request()) == []


@pytest.mark.parametrize(
    "fields",
    [
        ASKED,
        [*ASKED, ("Content-Length", "0")],
        [*ASKED, ("Sec-WebSocket-Protocol", "a, b"), ("Sec-WebSocket-Protocol", "c")],
        [*ASKED, ("Sec-WebSocket-Extensions", "permessage-deflate")],
    ],
)
def test_handshakes_that_pass(fields: Fields) -> None:
    check_request(request(fields))
    check_request(request(fields, version=(1, 2)))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZR==",  # decodes to the same bytes, but no encoder writes it
        "dGhlIHNhbXBs ZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZQ==\n",
        "dGhlIHNhbXBsZSBub25jZS4=",
        "dGhlIHNhbXBsZSBub25j",
        "________________________",
        "dGhlIHNhbXBsZSBub25jZQ=é",
    ],
)
def test_bad_keys(key: str) -> None:
    with pytest.raises(BadRequest, match="400 bad Sec-WebSocket-Key"):
        check_request(request(without(ASKED, "Sec-WebSocket-Key", ("Sec-WebSocket-Key", key))))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (request(method="POST"), "GET"),
        (request(method="get"), "GET"),
        (request(version=(1, 0)), "HTTP/1.1"),
        (request([*ASKED, ("Content-Length", "5")]), "no body"),
        (request([*ASKED, ("Content-Length", "0"), ("Content-Length", "00")]), "no body"),
        (request([*ASKED, ("Transfer-Encoding", "chunked")]), "no body"),
        (request([*ASKED, ("Transfer-Encoding", "")]), "no body"),
        (request(without(ASKED, "Sec-WebSocket-Key")), "no Sec-WebSocket-Key"),
        (request([*ASKED, ("Sec-WebSocket-Key", KEY)]), "more than one Sec-WebSocket-Key"),
        (request([*ASKED, ("Sec-WebSocket-Version", "13")]), "more than one Sec-WebSocket-Version"),
        (request([*ASKED, ("Sec-WebSocket-Protocol", "a b")]), "bad Sec-WebSocket-Protocol"),
    ],
)
def test_handshakes_that_are_refused(bad: FakeRequest, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as raised:
        check_request(bad)
    assert raised.value.status == 400
    assert raised.value.headers == ()


@pytest.mark.parametrize("version", ["12", "8", "0", "", "013", "13, 8", "+13", "thirteen", None])
def test_another_version_learns_which_one_is_understood(version: str | None) -> None:
    versions = [] if version is None else [("Sec-WebSocket-Version", version)]
    with pytest.raises(BadRequest) as raised:
        check_request(request(without(ASKED, "Sec-WebSocket-Version", *versions)))
    assert raised.value.status == 426
    assert raised.value.headers == (("Sec-WebSocket-Version", "13"),)


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        (ANSWERED, []),
        (ANSWERED, ["chat"]),
        ([("Upgrade", "WebSocket"), ("Connection", "keep-alive, UPGRADE"), *ANSWERED[2:]], []),
        ([*ANSWERED, ("Sec-WebSocket-Protocol", "chat")], ["mqtt", "chat"]),
        ([*ANSWERED, ("Sec-WebSocket-Extensions", "permessage-deflate")], []),
    ],
)
def test_answers_that_open_a_tunnel(fields: Fields, offered: list[str]) -> None:
    check_answer(FakeResponse(101, FakeHeaders(fields)), KEY, offered)


@pytest.mark.parametrize(
    ("status", "fields", "offered", "reason"),
    [
        (200, ANSWERED, [], "did not switch"),
        (101, without(ANSWERED, "Upgrade"), [], "did not upgrade"),
        (101, without(ANSWERED, "Upgrade", ("Upgrade", "h2c")), [], "did not upgrade"),
        (101, [*ANSWERED, ("Upgrade", "h2c")], [], "did not upgrade"),
        (101, without(ANSWERED, "Connection"), [], "Connection"),
        (101, without(ANSWERED, "Connection", ("Connection", "close")), [], "Connection"),
        (101, without(ANSWERED, "Sec-WebSocket-Accept"), [], "no Sec-WebSocket-Accept"),
        (101, [*ANSWERED, ("Sec-WebSocket-Accept", ACCEPT)], [], "more than one Sec-WebSocket-Accept"),
        (
            101,
            without(ANSWERED, "Sec-WebSocket-Accept", ("Sec-WebSocket-Accept", ACCEPT.lower())),
            [],
            "wrong",
        ),
        (101, without(ANSWERED, "Sec-WebSocket-Accept", ("Sec-WebSocket-Accept", KEY)), [], "wrong"),
        (101, [*ANSWERED, ("Sec-WebSocket-Protocol", "chat")], [], "not offered"),
        (101, [*ANSWERED, ("Sec-WebSocket-Protocol", "Chat")], ["chat"], "not offered"),
        (101, [*ANSWERED, ("Sec-WebSocket-Protocol", "")], ["chat"], "not offered"),
        (101, [*ANSWERED, ("Sec-WebSocket-Protocol", "a, b")], ["a", "b"], "not offered"),
        (
            101,
            [*ANSWERED, ("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "a")],
            ["a"],
            "more than one Sec-WebSocket-Protocol",
        ),
    ],
)
def test_answers_that_open_no_tunnel(status: int, fields: Fields, offered: list[str], reason: str) -> None:
    with pytest.raises(BadResponse, match=reason) as raised:
        check_answer(FakeResponse(status, FakeHeaders(fields)), KEY, offered)
    assert raised.value.status == 502


@given(st.text(max_size=30) | st.from_regex(r"[A-Za-z0-9+/]{21}[A-Z]={0,3}", fullmatch=True))
def test_a_key_passes_only_in_the_one_form_that_an_encoder_gives(key: str) -> None:
    bad = request(without(ASKED, "Sec-WebSocket-Key", ("Sec-WebSocket-Key", key)))
    # 128 bits are 21 characters and the upper two bits of another.
    if re.fullmatch(r"[A-Za-z0-9+/]{21}[AQgw]==", key):
        check_request(bad)
    else:
        with pytest.raises(BadRequest, match="400 bad"):
            check_request(bad)
